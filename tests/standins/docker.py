"""A stand-in for Docker: a daemon that lists what a test tells it, and a `docker` command that keeps its arguments."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.standins.serving import serving, serving_locally

CLI = """#!/bin/sh
echo "$@" >> "{log}"
case "$*" in *"config --hash"*) cat "{hashes}" ;; esac
"""


class Docker:
    """What the daemon says: the project's containers by service, and images by tag; the command's lines are in did."""

    def __init__(self, folder: Path) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.images: dict[str, str] = {}
        # Where it listens: for a daemon that may be elsewhere, and for one of this machine.
        self.address = self.local = ""
        # Containers of nobody's project, as the daemon lists them.
        self.others: list[dict[str, Any]] = []
        # What it says of itself beside its version.
        self.info: dict[str, Any] = {}
        # What it refuses everything with, when it does.
        self.refusal = ""
        # The ends of paths that it refuses, though it answers.
        self.refuses: tuple[str, ...] = ()
        # What the log of each service's container holds.
        self.logs: dict[str, str] = {}
        # The containers that it was told to remove; it has none but those of services.
        self.removed: list[str] = []
        self._log, self._hashes = folder / "docker.log", folder / "docker.hashes"
        self._log.touch()
        self._hashes.touch()
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "docker").write_text(CLI.format(log=self._log, hashes=self._hashes), encoding="utf-8")
        (self.bin / "docker").chmod(0o755)

    @property
    def did(self) -> list[str]:
        """What the command was told, but for the questions."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if "config --hash" not in line]

    def has(self, service: str, status: str = "running", health: str | None = "healthy", image: str = "") -> None:
        """Have a container of a service, or another state of it."""
        self.containers[service] = {
            "Id": service,
            "Name": f"/tandem-{service}",
            "Image": self.images.get(image, ""),
            "State": {
                "Status": status,
                "ExitCode": 0,
                "OOMKilled": False,
                "StartedAt": "2026-01-02T03:04:05.678901234Z",
                **({"Health": {"Status": health}} if health and status == "running" else {}),
            },
            "Config": {
                "Image": image,
                "Cmd": [],
                "Tty": False,
                "Labels": {"com.docker.compose.service": service, "com.docker.compose.config-hash": "1"},
            },
        }
        self._hashes.write_text("".join(f"{name} 1\n" for name in self.containers), encoding="utf-8")


def _handler(docker: Docker) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if docker.refusal or path.endswith(docker.refuses):
                self._json({"message": docker.refusal or "not now"}, 500)
                return
            logged = next(
                (name for name in docker.containers if path.endswith(f"/containers/tandem-{name}/logs")), None
            )
            if logged is not None:
                self._log(docker.logs.get(logged, "").encode())
                return
            named = next(
                (name for name in docker.containers if re.search(rf"/containers/(?:tandem-)?{name}/json$", path)), None
            )
            if named is not None:
                self._json(docker.containers[named])
            elif path.endswith("/containers/json"):
                mine = [
                    {"Id": name, "Labels": {}, "Names": [details["Name"]], "ImageID": details["Image"]}
                    for name, details in docker.containers.items()
                ]
                self._json(mine if "filters" in self.path else [*mine, *docker.others])
            elif path.endswith("/images/json"):
                rest = {"Size": 1 << 30, "Created": 1767323045, "Labels": {}}
                self._json([{"Id": ident, "RepoTags": [tag], **rest} for tag, ident in docker.images.items()])
            elif path.endswith("/info"):
                self._json({"ServerVersion": "28.5.2", "OperatingSystem": "a stand-in", **docker.info})
            elif path.endswith("/volumes"):
                self._json({"Volumes": []})
            elif path.endswith("/version"):
                self._json({"ApiVersion": "1.47", "Version": "28.5.2"})
            else:
                self._json({}, 200 if path.endswith("/_ping") else 404)

        def do_DELETE(self) -> None:
            docker.removed.append(urlsplit(self.path).path.rpartition("/")[2])
            self._json({"message": "No such container"}, 404)

        def _log(self, text: bytes) -> None:
            """Answer as for a container without a terminal: a frame of what it printed."""
            body = b"\x01\x00\x00\x00" + len(text).to_bytes(4, "big") + text
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _json(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def running(folder: Path) -> Iterator[Docker]:
    """Run one on a free port of this machine, and on a socket; its command lies in a new folder `bin`."""
    docker = Docker(folder)
    handler = _handler(docker)
    with serving(handler) as where, serving_locally(handler) as path:
        docker.address, docker.local = f"tcp://{where}", f"unix://{path}"
        yield docker
