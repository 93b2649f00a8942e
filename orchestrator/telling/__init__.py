"""What `report` tells others of this machine: gathered, redacted, and written as one text."""
