"""The activator: holds the requests of models that are not ready, and switches."""
