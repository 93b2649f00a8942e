"""Whether a model that is up is right: what it is asked, and what its answers prove."""
