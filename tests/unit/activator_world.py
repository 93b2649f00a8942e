"""A small world for the activator's tests: a daemon, servers, a router, GPUs and a clock that only tests move."""

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.activator.board import Board
from orchestrator.activator.containers import Containers
from orchestrator.activator.docker import AwayError, DockerError, Happening, Seen, Stray
from orchestrator.activator.driver import Driver
from orchestrator.activator.effects import Effects
from orchestrator.activator.gpus import Card, Process
from orchestrator.activator.routes import Routes
from orchestrator.activator.run import Run
from orchestrator.activator.servers import Load, RefusedError, ServerError
from orchestrator.activator.store import Memory, Store
from orchestrator.states import Container
from orchestrator.switch.world import Model, Policy, Step

GIB = 1 << 30
MODELS = {
    "a": Model("a", ("a",), frozenset({0, 1}), sleep="auto", ready_timeout=60),
    "b": Model("b", ("b",), frozenset({0, 1}), sleep="auto", ready_timeout=60),
    "c": Model("c", ("c",), frozenset({2}), ready_timeout=60),
}
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 28.00 MiB."
POLICY = Policy(drain_timeout=10, stall_timeout=20, min_awake=0)


class Clock:
    """Time moves when everybody waits for it, to the next moment that somebody waits for."""

    def __init__(self) -> None:
        self.now = 1000.0
        # By how much somebody has set the machine's clock.
        self.set = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.set + 1.7e9

    async def pause(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._order), future))
        await future

    async def until(self, true: Callable[[], Any], limit: float = 1000) -> None:
        end = self.now + limit
        while True:
            for _ in range(40):
                await asyncio.sleep(0)
            if true():
                return
            while self._waiting and self._waiting[0][2].done():
                heapq.heappop(self._waiting)
            assert self._waiting, "everybody waits, and for nothing that time brings"
            assert self._waiting[0][0] <= end, "it did not come true"
            moment, _, future = heapq.heappop(self._waiting)
            self.now = max(self.now, moment)
            future.set_result(None)

    async def result(self, work: Coroutine[Any, Any, Any], limit: float = 1000) -> Any:
        task = asyncio.ensure_future(work)
        await self.until(task.done, limit)
        return task.result()

    async def passes(self, seconds: float) -> None:
        await self.result(self.pause(seconds))


@dataclass
class Server:
    """A container and the server in it. loads is how long it takes to list its name, hangs whether it never does."""

    status: str = "exited"
    code: int = 0
    oom: bool = False
    started: float = 0
    loads: float = 2
    hangs: bool = False
    asleep: bool = False
    # Whether it runs out of GPU memory when it starts beside one that sleeps.
    greedy: bool = False
    running: int = 0
    tokens: float = 0
    log: list[str] = field(default_factory=list)
    # How the next of these goes wrong.
    dies_at: float | None = None
    faults: dict[str, str] = field(default_factory=dict)
    refusals: int = 0


