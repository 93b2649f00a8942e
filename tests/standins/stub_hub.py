#!/usr/bin/env python3
"""A stand-in for the ModelScope hub (its read side), standard library only; with hub_*.py beside it.

  stub_hub.py ROOT [--host 127.0.0.1] [--port 0] [--tls CERT KEY] [--history] [switches, see --help]

ROOT/<org>/<name>/... are served as model repositories, branch "master" and the commit that it is at.
Point a client at it with  MODELSCOPE_ENDPOINT=http://127.0.0.1:PORT   (modelscope >= 1.38)
                     or    MODELSCOPE_DOMAIN=127.0.0.1:PORT + --tls    (modelscope <= 1.37: https only)
One JSON line per request on stderr; the first stdout line is the base URL. /control and /log: hub_server.py.
"""

import json
import re
from typing import Any

from hub_server import HubHandler, main
from hub_tree import Tree

BRANCH = "master"
NONE = 10010205001
MODEL = re.compile(r"/(?:api|openapi)/v1/models/([^/]+/[^/]+?)(/revisions|/repo/files|/repo)?")


class Handler(HubHandler):
    server_version = "stub-modelscope"

    def repository_and_file(self, path: str, query: dict[str, str]) -> tuple[str, str, str]:
        found = MODEL.fullmatch(path)
        return found[1] if found else "", query.get("FilePath", ""), query.get("Revision", "")

    def error_json(self, status: int) -> Any:
        return self.body(None, status, super().error_json(status)["error"])

    def body(self, data: Any, code: int, message: str = "") -> dict[str, Any]:
        return {"Code": code, "Success": code == 200, "Message": message, "RequestId": "stub", "Data": data}

    def data(self, data: Any) -> None:
        self.json(200, self.body(data, 200))

    def none(self, message: str, status: int = 404, code: int = NONE) -> None:
        self.json(status, self.body(None, code, message))

    def answer(self, path: str, query: dict[str, str], body: bytes) -> None:
        found = MODEL.fullmatch(path)
        if path == "/api/v1/login" and self.command == "POST":
            self.log_in(json.loads(body or b"{}"))
        elif path == "/api/v1/repos/internalAccelerationInfo":
            self.data({"InternalRegionQueryAddress": ""})
        elif found and self.command != "POST":
            self.model(found[1], found[2] or "", query)
        else:
            self.none(f"no such endpoint {path}")

    def log_in(self, asked: dict[str, Any]) -> None:
        token = self.server.switches.token
        if token and asked.get("AccessToken") != token:
            # modelscope_hub's table of codes has another for this and notes that it comes with 400.
            self.none("token invalid", status=401)
        else:
            self.data({"AccessToken": "git-token", "Username": "stub", "Email": "stub@localhost"})

    def model(self, repository: str, endpoint: str, query: dict[str, str]) -> None:
        org, _, name = repository.partition("/")
        if ".." in (org, name) or not self.server.repositories.exists(repository):
            self.none(f"no repo {repository}")
        elif not self.opened(repository):
            # As far as is known the hub says of private ones what it says of those that there are not: 404. Public
            # reports show that, and modelscope_hub's advice for 404 is "does not exist, or it is private".
            self.none(f"no repo {repository}", status=self.server.switches.private_status or 404)
        elif not endpoint:
            self.data({"Id": 1, "Path": org, "Name": name, "Revision": BRANCH, "Visibility": 5})
        elif endpoint == "/revisions":
            date = self.server.repositories.head(repository).date
            self.data({"RevisionMap": {"Branches": [{"Revision": BRANCH, "CreatedAt": date}], "Tags": []}})
        else:
            revision = query.get("Revision", BRANCH)
            tree = self.server.repositories.tree(repository, revision, BRANCH)
            if tree is None:
                self.none(f"no revision {revision}")
            elif endpoint == "/repo/files":
                self.listing(repository, tree, query)
            else:
                self.file(repository, tree, query.get("FilePath", ""))

    def listing(self, repository: str, tree: Tree, query: dict[str, str]) -> None:
        self.list_slowly()
        root, deep = query.get("Root", "").strip("/"), query.get("Recursive", "False").lower() == "true"
        entries: dict[str, dict[str, Any]] = {}
        hashes = self.server.switches.no_hashes
        for item, folders in tree.below(root, deep=deep):
            for folder in folders:
                known = entries.get(folder)
                # A folder has the commit of what is newest in it.
                if known is None or known["CommittedDate"] < item.date:
                    entries[folder] = {"Type": "tree", "Size": 0, "Sha256": "", "Revision": item.commit,
                                                "CommittedDate": item.date}  # fmt: skip
            if deep or not folders:
                given = {"": {"Sha256": item.sha256}, "empty": {"Sha256": ""}, "missing": {}}[hashes]
                size = self.listed_size(repository, item)
                entries[item.path] = {"Type": "blob", "Size": size, **given, "Revision": item.commit,
                                 "CommittedDate": item.date}  # fmt: skip
        files = [
            {"Name": path.rpartition("/")[2], "Path": path, "Mode": "100644", "IsLFS": False, **entry}
            for path, entry in sorted(entries.items())
        ]
        # Id is empty on the real hub, too.
        committer = {"Id": "", "ShortId": tree.commit[:8], "CommittedDate": tree.date, "CommitterName": "stub"}
        self.data({"Files": files, "IsVisual": 0, "LatestCommitter": committer})

    def file(self, repository: str, tree: Tree, path: str) -> None:
        item = tree.items.get(path)
        if item is None:
            self.none("no such file")
            return
        with self.server.repositories.open(repository, item) as stream:
            self.send_file(stream, repository, item, {})


if __name__ == "__main__":
    main(Handler, "A stand-in for the ModelScope hub.")
