#!/usr/bin/env python3
"""A stand-in for the Hugging Face hub (its read side), standard library only; with hub_*.py beside it.

  hf_hub.py ROOT [--host 127.0.0.1] [--port 0] [--tls CERT KEY] [--history] [switches, see --help]

ROOT/<org>/<name>/... are served as model repositories, branch "main" and the commit that it is at. Point a client at it
with HF_ENDPOINT=http://127.0.0.1:PORT and HF_HUB_DISABLE_XET=1. The real hub redirects what is in LFS to another host,
this one sends it itself. One JSON line per request on stderr; the first stdout line is the base URL. /control and /log:
hub_server.py.
"""

import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hub_server import HubHandler, main
from hub_tree import Item, Tree

BRANCH = "main"
# Larger files must be in LFS; the usual .gitattributes puts these there whatever their size.
LFS_SIZE, LFS_SUFFIXES = 10 << 20, {".bin", ".gguf", ".pt", ".safetensors"}
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
MISSING, DENIED = "Repository not found", "Invalid username or password."
BAD_TOKEN = "Invalid credentials in Authorization header"


def pointer(item: Item) -> bytes | None:
    """What git holds in place of a file that is in LFS; None for one that is not."""
    if item.size <= LFS_SIZE and Path(item.path).suffix not in LFS_SUFFIXES:
        return None
    spec = "version https://git-lfs.github.com/spec/v1"
    return f"{spec}\noid sha256:{item.sha256}\nsize {item.size}\n".encode()


def moment(date: int) -> str:
    return datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Handler(HubHandler):
    server_version = "stub-huggingface"

    def repository_and_file(self, path: str, query: dict[str, str]) -> tuple[str, str, str]:
        if found := FILE.fullmatch(path):
            return found[1], found[3], found[2]
        found = API.fullmatch(path)
        return (found[1], "", found[3] or "") if found else ("", "", "")

    def answer(self, path: str, query: dict[str, str], body: bytes) -> None:
        file, listing = FILE.fullmatch(path), API.fullmatch(path)
        if file:
            self.file(file[1], file[2], file[3])
        elif listing and listing[2] == "tree":
            self.tree(listing[1], listing[3], (listing[4] or "").strip("/"), query)
        elif listing and not listing[4]:
            self.model(listing[1], listing[3] or BRANCH, whole=query.get("blobs", "").lower() == "true")
        else:
            self.refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        self.json(status, {"error": message},
                  {**({"X-Error-Code": code} if code else {}), "X-Error-Message": message, **headers})  # fmt: skip

    def found(self, repository: str, revision: str, *, content: bool = False) -> Tree | None:
        """The tree that is asked for; None after an answer that says why not. content: of a file, not what files are"""
        switches = self.server.switches
        if switches.token and self.entry.auth and not self.entry.authorized:
            # Such a token is refused even where none is needed.
            self.refuse(401, "", BAD_TOKEN)
        elif ".." in repository.split("/") or not self.server.repositories.exists(repository):
            # Who is not logged in is not told what there is.
            status = 404 if self.entry.authorized else 401
            self.refuse(status, "RepoNotFound", MISSING if status == 404 else DENIED)
        elif not self.opened(repository):
            self.refuse(switches.private_status or 401, "RepoNotFound", DENIED)
        elif content and repository in switches.gated and not self.entry.authorized:
            # What is in a gated model everyone may see. With a token that has no access the status is 403.
            text = f"Access to model {repository} is restricted. You must have access to it and be authenticated."
            self.refuse(switches.private_status or 401, "GatedRepo", text)
        else:
            tree = self.server.repositories.tree(repository, revision, BRANCH)
            if tree is None:
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return tree
        return None

    def blob(self, repository: str, item: Item) -> str:
        """The SHA-1 by which git knows a file."""
        held = pointer(item)
        if held is not None:
            return hashlib.sha1(b"blob %d\0%b" % (len(held), held)).hexdigest()
        with self.server.repositories.open(repository, item) as stream:
            content = stream.read()
        return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()

    def model(self, repository: str, revision: str, *, whole: bool) -> None:
        tree = self.found(repository, revision)
        if tree is None:
            return
        self.list_slowly()
        siblings = [
            {"rfilename": item.path, **(self.details(repository, item, "blobId", "sha256") if whole else {})}
            for item in tree.items.values()
        ]
        switches = self.server.switches
        self.json(200, {
            "_id": "stub", "id": repository, "modelId": repository, "author": repository.partition("/")[0],
            "sha": tree.commit, "lastModified": moment(tree.date), "createdAt": moment(tree.date), "disabled": False,
            "private": repository in switches.private, "gated": "manual" if repository in switches.gated else False,
            "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
        })  # fmt: skip

    def details(self, repository: str, item: Item, blob: str, sha256: str) -> dict[str, Any]:
        """What a listing says of a file beside its name; the two listings name the hashes differently."""
        size, hashes, held = self.listed_size(repository, item), self.server.switches.no_hashes, pointer(item)
        if hashes == "missing":
            # Without it the client cannot read a tree at all.
            return {"size": size, **({"oid": ""} if blob == "oid" else {})}
        known = {"size": size, blob: "" if hashes else self.blob(repository, item)}
        if held is not None:
            known["lfs"] = {sha256: "" if hashes else item.sha256, "size": size, "pointerSize": len(held)}
        return known

    def tree(self, repository: str, revision: str, root: str, query: dict[str, str]) -> None:
        tree = self.found(repository, revision)
        if tree is None:
            return
        self.list_slowly()
        deep = query.get("recursive", "").lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        for item, folders in tree.below(root, deep=deep):
            for folder in folders:
                oid = hashlib.sha1(f"{tree.commit}:{folder}".encode()).hexdigest()
                entries[folder] = {"type": "directory", "oid": oid, "size": 0, "path": folder}
            if deep or not folders:
                entries[item.path] = {"type": "file", "path": item.path, **self.details(repository, item, "oid", "oid")}
                if query.get("expand", "").lower() == "true":
                    last = {"id": item.commit, "title": "stub", "date": moment(item.date)}
                    entries[item.path]["lastCommit"] = last
        if root and not entries:
            self.refuse(
                404, "EntryNotFound", f"{root} does not exist on {revision!r}", **{"X-Repo-Commit": tree.commit}
            )
        else:
            self.json(200, [entries[path] for path in sorted(entries)])

    def file(self, repository: str, revision: str, path: str) -> None:
        tree = self.found(repository, revision, content=True)
        if tree is None:
            return
        item = tree.items.get(path)
        if item is None:
            self.refuse(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": tree.commit})
            return
        linked = {}
        if pointer(item) is not None:
            size = self.listed_size(repository, item)
            linked = {"X-Linked-Etag": f'"{item.sha256}"', "X-Linked-Size": str(size)}
        etag = item.sha256 if linked else self.blob(repository, item)
        with self.server.repositories.open(repository, item) as stream:
            self.send_file(stream, repository, item, {"X-Repo-Commit": tree.commit, "ETag": f'"{etag}"', **linked})


if __name__ == "__main__":
    main(Handler, "A stand-in for the Hugging Face hub.")
