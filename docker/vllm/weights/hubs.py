"""The hubs that weights come from: what each lists, and its own client for the transfer."""

import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from weights import manifest
from weights.hashes import BLOCK, Hash
from weights.manifest import File, Model
from weights.store import partial

_COMMIT = re.compile(r"[0-9a-f]{40}")
# Files that are fetched at the same time; what ModelScope's client does by itself.
WORKERS = 4
# A file of 4 GB takes longer than the hour that the client allows, on a line of 1 MB/s.
DAYS = 30


class RefusedError(Exception):
    """What cannot go on, in words for a person: a fact, and what to do."""


class Meter(Protocol):
    """Is told how a transfer goes."""

    def at(self, name: str, size: int) -> None:
        """A file has so many bytes now; may wait, to keep to a rate."""

    def done(self, name: str, digest: str = "") -> None:
        """A file may be finished; its sha256 where it was hashed, and found right, as it came."""


class Hub(Protocol):
    """A source of weights."""

    def listing(self, model: str, revision: str) -> Model:
        """List a model at a revision. Raises what the client raises."""

    def fetch(self, listed: Model, names: list[str], folder: Path, meter: Meter) -> None:
        """Fetch files of a listing into folder, from where an earlier fetch ended. Raises what the client raises."""


class ModelScope:
    """ModelScope, by its own client."""

    def __init__(self, token: str, scratch: Path) -> None:
        """Open the client; scratch is for what it keeps for itself."""
        # Its constants are read from the environment when it is imported. Our own lock holds the model already.
        os.environ.update(
            MODELSCOPE_CACHE=str(scratch),
            MODELSCOPE_HOME=str(scratch / "home"),
            MODELSCOPE_DOWNLOAD_FILE_LOCK="false",
            MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT=str(DAYS * 24 * 3600),
            TQDM_DISABLE="1",
        )
        from modelscope_hub import HubApi

        # Our own lines say what happens, and why a pull fails.
        logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)
        self._api: Any = HubApi(token=token or None)

    def _entries(self, model: str, revision: str) -> list[dict[str, Any]]:
        # The public method leaves out the commit that an entry is from.
        client = self._api.legacy
        found = client.list_repo_files(model, "model", revision)
        # All that the client says where the hub cuts a listing short, beyond a line of its log.
        if getattr(getattr(client, "_read_state", None), "listing_incomplete", False):
            raise RefusedError(f"ModelScope lists only a part of {model}: it has too many files in one folder")
        return [entry for entry in found if entry.get("Type") != "tree"]

    def listing(self, model: str, revision: str) -> Model:
        entries = self._entries(model, revision)
        files = _files(model, ((entry["Path"], _listed(entry)) for entry in entries))
        return Model("modelscope", model, revision, self._resolve(model, revision, entries, files), files)

    def _resolve(self, model: str, revision: str, entries: list[dict[str, Any]], files: dict[str, File]) -> str:
        """Name the commit that a branch is at now; "" when the hub does not say.

        The hub names none for the branch itself, but each file's last one; the newest of them is the branch's, if it
        lists the same files.
        """
        if _COMMIT.fullmatch(revision):
            return revision
        newest = max(entries, key=lambda entry: entry.get("CommittedDate") or 0)
        commit = str(newest.get("Revision") or "")
        if not _COMMIT.fullmatch(commit) or not commit.strip("0"):
            return ""
        from modelscope_hub.errors import NotExistError

        try:
            then = self._entries(model, commit)
        except NotExistError:
            return ""
        return commit if {entry["Path"]: _listed(entry) for entry in then} == files else ""

    def fetch(self, listed: Model, names: list[str], folder: Path, meter: Meter) -> None:
        from modelscope_hub import ProgressCallback

        class Told(ProgressCallback):  # type: ignore[misc]  # the class of a client that the checks do not see
            fetched = 0

            def update(self, size: int) -> None:
                self.fetched += size
                meter.at(self.filename, self.fetched)

            def end(self) -> None:
                # The client puts a file in its place when what came has the hash that it was to have, and else raises.
                meter.done(self.filename, listed.files[self.filename].sha256)

        wanted = [
            {"Path": name, "Size": file.size, "Sha256": file.sha256, "Type": "blob"}
            for name, file in listed.files.items()
            if name in names
        ]
        self._api.download_repo(
            listed.model, "model", revision=listed.resolved or listed.revision, local_dir=folder, file_list=wanted,
            max_workers=WORKERS, progress_callbacks=[Told],
        )  # fmt: skip


