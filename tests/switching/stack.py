"""A stack whose models are tiny and whose GPUs are on paper; Docker, Compose, router, activator and gate are real."""

import contextlib
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.checkout import LONG_PATIENCE, PATIENCE, ROOT, Checkout, eventually, free_port
from tests.integration.conftest import SERVER_IMAGE, Stack
from tests.standins import nvml_feed
from tests.switching import events, tongues
from tests.switching.answers import Asker, of_standins
from tests.switching.kills import Kill, What

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# On each GPU one model is awake beside two sleepers, and never two are awake.
SHARE = 0.6
CLAIM = int(SHARE * nvml_feed.TOTAL)
INSIDE = "/opt/standin"
# vLLM would take the stand-in for NVML for a driver, and itself for a build for GPUs; only the gate is to see it.
REAL = '#!/bin/sh\nunset LD_LIBRARY_PATH TANDEM_STANDIN_NVML\nexec /opt/vllm/bin/vllm "$@"\n'
CONTROL = ("router", "activator", "engine-proxy", "gpus")
Servers = Literal["standin", "vllm"]
# A test is in a hurry, and its sleepers weigh nothing on the host.
SETTINGS = {
    "TANDEM_MIN_AWAKE": "0.1",
    "TANDEM_DRAIN_TIMEOUT": "60",
    "TANDEM_STALL_TIMEOUT": "60",
    "TANDEM_HOLD_TIMEOUT": "240",
    "TANDEM_HOST_RESERVE": str(1 << 30),
}


@dataclass(frozen=True)
class Tiny:
    """A model of the stack: its name, its GPUs, and by how many letters its tongue is moved."""

    name: str
    gpus: tuple[int, ...]
    by: int = 0


# Two want both GPUs, the others one each: those two may be up side by side.
FOUR = (Tiny("alpha", (0, 1), 3), Tiny("beta", (0, 1), 7), Tiny("gamma", (0,), 11), Tiny("delta", (1,), 19))


def models_toml(models: Sequence[Tiny], servers: Servers, *, sleep: Collection[str], extra: Mapping[str, str]) -> str:
    """Write the profiles; sleep names those that may sleep, extra has more lines for a model by its name."""
    shm = "1gb" if servers == "vllm" else "64mb"
    common = f'[defaults]\ngpu_memory_utilization = {SHARE}\nmax_model_len = 1024\nshm_size = "{shm}"\n'
    text = f"{common}enforce_eager = true\nready_timeout = 300\n"
    for model in models:
        text += f'\n[models.{model.name}]\nmodel = "./switching/models/{model.name}"\ngpus = {list(model.gpus)}\n'
        text += f'sleep = "{"auto" if model.name in sleep else "off"}"\n' + extra.get(model.name, "")
    return text


def override(
    models: Sequence[Tiny], servers: Servers, image: str, environment: Mapping[str, str], *, reservations: bool
) -> str:
    """Write compose.override.yaml: the same services in another image, with the stand-ins mounted.

    Without an NVIDIA runtime, reservations are taken away.
    """
    nvml = {"LD_LIBRARY_PATH": f"{INSIDE}/lib", "TANDEM_STANDIN_NVML": f"{INSIDE}/nvml/state"}
    path = f"{INSIDE}/bin:/opt/vllm/bin:/opt/cuda/bin:/usr/local/bin:/usr/bin:/bin"
    server = {**nvml, "PATH": path, **environment}
    mounts = ["./switching/lib", "./switching/nvml"]
    writable = []
    if servers == "standin":
        server["STANDIN_CLAIMS"] = f"{INSIDE}/claims"
        writable.append("./switching/claims")

    def service(variables: Mapping[str, str], read: Sequence[str], write: Sequence[str]) -> dict[str, Any]:
        volumes = [f"{path}:{INSIDE}/{Path(path).name}:ro" for path in read]
        volumes += [f"{path}:{INSIDE}/{Path(path).name}" for path in write]
        return {"environment": dict(variables), "volumes": volumes}

    services: dict[str, Any] = {
        model.name: {"image": image, **service(server, [*mounts, "./switching/bin"], writable)} for model in models
    }
    services["gpus"] = service(nvml, mounts, [])
    text = yaml.safe_dump({"services": services}, sort_keys=False)
    if not reservations:
        for name in services:
            text = text.replace(f"  {name}:\n", f"  {name}:\n    deploy: !reset null\n", 1)
    return text


