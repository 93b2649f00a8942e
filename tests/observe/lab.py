"""The router's image in a network of its own, between stand-ins for a server and the activator that run in the test."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from orchestrator.activator.metrics import Metrics
from orchestrator.project import ROUTER_IMAGE
from orchestrator.switch.world import Server
from tests.checkout import PATIENCE, ROOT, eventually

PROJECT = "tandem-test-metrics"
RECORDED = ROOT / "tests/observe/vllm-0.32.0.txt"
CHAT = "/v1/chat/completions"


def routes(*models: str) -> dict[str, Any]:
    """What routes.json says of models; each has an alias."""
    entries = [
        {"id": name, "object": "model", "created": 0, "owned_by": "tandem", "root": name, "aliases": [f"org/{name}"]}
        for name in models
    ]
    services = {spelt: name for name in models for spelt in (name, f"org/{name}")}
    return {"services": services, "models": entries, "digest": "0"}


def activators_text() -> str:
    """What an activator gives that has seen everything once."""
    metrics = Metrics()
    metrics.switched("cold", "ready", {"start": 1})
    metrics.refused("queue_full")
    return metrics.text({"one": Server("ready")}, 0, {"one": 1})


class Answering(BaseHTTPRequestHandler):
    """A server, or the activator: its metrics, and of a POST what its body's "do" says."""

    protocol_version = "HTTP/1.1"
    metrics = ""
    heard: list[dict[str, str]]

    def do_GET(self) -> None:
        self.heard.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
        self.say(200, self.metrics)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            do = json.loads(body).get("do", "")
        except ValueError:
            self.say(400, '{"said": "no JSON"}')
            return
        if do == "die":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.say(500 if do == "fail" else 200, '{"said": "an-answer"}')

    def say(self, status: int, text: str) -> None:
        self.send_response(status)
        # As vLLM's and the activator's are; Prometheus 3 takes none without a type.
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is http.server's)
        pass

    def address_string(self) -> str:
        return "-"


class OnSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@dataclass
class Lab:
    """A router that runs; folder is its /run/tandem, gateway this machine as containers see it."""

    name: str
    folder: Path
    gateway: str
    port: int = 0
    heard: list[dict[str, str]] = field(default_factory=list)
    ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def serve(self, server: socketserver.BaseServer) -> None:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.ends.callback(server.server_close)
        self.ends.callback(server.shutdown)

    def handler(self, metrics: str) -> type[BaseHTTPRequestHandler]:
        return type("Here", (Answering,), {"metrics": metrics, "heard": self.heard})

    def server(self, *models: str) -> int:
        """Stand in for the server of models, and open their routes; the port where it listens."""
        server = ThreadingHTTPServer((self.gateway, 0), self.handler(RECORDED.read_text(encoding="utf-8")))
        self.serve(server)
        for model in models:
            link = self.folder / "open" / model
            link.unlink(missing_ok=True)
            link.symlink_to(f"{self.gateway}:{server.server_port}")
        return server.server_port

    def activator(self) -> socketserver.BaseServer:
        """Stand in for the activator."""
        path = self.folder / "activator.sock"
        path.unlink(missing_ok=True)
        server = OnSocket(str(path), self.handler(activators_text()))
        path.chmod(0o666)
        self.serve(server)
        return server

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Ask the router: the status and the text of its answer."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, None if body is None else json.dumps(body), named)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def raw(self, sent: bytes, *, wait: bool = True) -> None:
        """Send bytes, and read what comes until the router closes, or leave at once."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.sendall(sent)
            while wait and connection.recv(65536):
                pass

    def inside(self, *words: str) -> str:
        """Run busybox in the router's container."""
        return docker("exec", self.name, "/usr/bin/busybox", *words)

    def log(self) -> list[str]:
        """The lines of the access log."""
        return docker("logs", self.name).splitlines()


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode()


@contextlib.contextmanager
def lab(*models: str, keys: str = "", name: str = PROJECT) -> Iterator[Lab]:
    """A router that knows these models, of which none is open, with no activator; keys is the text of its keys file."""
    image = os.environ.get("TANDEM_TEST_ROUTER", ROUTER_IMAGE)
    # Short: a socket's path has 108 letters at most.
    folder = Path(tempfile.mkdtemp(prefix="tandem-"))
    subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
    subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
    docker("network", "create", name)
    made = Lab(
        name, folder / "run", docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", name).strip()
    )
    try:
        (made.folder / "open").mkdir(parents=True)
        made.folder.chmod(0o777)
        (folder / "routes").mkdir()
        (folder / "keys").mkdir()
        (folder / "keys/keys").write_text(keys, encoding="utf-8")
        (folder / "routes/routes.json").write_text(json.dumps(routes(*models)), encoding="utf-8")
        folder.chmod(0o755)
        docker(
            "run", "--detach", "--name", name, "--network", name, "--network-alias", "router",
            "--publish", "127.0.0.1::8000", "--read-only", "--tmpfs", "/tmp", "--env", "TANDEM_BIND=127.0.0.1",
            "--volume", f"{folder}/routes:/etc/tandem:ro",
            "--volume", f"{folder}/keys:/run/keys:ro", "--volume", f"{made.folder}:/run/tandem", image,
        )  # fmt: skip
        made.port = int(docker("port", name, "8000").splitlines()[0].rpartition(":")[2])
        eventually(lambda: answers(made), what=f"{name} answers")
        yield made
    finally:
        made.ends.close()
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def answers(made: Lab) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return made.send("GET", "/health")[0] == 200
    return False
