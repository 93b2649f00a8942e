"""Whether a model fits into the memory that it is to run in, before anything is stopped, built or downloaded."""