class World:
    """Docker, servers, router and GPUs in one; did is what was asked of them."""

    def __init__(self, folder: Path, *, models: dict[str, Model] | None = None, policy: Policy = POLICY) -> None:
        self.folder, self.clock = folder, Clock()
        self.models, self.policy = models or MODELS, policy
        self.at = {name: Server() for name in self.models}
        # GPUs of servers whose profiles are gone.
        self.strayed: dict[str, frozenset[int]] = {}
        self.did: list[str] = []
        self.away = False
        self.routed: dict[str, int] | None = {}
        self.cards: dict[int, Card] | None = None
        self.kills: dict[int, str] = {}
        self.listeners: list[asyncio.Queue[Happening | None]] = []
        self.boot = "boot 1"
        self.effects = self.new_effects()

    def new_effects(self) -> Effects:
        return Effects(
            models=self.models, policy=self.policy, board=Board(self.models, self.clock), docker=self,  # type: ignore[arg-type]
            containers=Containers(self, clock=self.clock, pause=self.clock.pause),  # type: ignore[arg-type]
            servers=Vllm(self), router=RouterOf(self), routes=Routes(self.folder / "run", str), gpus=GpusOf(self),  # type: ignore[arg-type]
            memory=Memory(Store(self.folder / "state")), own=lambda _: 0,
            clock=self.clock, wall=self.clock.wall, pause=self.clock.pause, digest="models 1",
        )  # fmt: skip

    # --- Docker -------------------------------------------------------------------------------------------------------

    async def ping(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise AwayError("Docker does not answer")

    async def inspect(self, model: str) -> Seen | None:
        await self.ping()
        self.live(model)
        server = self.at.get(model)
        if server is None:
            return None
        at = datetime.fromtimestamp(server.started, UTC).isoformat() if server.started else ""
        one = Container(model, f"tandem-{model}", server.status, "", server.code, started_at=at, oom_killed=server.oom)
        return Seen(f"id-{model}", "image-1", one)

    async def strays(self, models: Collection[str]) -> list[Stray]:
        await self.ping()
        running = {name for name, server in self.at.items() if server.status == "running"}
        return [Stray(name, gpus) for name, gpus in self.strayed.items() if name in running and name not in models]

    async def start(self, model: str) -> None:
        await self.ping()
        server = self.at[model]
        if "start" in server.faults:
            raise DockerError(server.faults["start"])
        server.status, server.started, server.asleep, server.code = "running", self.clock.wall(), False, 0
        self.tell(Happening("start", model))

    async def stop(self, model: str, timeout: int) -> None:
        await self.ping()
        self.did.append(f"stop {model}")
        if self.at[model].status == "running":
            self.tell(Happening("kill", model, signal=15))
            await self.clock.pause(1)
            self.dies(model, 143)

    async def tail(self, model: str, lines: int, since: float | None = None) -> list[str]:
        await self.ping()
        return self.at[model].log[-lines:]

    async def follow(self, model: str, since: float | None) -> AsyncIterator[str]:
        await self.ping()
        said = 0
        while self.at[model].status == "running":
            for line in self.at[model].log[said:]:
                said += 1
                yield line
            await self.clock.pause(0.5)
            if self.away:
                raise AwayError("broke off")

    async def happenings(self, models: frozenset[str]) -> AsyncIterator[Happening | None]:
        await self.ping()
        queue: asyncio.Queue[Happening | None] = asyncio.Queue()
        self.listeners.append(queue)
        yield None
        while True:
            found = await queue.get()
            if found is None:
                raise AwayError("the daemon ended its events")
            yield found

    def tell(self, what: Happening) -> None:
        for queue in self.listeners:
            queue.put_nowait(what)

    def dies(self, model: str, code: int, *, oom: bool = False) -> None:
        server = self.at[model]
        server.status, server.code, server.oom, server.asleep, server.dies_at = "exited", code, oom, False, None
        self.tell(Happening("die", model, code=code))

    async def by_hand(self, model: str, action: str) -> None:
        """Somebody does `docker start` or `docker stop`."""
        if action == "start":
            await self.start(model)
        else:
            self.tell(Happening("kill", model, signal=15))
            self.dies(model, 143)

    def daemon_goes(self) -> None:
        """The daemon is stopped, and with it all containers; nobody hears of it."""
        self.away = True
        for server in self.at.values():
            if server.status == "running":
                server.status, server.code, server.asleep = "exited", 0, False
        listeners, self.listeners = self.listeners, []
        for queue in listeners:
            queue.put_nowait(None)

    def live(self, model: str) -> None:
        server = self.at.get(model)
        if server is not None and server.dies_at is not None and self.clock.now >= server.dies_at:
            self.dies(model, 1)
        if server is not None and server.greedy and self.captures(model) and any(map(self.sleeps, self.beside(model))):
            server.log = [OOM]
            self.dies(model, 1)

    def captures(self, model: str) -> bool:
        """Whether a server starts and has come to where it holds most."""
        server = self.at[model]
        return server.status == "running" and server.loads / 2 <= self.clock.wall() - server.started < server.loads

    def sleeps(self, model: str) -> bool:
        return self.at[model].status == "running" and self.at[model].asleep

    def beside(self, model: str) -> list[str]:
        """Name the other models on a model's GPUs."""
        mine = self.models[model]
        return [name for name, other in self.models.items() if name != model and mine.overlaps(other)]

    def lists(self, model: str) -> bool:
        self.live(model)
        server = self.at[model]
        up = self.clock.wall() - server.started >= server.loads and not server.hangs
        return server.status == "running" and up

    # --- the activator ------------------------------------------------------------------------------------------------

    def ready(self, model: str) -> None:
        """A model is up already, its route open, its run known."""
        server = self.at[model]
        server.status, server.started = "running", self.clock.wall() - 100
        at = datetime.fromtimestamp(server.started, UTC).isoformat()
        self.effects.memory.saw_run(model, at)
        self.effects.routes.open(model)
        self.effects.board.set(model, "ready")
        self.effects.board.opened(model, True)
        self.effects.board.sleeps(model, True, None)
        self.effects.board.saw_image(model, "image-1")

    def asleep(self, model: str) -> None:
        """A model sleeps already."""
        self.ready(model)
        self.effects.routes.close(model)
        self.effects.board.opened(model, False)
        self.effects.board.set(model, "asleep")
        self.at[model].asleep = True

    def stray(self, model: str, *gpus: int) -> None:
        """A server runs whose profile is gone."""
        self.at[model] = Server("running", started=self.clock.wall() - 100)
        self.strayed[model] = frozenset(gpus)

    def run_of(self, target: str, *steps: str) -> Run:
        """A run of these steps, such as "drain a"."""
        run = Run(target, "a test", [], self.clock, self.clock.pause)
        run.plan([Step(*step.split(), "a test") for step in steps], rest=False)  # type: ignore[call-arg]
        return run

    def open(self) -> set[str]:
        return set(self.effects.routes.opened())


class Vllm:
    """The servers over HTTP."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def lists(self, model: str) -> bool:
        await asyncio.sleep(0)
        return self.world.lists(model)

    def up(self, model: str, what: str) -> Server:
        server = self.world.at[model]
        self.world.did.append(f"{what} {model}")
        if not self.world.lists(model):
            raise RefusedError("its port does not answer")
        if what in server.faults:
            raise ServerError(server.faults.pop(what))
        return server

    async def prove(self, model: str) -> None:
        await asyncio.sleep(0)
        server = self.world.at[model]
        if server.refusals:
            server.refusals -= 1
            raise RefusedError("its port does not answer")
        assert not self.up(model, "prove").asleep, "a sleeping server got a request"

    async def load(self, model: str) -> Load | None:
        await asyncio.sleep(0)
        server = self.world.at[model]
        return Load(server.running, server.tokens) if self.world.lists(model) else None

    async def sleeping(self, model: str) -> bool | None:
        await asyncio.sleep(0)
        return self.world.at[model].asleep if self.world.lists(model) else None

    async def can_sleep(self, model: str) -> bool:
        return self.world.models[model].sleep == "auto"

    async def sleep(self, model: str) -> None:
        await asyncio.sleep(0)
        server = self.up(model, "sleep")
        assert not server.running, "put to sleep with requests in flight"
        assert model not in self.world.open(), "put to sleep with its route open"
        server.asleep = True

    async def wake(self, model: str) -> None:
        await asyncio.sleep(0)
        self.up(model, "wake").asleep = False


class RouterOf:
    """The router's count."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def in_flight(self) -> dict[str, int] | None:
        return self.world.routed


class GpusOf:
    """The GPU reader."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def look(self) -> dict[int, Card] | None:
        return self.world.cards

    async def kill(self, pid: int, containers: list[str]) -> str:
        self.world.did.append(f"kill {pid} {containers}")
        if pid not in self.world.kills and self.world.cards:
            self.world.cards = {index: freed(card, pid) for index, card in self.world.cards.items()}
        return self.world.kills.get(pid, "")


def card(index: int, *holders: Process, total: int = 24) -> Card:
    """A GPU of so many GiB on which these processes are."""
    free = total * GIB - sum(process.used for process in holders)
    return Card(index, "NVIDIA GeForce RTX 4090", total * GIB, 0, free, holders)


def freed(before: Card, pid: int) -> Card:
    """The same GPU without a process."""
    left = [process for process in before.processes if process.pid != pid]
    return card(before.index, *left, total=before.total // GIB)


def play(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine; whatever it left running ends with it."""

    async def whole() -> None:
        await test()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    asyncio.run(whole())


def driving(world: World) -> "tuple[Driver, asyncio.Task[None]]":
    """A driver at work."""
    logging.getLogger("orchestrator.activator").setLevel(logging.DEBUG)
    driver = Driver(world.effects, start=world.boot, host_free=lambda: 100 * GIB)
    return driver, asyncio.ensure_future(driver.run())
