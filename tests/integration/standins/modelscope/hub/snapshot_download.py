"""Stands in for modelscope.hub.snapshot_download."""

import os
import signal
import urllib.request


def snapshot_download(model: str, *, revision: str, local_dir: str, progress_callbacks: list[type]) -> str:
    """Ask MODELSCOPE_ENDPOINT for the model and pass on what comes of it; the address http://silent never answers."""
    endpoint = os.environ.get("MODELSCOPE_ENDPOINT") or "https://hub.invalid"
    if endpoint == "http://silent":
        for callback in progress_callbacks:
            callback("model.safetensors", 0).end()
        while True:
            signal.pause()
    with urllib.request.urlopen(f"{endpoint}/api/v1/models/{model}/repo/files?Revision={revision}"):
        raise NotImplementedError(f"the stand-in fetches nothing into {local_dir}")
