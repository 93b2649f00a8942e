"""A router between stand-ins, all in containers of their own: alpha and beta are ready, gamma's route is closed."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checkout import LONG_PATIENCE, Checkout, eventually, free_port
from tests.routing import wire

HERE = Path(__file__).parent
ROUTER_IMAGE = "tandem/router:0.1.0"
SERVER_IMAGE = "tandem/vllm:0.32.0-cpu"
# Served model name or alias: service. The odd ones are names that a table in some languages has by itself.
NAMES = {
    "alpha": "alpha", "alpha-too": "alpha", "constructor": "alpha",
    "beta": "beta", "org/beta": "beta", "__proto__": "beta",
    "gamma": "gamma", "org/gamma": "gamma",
}  # fmt: skip
READY = ("alpha", "beta")
SERVICES = (*READY, "gamma")
# Without it no path of the activator may be asked, as this one says that others than this machine reach the router.
KEY = "a-key-of-25-characters..."


@dataclass
class Bed:
    """The running router and who is behind it."""

    name: str
    port: int
    controls: dict[str, int]
    _told: dict[str, wire.Connection] = field(default_factory=dict, repr=False)

    def tell(self, who: str, path: str) -> Any:
        """Ask a stand-in's control port."""
        if who not in self._told:
            self._told[who] = wire.Connection(self.controls[who])
        self._told[who].send(wire.request("GET", path, (), b""))
        return json.loads(self._told[who].answer().body)

    def forsake(self, who: str) -> None:
        """Give up a connection that broke."""
        if who in self._told:
            self._told.pop(who).close()

    def close(self) -> None:
        for who in self.controls:
            self.forsake(who)

    def seen(self) -> dict[str, dict[str, int]]:
        """Every request line that a stand-in got since forget()."""
        return {who: self.tell(who, "/seen") for who in self.controls}

    def set_ready(self, *services: str) -> None:
        """Open the routes of these, and of no other."""
        for who in READY:
            if who in services:
                self.tell("activator", f"/open/{who}/{address(self.name, who)}:8000")
            else:
                self.tell("activator", f"/close/{who}")

    def forget(self) -> None:
        for who in self.controls:
            self.tell(who, "/forget")

    def hold(self, held: bool) -> None:
        """Have streams stop after their first event, or go on."""
        for who in self.controls:
            self.tell(who, "/hold" if held else "/go")

    def in_flight(self) -> dict[str, int]:
        """The router's counts that are not 0."""
        return {model: count for model, count in self.tell("activator", "/in-flight").items() if count}

    def workers(self) -> dict[int, int]:
        """The router's processes that take requests, and how many KiB of memory each has to itself."""
        script = (
            "for p in /proc/[0-9]*; do read -r a < $p/cmdline 2>/dev/null; "
            'case "$a" in "nginx: worker process"*shutting*) ;; "nginx: worker process"*) '
            "echo ${p#/proc/} $(/usr/bin/busybox grep -E '^Rss(Anon|Shmem)' $p/status | "
            "/usr/bin/busybox awk '{s+=$2} END {print s}');; esac; done"
        )
        listed = run("docker", "exec", f"{self.name}-router", "/usr/bin/busybox", "sh", "-c", script)
        return {int(pid): int(size) for pid, size in (line.split() for line in listed.splitlines())}

    def reload(self) -> None:
        run("docker", "kill", "--signal", "HUP", f"{self.name}-router")

    def logs(self, *, since: float) -> tuple[list[bytes], list[str]]:
        """The access log's lines, and what the router said besides."""
        done = subprocess.run(
            ["docker", "logs", "--since", f"{since:.3f}", f"{self.name}-router"], capture_output=True, check=True
        )
        return done.stdout.splitlines(), done.stderr.decode(errors="replace").splitlines()

    def metrics(self) -> str:
        """What the router counted."""
        with contextlib.closing(wire.Connection(self.port)) as connection:
            connection.send(wire.request("GET", "/-/metrics", [("Authorization", f"Bearer {KEY}")], b""))
            answer = connection.answer()
        assert answer.status == 200, answer
        return answer.body.decode()


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONG_PATIENCE)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout.strip()


