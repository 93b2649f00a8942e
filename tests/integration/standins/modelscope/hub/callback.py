"""Stands in for modelscope.hub.callback."""


class ProgressCallback:
    """Is told how a file's download goes."""

    def __init__(self, filename: str, file_size: int) -> None:
        self.filename = filename
        self.file_size = file_size
