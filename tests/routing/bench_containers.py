"""The containers of the router's benchmark: all of the router's image, with the host's network.

So what is compared is reached over the same loopback interface, and Docker's port proxy is in nobody's way.
"""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import ROOT, eventually, free_port
from tests.routing import bench_nginx
from tests.routing.bench_ask import trouble
from tests.routing.bench_wrk import CannotMeasureError

# What compose.yaml says of all of ours.
LIMITS = [
    "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
    "--log-driver", "json-file", "--log-opt", "max-size=20m", "--log-opt", "max-file=3",
]  # fmt: skip
SHIPPED = ("/etc/nginx/nginx.conf", "/etc/nginx/start.sh")
NGINX = ["-e", "/dev/stderr", "-g", "daemon off;"]
BUSYBOX = "/usr/bin/busybox"
OPEN = "/run/tandem/open"
ROUTES = ROOT / "docker/router/routes"


def docker(*arguments: str) -> str:
    """Run docker, and give what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise CannotMeasureError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


def model() -> tuple[str, str]:
    """Give a model that the rendered routes have, and its service."""
    table = json.loads((ROUTES / "routes.json").read_text(encoding="utf-8"))
    name = str(table["models"][0]["id"])
    return name, str(table["services"][name])


@dataclass(frozen=True)
class Machine:
    """Makes the containers: of which image, how they are called, and where their files lie."""

    image: str
    project: str
    folder: Path

    @contextlib.contextmanager
    def nginx(self, name: str, port: int, text: str) -> Iterator[int]:
        """Run nginx with a configuration of ours; give its port."""
        mount = self._mount(name, {SHIPPED[0]: text})
        with self._container(name, [*mount, "--entrypoint", "/usr/sbin/nginx"], NGINX):
            self._wait(name, port, b"{}")
            yield port

    @contextlib.contextmanager
    def router(self, to: int) -> Iterator[int]:
        """Run Tandem's router as it ships, with the route of one model open to a server at this port."""
        port, (called, service) = free_port(), model()
        shipped = {
            path: docker("run", "--rm", "--pull", "never", "--entrypoint", BUSYBOX, self.image, "cat", path)
            for path in SHIPPED
        }
        options = [
            *self._mount("tandem", bench_nginx.moved(shipped, port, free_port)),
            "--tmpfs", "/run/tandem:mode=1777", "--volume", f"{ROUTES}:/etc/tandem:ro", "--volume", "/var/log/tandem",
            "--volume", "/dev/null:/run/secrets/admin-key:ro", "--env", "TANDEM_BIND=127.0.0.1",
        ]  # fmt: skip
        with self._container("tandem", options, []):
            inside = ["exec", f"{self.project}-tandem", BUSYBOX]
            docker(*inside, "mkdir", "-p", OPEN)
            docker(*inside, "ln", "-s", f"127.0.0.1:{to}", f"{OPEN}/{service}")
            self._wait("tandem", port, json.dumps({"model": called}).encode())
            yield port

    def pid(self, name: str) -> int:
        """Give the first process of a container of ours."""
        return int(docker("inspect", "--format", "{{.State.Pid}}", f"{self.project}-{name}"))

    def versions(self) -> str:
        """Say which nginx the image has."""
        ask = ["docker", "run", "--rm", "--pull", "never", "--entrypoint", "/usr/sbin/nginx", self.image]
        done = subprocess.run([*ask, "-e", "/dev/stderr", "-v"], capture_output=True, text=True, check=True)
        return done.stderr.strip().removeprefix("nginx version: ")

    def _mount(self, name: str, files: dict[str, str]) -> list[str]:
        options = []
        for inside, text in files.items():
            path = self.folder / f"{name}-{Path(inside).name}"
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755)
            options += ["--volume", f"{path}:{inside}:ro"]
        return options

    @contextlib.contextmanager
    def _container(self, name: str, options: list[str], arguments: list[str]) -> Iterator[None]:
        called = f"{self.project}-{name}"
        # One that a killed run left.
        subprocess.run(["docker", "rm", "--force", called], capture_output=True, check=False)
        docker(
            "run",
            "--detach",
            "--pull",
            "never",
            "--name",
            called,
            "--network",
            "host",
            *LIMITS,
            *options,
            self.image,
            *arguments,
        )
        try:
            yield
        finally:
            docker("rm", "--force", "--volumes", called)

    def _wait(self, name: str, port: int, body: bytes) -> None:
        try:
            eventually(lambda: not trouble(port, body, counted=True), what=f"an answer of {name}")
        except AssertionError as error:
            log = subprocess.run(
                ["docker", "logs", "--tail", "10", f"{self.project}-{name}"],
                capture_output=True,
                text=True,
                check=False,
            )
            said = trouble(port, body, counted=True)
            raise CannotMeasureError(f"{error}: {said}\n{log.stdout}{log.stderr}") from None
