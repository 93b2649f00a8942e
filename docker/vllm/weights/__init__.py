"""Pulls, checks and looks after the weights in the shared volume; runs in the image, with the hubs' own clients."""
