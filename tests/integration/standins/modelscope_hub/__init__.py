"""Stands in for ModelScope's client: the names that weights/hubs.py uses, and a hub that cannot be reached."""

import os
import signal
import urllib.request
from typing import Any

from modelscope_hub.errors import NetworkError


class ProgressCallback:
    """Is told how a file's download goes."""

    def __init__(self, filename: str, file_size: int) -> None:
        self.filename = filename
        self.file_size = file_size


class HubApi:
    """Asks MODELSCOPE_ENDPOINT; the address http://silent lists one file, of which nothing ever comes."""

    def __init__(self, token: str | None = None) -> None:
        self.endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or "https://hub.invalid"
        self.legacy = self

    def list_repo_files(self, model: str, repo_type: str, revision: str) -> list[dict[str, Any]]:
        if self.endpoint == "http://silent":
            return [{"Path": "model.safetensors", "Size": 1000, "Sha256": "0" * 64, "Type": "blob"}]
        try:
            urllib.request.urlopen(f"{self.endpoint}/api/v1/models/{model}/repo/files?Revision={revision}")
        except OSError as error:
            raise NetworkError(f"Connection failed: {error}") from error
        raise NotImplementedError(f"the stand-in lists no {repo_type}")

    def download_repo(self, *_: object, **__: object) -> None:
        while True:
            signal.pause()
