"""The router with stand-ins for a server and the activator around it, for the tests of routes, keys and certificates.

nginx is real; a stand-in says back what it got (standins/upstream.py).
"""

import contextlib
import http.client
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.checkout import PATIENCE, eventually
from tests.integration.conftest import DIRECT, Stack, stack

STANDINS = Path(__file__).parent / "standins"
# `one` has a server; `deaf` may have a container where nothing listens, `absent` has none.
MODELS = "".join(
    f'[models.{name}]\nmodel = "./docker/demo/model"\nimage = "cpu"\naliases = ["{name}-too"]\n'
    for name in ("one", "deaf", "absent")
)
PATH = "/v1/chat/completions"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.text)["error"]["code"])

    @property
    def seen(self) -> Any:
        """What the stand-in got, by its own words."""
        return json.loads(self.text)

    def allowed(self) -> list[str]:
        return self.headers.get_all("Access-Control-Allow-Origin", [])


def send(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        got = connection.getresponse()
        return Answer(got.status, got.headers, got.read())


def code(answer: tuple[int, Any]) -> tuple[int, str]:
    """The status and the error's code, of what Routing's ask and send give."""
    return answer[0], answer[1]["error"]["code"]


class Standin:
    """One of the stand-ins, by its control port."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def __call__(self, path: str) -> Any:
        with DIRECT.open(self._address + path, timeout=PATIENCE) as answer:
            return json.load(answer)


@dataclass
class Routing:
    """The router with what is around it."""

    stack: Stack
    one: Standin
    activator: Standin

    @property
    def port(self) -> int:
        return int(self.stack.environment["TANDEM_PORT"])

    @property
    def name(self) -> str:
        return f"{self.stack.environment['COMPOSE_PROJECT_NAME']}-router"

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, model: str, do: str = "", *, path: str = PATH, **headers: str) -> tuple[int, Any]:
        """Send a request for a model; the status, and what the stand-in or the router said."""
        return self.send("POST", path, json.dumps({"model": model, "do": do}).encode(), **headers)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        with contextlib.closing(self.connection()) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    @contextlib.contextmanager
    def waiting(self, model: str) -> Iterator[http.client.HTTPResponse]:
        """A request whose answer has begun; what is left of its connection is closed."""
        with contextlib.closing(self.connection()) as connection:
            connection.request("POST", PATH, json.dumps({"model": model, "do": "wait"}))
            answer = connection.getresponse()
            assert answer.readline() == b"data: first\n"
            yield answer

    def in_flight(self) -> dict[str, int]:
        """The counts that are not 0."""
        return {model: count for model, count in self.activator("/in-flight").items() if count}

    def settles(self, **counts: int) -> None:
        """Wait until the counts are these; a request is over a moment after its client has the answer."""
        eventually(lambda: self.in_flight() == counts, what=f"{counts} in flight")

    def busybox(self, *words: str) -> str:
        done = self.stack.run(["docker", "exec", self.name, "/usr/bin/busybox", *words])
        assert done.returncode == 0, done.stderr
        return done.stdout

    def workers(self) -> set[int]:
        """The processes that take new requests."""
        listed = [line.split() for line in self.busybox("ps", "-o", "pid,args").splitlines()]
        return {int(words[0]) for words in listed if " ".join(words[1:]) == "nginx: worker process"}

    def server(self, alias: str, where: str) -> contextlib.AbstractContextManager[Standin]:
        """Another stand-in, in the place of another model's server."""
        return standing(self.stack, alias, where)

    @property
    def address(self) -> str:
        """Where the server of `one` is in the stack's network."""
        networks = self.stack.inspect("one")["NetworkSettings"]["Networks"]
        return f"{next(iter(networks.values()))['IPAddress']}:8000"

    @contextlib.contextmanager
    def alone(self, *mounts: str, command: tuple[str, ...] = (), **environment: str) -> Iterator["Alone"]:
        """Another router beside this one's servers, with settings of its own; taken away at the end."""
        project = self.stack.environment["COMPOSE_PROJECT_NAME"]
        image = self.stack.inspect("router")["Config"]["Image"]
        argv = ["docker", "run", "--detach", "--network", f"{project}_models", "--publish", "127.0.0.1::8000",
                "--tmpfs", "/tmp", "--read-only", "--cap-drop", "ALL"]  # fmt: skip
        for mount in (f"{self.stack.folder}/docker/router/routes:/etc/tandem:ro", *mounts):
            argv += ["--volume", mount]
        # Its socket for the activator is in the way of nobody's: a volume of its own, where it finds the open routes.
        argv += ["--mount", "type=tmpfs,target=/run/tandem"]
        for name, value in environment.items():
            argv += ["--env", f"{name}={value}"]
        started = subprocess.run([*argv, image, *command], capture_output=True, text=True, check=False)
        assert started.returncode == 0, started.stderr
        name = started.stdout.strip()
        try:
            yield Alone(name)
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)


