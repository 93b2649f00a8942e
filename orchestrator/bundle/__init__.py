"""A bundle: a folder with everything that a machine without a network needs, written here and read there."""
