"""The router alone: what it makes of any bytes, and how much it bears; servers are stand-ins that read as vLLM does."""
