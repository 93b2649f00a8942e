"""Pulls a model with a real client from a stand-in of its hub, as often as told: hub_driver.py STANDINS CLIENT < TRIES.

It runs in a container. TRIES is a JSON object: of each name the stand-in's switches, under "with", and what else this
file reads. It prints a JSON object of what came of each; progress goes to stderr.
"""

import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

STANDINS, CLIENT = sys.argv[1:]
sys.path.append(STANDINS)
import hub_client  # noqa: E402 (a sibling of the stand-ins)

MODEL = "org/name"
# huggingface_hub writes 10 MiB at a time and goes on after what it wrote.
WEIGHTS = random.Random(1).randbytes(12_000_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "sub/notes.txt": b"x"}


def modelscope(address: str, wanted: dict[str, Any], folder: Path) -> Any:
    from modelscope.hub.snapshot_download import snapshot_download

    revision, model = wanted.get("revision"), wanted.get("model", MODEL)
    return snapshot_download(
        model, revision=revision, local_dir=str(folder), endpoint=address, token=wanted.get("token")
    )


def modelscope_head(address: str) -> str:
    from modelscope_hub.api import HubApi

    listed = HubApi(endpoint=address).legacy.list_repo_files(MODEL, "model")
    return str(max(listed, key=lambda entry: entry["CommittedDate"])["Revision"])


def huggingface(address: str, wanted: dict[str, Any], folder: Path) -> Any:
    import huggingface_hub

    token, revision, model = wanted.get("token"), wanted.get("revision"), wanted.get("model", MODEL)
    if wanted.get("ask"):
        api = huggingface_hub.HfApi(endpoint=address, token=token)
        # It would wait for ever.
        info = api.model_info(model, revision=revision, files_metadata=True, timeout=5)
        return {sibling.rfilename: sibling.lfs and sibling.lfs.sha256 for sibling in info.siblings or ()}
    return huggingface_hub.snapshot_download(
        model, revision=revision, local_dir=folder, token=token, endpoint=address, max_workers=2
    )


def huggingface_head(address: str) -> str:
    import huggingface_hub

    return str(huggingface_hub.HfApi(endpoint=address).model_info(MODEL).sha)


CLIENTS: dict[str, tuple[str, Callable[..., Any], Callable[[str], str]]] = {
    "modelscope": ("stub_hub.py", modelscope, modelscope_head),
    "huggingface": ("hf_hub.py", huggingface, huggingface_head),
}


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / MODEL / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def attempt(
    hub: hub_client.Hub, pull: Callable[..., Any], wanted: dict[str, Any], folder: Path
) -> dict[str, Any]:  # fmt: skip
    """Pull once; what came of it, and what the hub saw."""
    hub.start_over(**wanted.get("with", {}))
    found: dict[str, Any] = {"error": None, "text": "", "failed": {}}
    try:
        found["answer"] = pull(hub.address, wanted, folder)
    except Exception as error:  # noqa: BLE001 (which one is the question)
        failed = getattr(error, "failed_files", {})
        found |= {"error": type(error).__name__, "text": str(error),
                  "failed": {name: type(why).__name__ for name, why in failed.items()}}  # fmt: skip
    requests = hub.requests()
    return {
        **found, "sent": hub.sent(), "statuses": [entry["status"] for entry in requests],
        "authorized": [entry["authorized"] for entry in requests],
        "ranges": [entry["range"] for entry in requests if entry["sent"] and entry["FilePath"] == "model.safetensors"],
        "whole": {name: (folder / name).is_file() and (folder / name).read_bytes() == content
                  for name, content in FILES.items()},
        "config": (folder / "config.json").read_text() if (folder / "config.json").is_file() else None,
        "partial": [path.name for path in folder.rglob("*incomplete*")],
    }  # fmt: skip


def main() -> None:
    """Try all, one after the other."""
    script, pull, head = CLIENTS[CLIENT]
    found = {}
    with tempfile.TemporaryDirectory() as kept:
        root, folders = Path(kept, "hub"), Path(kept, "pulled")
        write(root, FILES)
        with hub_client.running(script, root, "--history") as hub:
            first = head(hub.address)
            for name, wanted in json.load(sys.stdin).items():
                write(root, {path: text.encode() for path, text in wanted.get("changed", {}).items()})
                if wanted.get("revision") == "first":
                    wanted["revision"] = first
                print(name, file=sys.stderr, flush=True)
                found[name] = attempt(hub, pull, wanted, folders / wanted.get("folder", name))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
