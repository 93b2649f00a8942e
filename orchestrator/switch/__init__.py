"""Switching: decides which model is up, and what has to be done for it. Pure; the activator does it."""
