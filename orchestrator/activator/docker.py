"""Talks to Docker through the engine-proxy: looks at, starts, stops and follows the containers of the models."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.states import ALONE, Container, inspected

ADDRESS = "unix:///run/engine/docker.sock"
# Seconds for one answer; starting a container may take long on a busy disk.
TIMEOUT = 60
# Labels of a server: its model profile, and the indexes of its GPUs with commas between.
PROFILE, GPUS = "tandem.profile", "tandem.gpus"
# Answers of the engine-proxy that say that the daemon behind it is away.
GATEWAY = frozenset({502, 503, 504})


class DockerError(Exception):
    """Docker refused; str() says what it said."""


class AwayError(DockerError):
    """The daemon, or the engine-proxy, does not answer now."""


@dataclass(frozen=True)
class Seen:
    """A container as it is: its id, its image's id, and what states.py reads of it."""

    ident: str
    image: str
    container: Container

    @property
    def since(self) -> float | None:
        """When its run began, in Unix seconds: its log holds the runs before too."""
        started = self.container.started_at
        return datetime.fromisoformat(started).timestamp() if started else None


@dataclass(frozen=True)
class Stray:
    """A server that runs though models.toml lists its profile no more, and the GPUs that it was given."""

    model: str
    gpus: frozenset[int]


@dataclass(frozen=True)
class Happening:
    """An event of a model's container: start, kill (with its signal), die (with its exit code), oom, and others."""

    action: str
    model: str
    signal: int = 0
    code: int = 0


class Docker:
    """The daemon. Blocking calls run in a few threads, each stream in one of its own. Connects at each first use."""

    def __init__(self, project: str, connect: Callable[[], Any] | None = None) -> None:
        self.project = project
        self._connect = connect or _client
        self._client: Any = None
        self._pool = ThreadPoolExecutor(4, "docker")

    def name(self, model: str) -> str:
        """Give the name of a model's container."""
        return f"{self.project}-{model}"

    async def inspect(self, model: str) -> Seen | None:
        """Look at a model's container; None when there is none. Raises DockerError."""
        seen: Seen | None = await self._call(lambda client: _look(client, self.name(model)))
        return seen

    async def strays(self, models: Collection[str]) -> list[Stray]:
        """List the servers of the project that run and are none of these models'. Raises DockerError."""
        labels = [f"com.docker.compose.project={self.project}", PROFILE]
        # Without all, Docker lists what runs.
        listed = await self._call(lambda client: client.containers(filters={"label": labels}))
        found = [(entry["Labels"][PROFILE], entry) for entry in listed if ALONE not in entry["Labels"]]
        return [
            Stray(model, frozenset(map(int, re.findall(r"\d+", entry["Labels"].get(GPUS, "")))))
            for model, entry in sorted(found, key=lambda item: item[0])
            # A container of `docker compose run` has the labels, and another name.
            if model not in models and f"/{self.name(model)}" in entry["Names"]
        ]

    async def start(self, model: str) -> None:
        """Start a model's container; one that runs stays as it is. Raises DockerError."""
        await self._call(lambda client: client.start(self.name(model)))

    async def stop(self, model: str, timeout: int) -> None:
        """Stop a model's container, by force after so many seconds, and return when it is gone. Raises DockerError."""
        await self._call(lambda client: client.stop(self.name(model), timeout=timeout))

    async def tail(self, model: str, lines: int, since: float | None = None) -> list[str]:
        """Give the last lines of a container's log, of those from a Unix time on. Raises DockerError."""
        said = await self._call(lambda client: client.logs(self.name(model), stream=False, tail=lines, since=since))
        return _lines(said)

    async def follow(self, model: str, since: float | None) -> AsyncIterator[str]:
        """Give the lines of a container's log as they come, from a Unix time on, until it ends. Raises DockerError."""
        rest = b""
        async for chunk in self._stream(
            lambda client: client.logs(self.name(model), stream=True, follow=True, since=since)
        ):
            *whole, rest = (rest + (chunk or b"")).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r")

    async def happenings(self, models: frozenset[str]) -> AsyncIterator[Happening | None]:
        """Give what happens to the models' containers; None first, when listening. Ends with an AwayError."""
        filters = {"type": "container", "label": f"com.docker.compose.project={self.project}"}
        stream = self._stream(lambda client: client.events(decode=True, filters=filters))
        async for entry in stream:
            if entry is None:
                yield None
                continue
            found = _happening(entry)
            # Pulls, checks and the like run beside what is up, in containers of other names.
            if found is not None and found.model in models and _name(entry) == self.name(found.model):
                yield found
        raise AwayError("the daemon ended its events")

    async def _call(self, do: Callable[[Any], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._do, do)

    def _do(self, do: Callable[[Any], Any]) -> Any:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            if self._client is None:
                self._client = self._connect()
            return do(self._client)
        except APIError as error:
            if error.status_code in GATEWAY:
                raise AwayError("the Docker daemon does not answer") from None
            raise DockerError(str(error.explanation or error)) from None
        except (RequestException, DockerException) as error:
            self._client = None
            raise AwayError(f"Docker does not answer: {error}") from None

    async def _stream(self, begin: Callable[[Any], Any]) -> AsyncIterator[Any]:
        """Read a stream in a thread; None comes first, when it is open."""
        loop, items = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Any]]()
        opened: list[Any] = []
        over = threading.Event()

        def put(kind: str, value: Any = None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(items.put_nowait, (kind, value))

        def read() -> None:
            try:
                stream = self._do(begin)
                opened.append(stream)
                put("item", None)
                for item in stream:
                    put("item", item)
                    if over.is_set():
                        break
                put("end")
            except DockerError as error:
                put("error", error)
            except Exception as error:  # noqa: BLE001 (a stream that breaks off, in any of urllib3's ways)
                put("error", AwayError(f"Docker broke off: {error}"))

        threading.Thread(target=read, name="docker-stream", daemon=True).start()
        try:
            while True:
                kind, value = await items.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
        finally:
            over.set()
            for stream in opened:
                with suppress(Exception):
                    stream.close()


def _client() -> Any:
    from docker import APIClient

    return APIClient(base_url=ADDRESS, timeout=TIMEOUT)


def _look(client: Any, name: str) -> Seen | None:
    from docker.errors import NotFound

    try:
        details = client.inspect_container(name)
    except NotFound:
        return None
    return Seen(details["Id"], details["Image"], inspected(details))


def _name(entry: dict[str, Any]) -> str:
    return str(entry["Actor"]["Attributes"].get("name", ""))


def _happening(entry: dict[str, Any]) -> Happening | None:
    said = entry.get("Actor", {}).get("Attributes", {})
    model = said.get("com.docker.compose.service")
    if not model or ALONE in said:
        return None
    action = str(entry.get("Action", "")).partition(":")[0]
    return Happening(action, model, _number(said.get("signal")), _number(said.get("exitCode")))


def _number(text: Any) -> int:
    return int(text) if str(text or "").isdecimal() else 0


def _lines(said: bytes | Iterable[bytes]) -> list[str]:
    whole = said if isinstance(said, bytes) else b"".join(said)
    return [line.rstrip("\r") for line in whole.decode(errors="replace").splitlines()]
