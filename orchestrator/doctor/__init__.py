"""Looks at the machine that models run on, and says what stands in the way of them, with the line that mends it."""