@dataclass
class Bench:
    """The stack, its feed, and what is asked of it; folder is that of claims and events."""

    stack: Stack
    models: Sequence[Tiny]
    servers: Servers
    feed: nvml_feed.Feed
    # How a command is begun that has to see the Engine's processes by their ids.
    enter: Sequence[str] = ()
    kills: list[Kill] = field(default_factory=list)
    routers: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.stack.folder / "switching/claims"

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @property
    def asker(self) -> Asker:
        """Ask all models at random, in the words that they have."""
        if self.servers == "standin":
            return of_standins(self.names)
        by = {model.name: model.by for model in self.models}
        return tongues.asker(self.names, by.__getitem__)

    def start(self) -> None:
        """Render, make the servers' containers, and start all others, as `up` does on a machine with no wish."""
        # By name: the Compose profile observe has images that are not here.
        profiles = [word for name in self.names for word in ("--profile", name)]
        for argv in (
            Checkout.argv("render"),
            ["docker", "compose", *profiles, "create", "--no-build"],
            ["docker", "compose", "up", "-d", "--no-build", "--no-deps", *CONTROL],
        ):
            done = self.stack.run(argv)
            assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr[-3000:]}"
        self.serving()
        self.remember()

    def serving(self) -> None:
        """Wait until the router passes questions on to the activator."""
        eventually(self._answers, what="an activator that answers /-/status through the router")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            self.status()
            return True
        return False

    def get(self, path: str, seconds: float = PATIENCE) -> str:
        with DIRECT.open(self.stack.address + path, timeout=seconds) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/-/status")))

    def state(self, name: str) -> dict[str, Any]:
        """What status says of one model."""
        return dict(next(row for row in self.status()["models"] if row["name"] == name))

    def post(self, path: str, seconds: float = LONG_PATIENCE) -> list[dict[str, Any]]:
        """Ask for a change; its events to the end, the last telling how it ended."""
        request = urllib.request.Request(self.stack.address + path, b"", method="POST")
        with DIRECT.open(request, timeout=seconds) as answer:
            return [json.loads(line) for line in answer if line.strip()]

    def up(self, name: str) -> dict[str, Any]:
        """Bring a model up; its last event."""
        return self.post(f"/-/up/{name}")[-1]

    def fault(self, name: str, words: str) -> None:
        """Have a stand-in server go wrong from now on; no words: it goes right again."""
        path = self.folder / f"fault-{name}"
        path.write_text(words)
        path.chmod(0o666)

    def events(self) -> list[events.Event]:
        return events.read(self.folder)

    def switches(self) -> int:
        """Count the switches so far: stand-in servers tell of theirs, the activator of real ones."""
        if self.servers == "standin":
            return sum(events.switches(self.events()).values())
        try:
            return switches_of(self.get("/-/metrics"))
        except OSError:
            return 0

    def remember(self) -> None:
        """Note the router's address on the models' network: requests from there did not pass the activator."""
        with contextlib.suppress(IndexError, ValueError):
            networks = self.stack.inspect("router")["NetworkSettings"]["Networks"]
            self.routers |= {network["IPAddress"] for network in networks.values()} - {""}

    def kill(self, what: What, model: str = "") -> Kill:
        """Kill a container's first process, as the kernel would; wait until its service is back, and note both."""
        self.remember()
        pid = self._pid(model or what)
        at = time.monotonic()
        # Not `docker kill`: Docker would take it for a person's wish and not start it again.
        subprocess.run([*self.enter, "kill", "-KILL", str(pid)], check=True, capture_output=True)
        eventually(lambda: self._pid(model or what) != pid, what=f"the death of {model or what}")
        gone = time.monotonic()
        if what != "server":
            # The old one may answer for a moment, from a socket that nobody has noticed to be gone.
            eventually(lambda: self._runs_anew(what, pid), what=f"{what} that was started again")
            self.serving()
        self.remember()
        killed = Kill(what, model, at, gone, time.monotonic())
        self.kills.append(killed)
        return killed

    def _runs_anew(self, service: str, before: int) -> bool:
        return self._pid(service) not in (0, before)

    def _pid(self, service: str) -> int:
        """The first process of a service's container; 0 when it does not run."""
        return int(self.stack.inspect(service)["State"]["Pid"])

    def logs(self) -> str:
        """The end of what every service said, for a test that failed."""
        done = self.stack.compose("--profile", "*", "logs", "--no-color", "--tail", "60")
        return done.stdout + done.stderr


