"""Stands in for ModelScope's client: the two names that pull.py uses, and a hub that cannot be reached."""
