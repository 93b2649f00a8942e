"""Tandem: serves any of the models its owner listed, by name, behind one OpenAI-compatible address."""

__version__ = "0.1.0"
