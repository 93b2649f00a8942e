"""Conducts one switch, or rest, at a time: plans it, has it done, tells how it ended and how long each phase took."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from orchestrator.activator.docker import DockerError
from orchestrator.activator.effects import Effects
from orchestrator.activator.executor import Executor
from orchestrator.activator.looking import Looking
from orchestrator.activator.measuring import measure, measure_awake
from orchestrator.activator.metrics import Metrics
from orchestrator.activator.run import Run
from orchestrator.activator.status import Last
from orchestrator.activator.streams import News
from orchestrator.switch.history import History
from orchestrator.switch.plan import plan, rest
from orchestrator.switch.world import Changed, Ended, Event, Observed, Rest, Switch

_log = logging.getLogger(__name__)


class Conductor:
    """Has what the scheduler decided done. run is what is under way, last how the one before it ended."""

    def __init__(
        self,
        effects: Effects,
        feed: Callable[[Event], None],
        news: News,
        metrics: Metrics,
        host_free: Callable[[], int | None],
    ) -> None:
        self._do, self._feed, self._news, self._metrics, self._host_free = effects, feed, news, metrics, host_free
        self.run: Run | None = None
        self.last: Last | None = None
        self.looking = Looking(effects, feed, self.busy)
        self._executor = Executor(effects)
        self._history = self._remembered()

    def busy(self) -> frozenset[str]:
        """Name the models that what is under way deals with."""
        return self.run.models if self.run is not None else frozenset()

    def left(self, run: Run) -> float | None:
        """Tell the seconds left of a run; None where nothing like it was seen."""
        if not run.steps:
            return None
        return self._history.left(run.target, run.kind, run.ahead, self._do.clock() - run.step_began)

    def begin(self, decision: Switch | Rest) -> Run:
        """Take charge of what conduct() is to do: from now on it is under way."""
        self.run = run = Run(
            decision.target, decision.cause, [], self._do.clock, self._do.pause, text=decision.cause,
            changed=self._news.tell, gave_way=lambda model, state: self._feed(Changed(model, state)),
        )  # fmt: skip
        self._do.memory.begin(run.target if isinstance(decision, Switch) else None)
        return run

    async def conduct(self, decision: Switch | Rest, run: Run) -> None:
        """Do it, and feed how it ended, whatever happens."""
        ended = await self._ended(decision, run)
        self._note_end(run, ended)
        self.run = None
        if ended.outcome != "ready":
            # What befell its rivals meanwhile, such as a death in a drain, must be known before the next is planned.
            await self._look(run.models - {run.target})
        self._feed(ended)
        # What the watch left to the run, such as a death just after the last step, is seen now.
        await self._look(run.models)
        self._remember(run, ended)
        for model, asked_at in run.slept:
            with suppress(DockerError):
                await measure(self._do, model, asked_at)
        if ended.outcome == "ready":
            with suppress(DockerError):
                await measure_awake(self._do, run.target)

    async def _ended(self, decision: Switch | Rest, run: Run) -> Ended:
        try:
            await self._plan(decision, run)
            return await self._executor.run(run)
        except Exception as error:  # noqa: BLE001 (whatever it is, the next switch must come)
            _log.exception("a fault of the activator itself")
            reason = f"a fault of the activator itself: {error!r}"
            self._do.board.set(run.target, "failed", reason)
            return Ended(run.target, "failed", reason, evicted=tuple(run.evicted))

    async def _plan(self, decision: Switch | Rest, run: Run) -> None:
        cards = await self._do.gpus.look()
        # Whoever is being asked for a token has given it before anybody is put to sleep.
        async with self.looking.asking:
            gpus = {index: card.told for index, card in (cards or {}).items()}
            observed = Observed(self._do.board.servers, gpus, self._host_free())
            target, models, policy = decision.target, self._do.models, self._do.policy
            if isinstance(decision, Switch):
                steps = plan(target, models, observed, policy)
            else:
                steps = rest(target, models, observed, policy, decision.cause, stop=decision.stop)
            run.plan(steps, rest=isinstance(decision, Rest))
        for step in steps:
            _log.info("  %s", step)

    async def _look(self, models: Iterable[str]) -> None:
        for model in sorted(models):
            try:
                await self.looking.look(model)
            except DockerError as error:
                _log.warning("%s cannot be looked at: %s", model, error)
            except Exception:  # noqa: BLE001 (the end of a run must be told)
                _log.exception("a fault of the activator itself")

    # --- how it was -------------------------------------------------------------------------------------------------

    def _note_end(self, run: Run, ended: Ended) -> None:
        self._news.ended(ended)
        seconds = run.phases
        self._metrics.switched(run.kind, ended.outcome, seconds)
        self.last = Last(ended, run.kind, seconds, run.elapsed, self._do.wall())
        told = ", ".join(f"{kind} {took:.2f} s" for kind, took in seconds.items())
        _log.info("%s: %s after %.2f s (%s)%s", run.target, ended.outcome, run.elapsed, told,
                  f": {ended.reason}" if ended.reason else "")  # fmt: skip

    def _remember(self, run: Run, ended: Ended) -> None:
        if ended.outcome not in ("ready", "rested"):
            return
        for kind, took in run.phases.items():
            self._history.add(run.target, run.kind, kind, took)
        self._do.memory.keep_history(self._history.data())

    def _remembered(self) -> History:
        try:
            return History(self._do.memory.history())
        except ValueError as error:
            self._do.memory.forget_history(str(error))
            return History()
