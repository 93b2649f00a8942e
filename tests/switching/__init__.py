"""Switching shown with real containers: many clients, many switches, and processes killed in the middle."""