@dataclass
class Alone:
    """A container of the router's image, by its id."""

    name: str

    @property
    def port(self) -> int:
        shown = subprocess.run(["docker", "port", self.name, "8000"], capture_output=True, text=True, check=True)
        return int(shown.stdout.splitlines()[0].rpartition(":")[2])

    def starts(self) -> "Alone":
        def there() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return send(self.port, "GET", "/health").status in (200, 400)
            return False

        eventually(there, what="the router answers")
        return self

    def ended(self) -> tuple[int, str]:
        """Its exit code and what it said, once it is over."""
        waited = subprocess.run(
            ["docker", "wait", self.name], capture_output=True, text=True, check=True, timeout=PATIENCE
        )
        return int(waited.stdout), self.log()

    def log(self) -> str:
        """What it has said so far."""
        shown = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return shown.stdout + shown.stderr

    def sh(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["docker", "exec", self.name, "/usr/bin/busybox", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def open(self, name: str, address: str) -> None:
        """Make the route to a server known, as the activator does."""
        assert self.sh("mkdir", "-p", "/run/tandem/open").returncode == 0
        assert self.sh("ln", "-s", address, f"/run/tandem/open/{name}").returncode == 0


R = TypeVar("R", bound=Routing)


@contextlib.contextmanager
def standing(made: Stack, alias: str, where: str) -> Iterator[Standin]:
    """Start a stand-in in the stack's network; where is the port or the socket that it listens at."""
    shared = {"run": "/run/tandem"} if alias == "activator" else {}
    started = made.beside(
        alias, "/standins/upstream.py", alias, where, mounts={STANDINS: "/standins"}, publish=9000, shared=shared
    )
    with started as name:
        shown = made.run(["docker", "port", name, "9000"]).stdout
        found = Standin(int(shown.rpartition(":")[2]))
        eventually(lambda: answers(found), what=f"{alias} answers")
        yield found


@contextlib.contextmanager
def around(
    folder: Path, project: str, kind: type[R], models: str = MODELS, settings: Mapping[str, str] | None = None
) -> Iterator[R]:
    """Start the router of a stack, the server of `one` and the activator; all of it is taken away at the end."""
    with contextlib.ExitStack() as ends:
        made = ends.enter_context(contextlib.contextmanager(stack)(folder, project))
        made.environment.update(settings or {})
        made.write("models.toml", models)
        assert made.tandem("render").returncode == 0
        up = made.compose("up", "-d", "--no-build", "router")
        assert up.returncode == 0, up.stderr
        one = ends.enter_context(standing(made, "one", "8000"))
        activator = ends.enter_context(standing(made, "activator", "/run/tandem/activator.sock"))
        whole = kind(made, one, activator)
        eventually(lambda: reached(whole), what="the router answers")
        yield whole


def answers(standin: Standin) -> bool:
    with contextlib.suppress(OSError):
        return standin("/seen") is not None
    return False


def reached(whole: Routing) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return whole.send("GET", "/health")[0] == 200
    return False