def switches_of(metrics: str) -> int:
    """Add up the switches of the activator's metrics that ended with a ready model."""
    found = re.findall(r"^tandem_switches_total\{([^}]*)\} (\S+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for labels, value in found if 'outcome="ready"' in labels))


def library(folder: Path) -> None:
    """Compile the stand-in for NVML."""
    argv = ["gcc", "-shared", "-fPIC", "-O1", "-o", str(folder / "libnvidia-ml.so.1")]
    done = subprocess.run([*argv, str(ROOT / "tests/standins/nvml.c")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def furnish(folder: Path, models: Sequence[Tiny], servers: Servers) -> None:
    """Lay the stand-ins and the models into a checkout."""
    switching = folder / "switching"
    for name in ("lib", "nvml", "bin", "claims"):
        (switching / name).mkdir(parents=True)
        (switching / name).chmod(0o755)
    # Servers write here, whoever they run as.
    (switching / "claims").chmod(0o777)
    events_file = switching / "claims/events.jsonl"
    events_file.touch()
    events_file.chmod(0o666)
    program = (ROOT / "tests/standins/server.py").read_text() if servers == "standin" else REAL
    (switching / "bin/vllm").write_text(program)
    (switching / "bin/vllm").chmod(0o755)
    library(switching / "lib")
    for model in models:
        tongues.make(switching / "models" / model.name, model.by if servers == "vllm" else 0)


def fill(
    stack: Stack,
    models: Sequence[Tiny] = FOUR,
    *,
    servers: Servers = "standin",
    sleep: bool | Collection[str] = True,
    image: str = SERVER_IMAGE,
    reservations: bool = False,
    level: int = 0,
    extra: Mapping[str, str] | None = None,
    **environment: str,
) -> Bench:
    """Make a copy of the project such a stack; environment is the servers' own; sleep: whether they may, or who.

    level is how many process namespaces the Engine lies below this process.
    """
    folder = stack.folder
    furnish(folder, models, servers)
    if isinstance(sleep, bool):
        sleep = [model.name for model in models] if sleep else []
    stack.write("models.toml", models_toml(models, servers, sleep=sleep, extra=extra or {}))
    text = override(models, servers, image, environment, reservations=reservations)
    stack.write("compose.override.yaml", text)
    stack.environment = {**SETTINGS, **stack.environment}
    project = stack.environment["COMPOSE_PROJECT_NAME"]
    standins = nvml_feed.standins(folder / "switching/claims", level)
    source = standins if servers == "standin" else nvml_feed.real_servers(project, CLAIM)
    # Who reads processes of real servers runs docker and walks /proc: a heavier thing to do.
    every = nvml_feed.EVERY if servers == "standin" else 0.3
    return Bench(stack, models, servers, nvml_feed.Feed(folder / "switching/nvml/state", source, every))


@contextlib.contextmanager
def running(bench: Bench) -> Iterator[Bench]:
    """Start it, and take it away with everything that it has in Docker."""
    bench.feed.start()
    try:
        bench.stack.take_away()
        bench.start()
        yield bench
    finally:
        bench.feed.stop()
        bench.stack.take_away()


def copy(folder: Path, project: str, **settings: str) -> Stack:
    """Copy the project for a stack of its own; settings are those of .env."""
    made = Stack.copy(folder, COMPOSE_PROJECT_NAME=project, TANDEM_PORT=str(free_port()), **settings)
    assert isinstance(made, Stack)
    assert os.geteuid() == 0, "kills processes of containers: run it as root"
    return made