class HuggingFace:
    """Hugging Face or a mirror of it, by its own client."""

    def __init__(self, token: str, scratch: Path) -> None:
        """Open the client; scratch is for what it keeps for itself."""
        os.environ.update(
            HF_HOME=str(scratch),
            HF_HUB_OFFLINE="0",
            HF_HUB_DISABLE_PROGRESS_BARS="1",
            HF_HUB_DISABLE_TELEMETRY="1",
            # Mirrors speak plain HTTP alone; and what comes by Xet cannot be gone on with.
            HF_HUB_DISABLE_XET="1",
        )
        from huggingface_hub import HfApi, constants

        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        # What is lost of a file when the process is killed: the client hands out 10 MB at a time.
        constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
        # False: not the token of whoever built the image, either.
        self._token: str | bool = token or False
        self._api: Any = HfApi(token=self._token)

    def listing(self, model: str, revision: str) -> Model:
        found = self._api.model_info(model, revision=revision, files_metadata=True, timeout=60)
        files = ((sibling.rfilename, _of_sibling(sibling)) for sibling in found.siblings)
        return Model("huggingface", model, revision, str(found.sha or ""), _files(model, files))

    def fetch(self, listed: Model, names: list[str], folder: Path, meter: Meter) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(WORKERS) as pool:
            tasks = [pool.submit(self._fetch, listed, name, folder, meter) for name in names]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, listed: Model, name: str, folder: Path, meter: Meter) -> None:
        """Fetch one file. The client's own download begins a file anew in each process: its transfer alone does not."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        size, target = listed.files[name].size, folder / name
        part = partial(target)
        part.parent.mkdir(parents=True, exist_ok=True)
        with _Told(part, listed.files[name], lambda at: meter.at(name, at)) as stream:
            have = stream.resume()
            if have < size:
                http_get(
                    hf_hub_url(listed.model, name, revision=listed.resolved or listed.revision), stream,
                    resume_size=have, headers=build_hf_headers(token=self._token), expected_size=size,
                    displayed_filename=name,
                )  # fmt: skip
            digest = stream.digest()
        part.replace(target)
        # What came wrong is in its place too, where the check that follows finds it.
        meter.done(name, digest or "")


class _Told:
    """A file that is hashed as it is written, and that says after each write how long it is."""

    def __init__(self, path: Path, listed: File, tell: Callable[[int], None]) -> None:
        path.touch()
        self._stream = path.open("r+b", buffering=0)
        self._listed = listed
        self._tell = tell
        self._hash = Hash(listed)

    def resume(self) -> int:
        """Hash what is there, and go to its end; its bytes. What is longer than the file is no part of it."""
        if self._stream.seek(0, os.SEEK_END) > self._listed.size:
            self._stream.truncate(0)
        self._hash = Hash(self._listed)
        self._stream.seek(0)
        while block := self._stream.read(BLOCK):
            self._hash.update(block)
        return self._stream.tell()

    def truncate(self) -> int:
        """Cut the file off where it stands; the client begins anew so, where a hub sends a file whole again."""
        self._stream.truncate()
        return self.resume()

    def digest(self) -> str | None:
        """Give the sha256 of what was written, if it is what the hub lists."""
        return self._hash.digest()

    def __enter__(self) -> "_Told":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) or 0 :]
        self._hash.update(data)
        self._tell(self._stream.tell())
        return len(data)


def _listed(entry: dict[str, Any]) -> File:
    return File(int(entry["Size"]), sha256=str(entry.get("Sha256") or "").lower())


def _of_sibling(sibling: Any) -> File:
    large = sibling.lfs
    return File(int(sibling.size), sha256=large.sha256) if large else File(int(sibling.size), git=sibling.blob_id or "")


def _files(model: str, found: Iterable[tuple[str, File]]) -> dict[str, File]:
    """Take what a hub lists, if all of it can be files of one folder."""
    files = dict(found)
    if not files:
        raise RefusedError(f"the hub lists no file of {model}; see `model` and `revision` in models.toml")
    for name in files:
        fault = manifest.unsafe(name)
        if fault:
            raise RefusedError(f"the hub lists {name!r} in {model}, which {fault}: nothing was fetched")
    return files