def models_toml() -> str:
    """The profiles that the router's table is rendered from."""
    text = ""
    for service in SERVICES:
        aliases = [name for name, owner in NAMES.items() if owner == service and name != service]
        text += f'[models.{service}]\nmodel = "./docker/demo/model"\nimage = "cpu"\naliases = {json.dumps(aliases)}\n'
    return text


@contextlib.contextmanager
def running(name: str, *, image: str = ROUTER_IMAGE) -> Iterator[Bed]:
    """Start all of it on a network of its own, and take it away again."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ends:
        made = Checkout.copy(Path(folder))
        made.write("models.toml", models_toml())
        rendered = made.tandem("render")
        assert rendered.returncode == 0, rendered.stderr
        sweep(name)
        ends.callback(sweep, name)
        run("docker", "network", "create", name)
        run("docker", "volume", "create", "--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs",
            "--opt", "o=mode=1777,size=16m", f"{name}-run")  # fmt: skip
        controls = {who: standin(name, who, "8000") for who in READY}
        controls["activator"] = standin(name, "activator", "/run/tandem/activator.sock")
        bed = ends.enter_context(contextlib.closing(Bed(name, free_port(), controls)))
        for who in controls:
            eventually(lambda who=who: answers(bed, who), what=f"{who} answers")  # type: ignore[misc]
        bed.set_ready(*READY)
        router(bed, image, Path(folder), {"TANDEM_BIND": "0.0.0.0", "TANDEM_BIND_WITHOUT_KEY": "yes"})
        eventually(lambda: healthy(bed), what="the router answers")
        yield bed


def standin(name: str, who: str, where: str) -> int:
    """Start one; its control port."""
    run("docker", "run", "--detach", "--name", f"{name}-{who}", "--network", name, "--network-alias", who,
        "--publish", "127.0.0.1::9000", "--volume", f"{name}-run:/run/tandem",
        "--volume", f"{HERE}:/routing:ro", "--entrypoint", "python3",
        SERVER_IMAGE, "/routing/standin.py", who, where)  # fmt: skip
    return int(run("docker", "port", f"{name}-{who}", "9000").rpartition(":")[2])


def router(bed: Bed, image: str, folder: Path, environment: dict[str, str]) -> None:
    """Start it as compose.yaml does."""
    key = folder / "admin-key"
    key.write_text(KEY, encoding="utf-8")
    key.chmod(0o644)
    folder.chmod(0o755)
    settings = [word for each in environment.items() for word in ("--env", "=".join(each))]
    run("docker", "run", "--detach", "--name", f"{bed.name}-router", "--network", bed.name, "--read-only",
        "--tmpfs", "/tmp", "--log-driver", "local", "--cap-drop", "ALL", "--security-opt",
        "no-new-privileges:true", *settings,
        "--publish", f"127.0.0.1:{bed.port}:8000", "--volume", f"{bed.name}-run:/run/tandem",
        "--volume", f"{folder / 'docker/router/routes'}:/etc/tandem:ro",
        "--volume", f"{key}:/run/secrets/admin-key:ro", image)  # fmt: skip


def address(name: str, who: str) -> str:
    shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return run("docker", "inspect", "--format", shown, f"{name}-{who}")


def answers(bed: Bed, who: str) -> bool:
    try:
        return bed.tell(who, "/seen") is not None
    except (OSError, wire.Broken):
        bed.forsake(who)
        return False


def healthy(bed: Bed) -> bool:
    with contextlib.suppress(OSError, wire.Broken), contextlib.closing(wire.Connection(bed.port)) as connection:
        connection.send(b"GET /health HTTP/1.1\r\nHost: router\r\nConnection: close\r\n\r\n")
        return connection.answer().status == 200
    return False


def sweep(name: str) -> None:
    """Remove what is called so in Docker, also what a killed run left."""
    for who in ("router", *READY, "activator"):
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{name}-{who}"], capture_output=True, check=False)
    subprocess.run(["docker", "volume", "rm", "--force", f"{name}-run"], capture_output=True, check=False)
    subprocess.run(["docker", "network", "rm", name], capture_output=True, check=False)
