"""Owns the scheduler: gives it what happens, and has done what it decides. The HTTP side knows it as ports.Driver."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from orchestrator.activator import sleeping
from orchestrator.activator.around import Around
from orchestrator.activator.conducting import Conductor
from orchestrator.activator.docker import DockerError, Seen
from orchestrator.activator.effects import Effects
from orchestrator.activator.metrics import Metrics
from orchestrator.activator.ports import Phase, Slept
from orchestrator.activator.status import status
from orchestrator.activator.streams import News, Verdicts, phases
from orchestrator.activator.tickets import Held, Tickets
from orchestrator.activator.watch import Watch
from orchestrator.activator.wishes import after_start, by_hand
from orchestrator.switch import world
from orchestrator.switch.scheduler import Scheduler
from orchestrator.switch.world import Changed, Ended, Event, Rest, Switch, Unwished, Wished

# Seconds that a server which refused a connection has to be found dead.
DYING = 3.0

_log = logging.getLogger(__name__)


class Driver:
    """Everything that happens goes through one queue, which one task reads."""

    def __init__(self, effects: Effects, *, start: str, host_free: Callable[[], int | None] = lambda: None) -> None:
        """Take charge. start names this start of the machine and the stack; host_free tells the host's free bytes."""
        self._do, self._start = effects, start
        self._news = News()
        self._metrics = Metrics()
        self._scheduler = Scheduler(effects.models, effects.policy)
        self._conductor = Conductor(effects, self._from_watch, self._news, self._metrics, host_free)
        self._verdicts = Verdicts(effects.board, self._scheduler, self._conductor.busy)
        self._tickets = Tickets(effects.clock, self._metrics, self._phase, lambda ident: self._feed(world.Left(ident)))
        effects.own = self._tickets.in_flight
        effects.board.changed = self._changed
        self._looking = self._conductor.looking
        self._watch = Watch(effects, self._looking, self._from_watch, self._conductor.busy)
        self._events: asyncio.Queue[tuple[Event, asyncio.Event | None]] = asyncio.Queue()
        # What came before the first look at the containers.
        self._early: list[tuple[Event, asyncio.Event | None]] | None = []
        self._looked = asyncio.Event()
        # Of the models that are up, how they are and since when, as far as it is kept.
        self._stand: dict[str, tuple[str, float]] = {}
        # How many want a model up, of whom each may take that back.
        self._wishers: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._around = Around(effects, self._feed)

    async def run(self) -> None:
        """Drive until cancelled; the servers run on then."""
        self._spawn(self._watch.listen(self.observe))
        self._spawn(self._around.look(self._progress))
        try:
            while True:
                event, handled = await self._events.get()
                self._handle(event)
                if handled is not None:
                    handled.set()
        finally:
            for task in (*self._tasks, *([self._timer] if self._timer else [])):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def busy(self) -> bool:
        """Whether anything is under way or waits: a bad moment to begin anew."""
        return self._conductor.run is not None or bool(self._tickets.waiting()) or self.passing_on

    @property
    def passing_on(self) -> bool:
        """Whether answers are being passed on by us: to end now would cut them off."""
        return self._tickets.passing_on

    # --- what the HTTP side asks --------------------------------------------------------------------------------------

    def ask(self, model: str, size: int, *, stream: bool, unreachable: bool) -> Held:
        held = self._tickets.new(model, stream=stream)
        asked = world.Asked(held.ident, model, size)
        if unreachable and self._do.board[model].state == "ready":
            self._spawn(self._ask_after_a_look(asked, held))
        else:
            self._feed(asked)
        return held

    def up(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self._stream(model, Wished(model, f"'{by}'"), self._verdicts.up)

    def down(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self._stream(model, Unwished(model, f"'{by}'", "stop"), self._verdicts.down)

    def sleep(self, model: str, by: str, *, trial: bool = False) -> AsyncIterator[Phase]:
        if trial:
            sleeping.once_more(self._do, model)
        return self._stream(model, Unwished(model, f"'{by}'", "sleep"), self._verdicts.sleep)

    def wake(self, model: str, by: str) -> AsyncIterator[Phase]:
        return self.up(model, by)

    def slept(self, model: str, found: Slept) -> None:
        sleeping.tested(self._do, model, found)

    def take_back(self, model: str) -> None:
        self._wishers[model] -= 1
        if self._wishers[model] <= 0 and not self._do.board[model].open:
            self._feed(Unwished(model, "who asked for it and left"))

    async def looked(self) -> None:
        await self._looked.wait()

    def status(self) -> dict[str, Any]:
        found = status(
            self._do, self._conductor.run, self._phase, self._scheduler.wanted, self._tickets, self._around.routed,
            self._conductor.last,
            self._around.cards,
        )  # fmt: skip
        # What keeps it from taking other models up.
        return {**found, "busy": self.busy}

    def metrics(self) -> str:
        return self._metrics.text(self._do.board.servers, len(self._tickets.waiting()), sleeping.kept(self._do))

    # --- events in, decisions out -------------------------------------------------------------------------------------

    def _feed(self, event: Event, handled: asyncio.Event | None = None) -> None:
        if self._early is not None:
            self._early.append((event, handled))
        else:
            self._events.put_nowait((event, handled))

    def _from_watch(self, event: Event) -> None:
        self._events.put_nowait((event, None))

    def _handle(self, event: Event) -> None:
        if not isinstance(event, world.Tick | world.Used | world.Progress):
            _log.debug("%s", event)
        if isinstance(event, Wished):
            before = self._wishers[event.model] if event.model in self._scheduler.wanted else 0
            self._wishers[event.model] = before + 1
        for decision in self._scheduler.handle(event, self._do.clock()):
            self._carry_out(decision)
        if isinstance(event, Changed):
            self._settle(event.model)
        if self._early is None:
            self._do.memory.want(list(self._scheduler.wanted))
            self._keep_since()
        if isinstance(event, Ended) and self._conductor.run is None:
            # Not before what it brought is kept as wanted: killed in between, the next activator goes on with it.
            self._do.memory.begin(None)
        self._set_timer()
        self._news.tell()

    def _keep_since(self) -> None:
        """Keep since when what is up is as it is: the next activator goes on counting."""
        servers = self._do.board.servers
        stand: dict[str, tuple[str, float]] = {
            name: (each.state, each.since) for name, each in servers.items() if each.state in ("ready", "asleep")
        }
        if stand == self._stand:
            return
        self._stand = stand
        now = self._do.wall() - self._do.clock()
        self._do.memory.stand(
            {
                name: (self._do.memory.run_of(name), state, round(now + since, 3))
                for name, (state, since) in stand.items()
            }
        )

    def _changed(self) -> None:
        self._do.routes.tell({model: server.state for model, server in self._do.board.servers.items()})
        self._news.tell()

    def _carry_out(self, decision: world.Decision) -> None:
        match decision:
            case Switch() | Rest():
                _log.info("%s %s: %s", type(decision).__name__.lower(), decision.target, decision.cause)
                self._spawn(self._conductor.conduct(decision, self._conductor.begin(decision)))
            case world.Abandon():
                _log.info("giving up %s: %s", decision.target, decision.cause)
                if self._conductor.run is not None:
                    self._conductor.run.give_up()
            case world.Forward() | world.Refuse():
                self._tickets.tell(decision)

    def _settle(self, model: str) -> None:
        """Open the route of a model found ready, if the scheduler lets it serve; else it waits for a switch."""
        if self._do.board[model].state != "ready" or model in self._conductor.busy():
            return
        if self._scheduler.servers[model].state == "ready":
            self._do.routes.open(model)
            self._do.board.opened(model, True)
        else:
            self._do.routes.close(model)
            self._do.board.opened(model, False)
            self._do.board.set(model, "draining")

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = self._do.clock()
        due = self._scheduler.next_time(now)
        self._timer = asyncio.create_task(self._tick(max(0.0, due - now))) if due is not None else None

    async def _tick(self, seconds: float) -> None:
        # Never at once: where the scheduler waits for an event and says now, this must not spin.
        await self._do.pause(max(seconds, 0.01))
        self._events.put_nowait((world.Tick(), None))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def observe(self) -> None:
        """See how everything is; at the first time also what is wanted. Raises AwayError."""
        first = self._early is not None
        if first:
            known = frozenset(self._do.models)
            self._do.routes.only(known)
            for model in self._do.routes.opened():
                self._do.board.opened(model, True)
        seen = {model: await self._do.docker.inspect(model) for model in self._do.models}
        for model in self._do.models:
            await self._looking.look(model)
        if first:
            self._go_on_counting(seen)
            wishes = after_start(self._do.models, self._do.memory, seen, start=self._start)
        else:
            wishes = by_hand(self._do.memory, seen, self._conductor.busy())
        for wish in wishes:
            self._from_watch(wish)
        if first:
            await self._take_in_what_came_before()

    def _go_on_counting(self, seen: Mapping[str, Seen | None]) -> None:
        """Take up since when servers are as they are from the activator before."""
        for model, server in self._do.board.servers.items():
            found = seen[model]
            at = self._do.memory.stood(model, found.container.started_at, server.state) if found is not None else None
            if at is not None:
                self._do.board.stood(model, self._do.clock() - (self._do.wall() - at))

    async def _take_in_what_came_before(self) -> None:
        # What was wanted is kept as it is until all of it was taken in: we may be killed again at any moment.
        taken_in = asyncio.Event()
        self._events.put_nowait((world.Tick(), taken_in))
        await taken_in.wait()
        early, self._early = self._early or [], None
        # Perhaps nothing happens for long.
        self._keep_since()
        self._looked.set()
        for item in early:
            self._events.put_nowait(item)

    async def _ask_after_a_look(self, asked: world.Asked, held: Held) -> None:
        """The router could not reach a server that counts as ready: it may be dying this moment."""
        try:
            await self._until_listed_or_dead(asked.model, held)
        finally:
            if not held.outcome.done():
                self._feed(asked)

    async def _until_listed_or_dead(self, model: str, held: Held) -> None:
        deadline = self._do.clock() + DYING
        while self._do.board[model].state == "ready" and not await self._do.servers.lists(model):
            try:
                await self._looking.look(model)
            except DockerError:
                # A daemon that restarts may have taken the server with it, and tells when it is back.
                deadline = self._do.clock() + DYING
            if self._do.clock() >= deadline or held.outcome.done():
                return
            await self._do.pause(0.1)

    def _progress(self) -> None:
        run = self._conductor.run
        if run is not None:
            self._feed(world.Progress(run.target, run.elapsed, self._conductor.left(run)))

    # --- telling ------------------------------------------------------------------------------------------------------

    def _phase(self, model: str) -> Phase:
        run, server = self._conductor.run, self._do.board[model]
        if run is not None and run.target == model:
            return Phase(model, run.phase, run.text, run.elapsed, self._conductor.left(run))
        if server.open:
            return Phase(model, "ready")
        text = f"{run.target} comes first" if run is not None else "waiting for its turn"
        text = "waiting for Docker to say what runs" if self._early is not None else text
        return Phase(model, "queued", text, 0, None)

    def _stream(
        self, model: str, event: Event, verdict: Callable[[str, Ended | None], Phase | None]
    ) -> AsyncIterator[Phase]:
        handled = asyncio.Event()
        told = phases(model, self._news, self._phase, lambda ended: verdict(model, ended), handled, self._do.clock)
        self._feed(event, handled)
        return told

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a fault of the activator itself", exc_info=task.exception())
