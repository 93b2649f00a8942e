"""Stands in for modelscope_hub.errors."""


class NotExistError(Exception):
    """The hub has no such thing."""


class NetworkError(ConnectionError):
    """The hub cannot be reached."""
