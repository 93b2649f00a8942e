"""Does the steps of one switch, or rest, in their order; decides nothing."""

import logging

from orchestrator import failures
from orchestrator.activator import starting
from orchestrator.activator.docker import DockerError
from orchestrator.activator.draining import drain
from orchestrator.activator.effects import Effects
from orchestrator.activator.release import release
from orchestrator.activator.run import AbandonedError, Run, StepError
from orchestrator.activator.servers import RefusedError, ServerError
from orchestrator.activator.sleeping import distrust
from orchestrator.activator.strays import end_strays
from orchestrator.states import STOPPED_CODES
from orchestrator.switch.world import Ended, State, Step

# While its port does not answer, a server is asked for a token so many times, so many seconds apart.
TRIES, APART = 40, 0.25

_log = logging.getLogger(__name__)


class Executor:
    """Runs one Run at a time. What it learns it writes on the board."""

    def __init__(self, effects: Effects) -> None:
        self._do = effects

    async def run(self, run: Run) -> Ended:
        """Do all steps and tell how it ended. Cancelled, it leaves everything as it is: the next activator observes."""
        try:
            await self._check_container(run)
            if any(step.kind in ("release", "start") for step in run.steps):
                await end_strays(self._do, run, self._do.models[run.target])
            for step in run.steps:
                run.check()
                await self._step(run, step)
        except AbandonedError:
            await self._undo(run, "")
            return Ended(run.target, "abandoned", rested=self._rested(run), evicted=tuple(run.evicted))
        except (StepError, DockerError) as error:
            reason = str(error)
            await self._undo(run, reason)
            return Ended(run.target, "failed", reason, evicted=tuple(run.evicted))
        if run.kind == "rest":
            return Ended(run.target, "rested", rested=self._rested(run))
        return Ended(run.target, "ready", evicted=tuple(run.evicted))

    def _rested(self, run: Run) -> State:
        return "asleep" if self._do.board[run.target].state == "asleep" else "stopped"

    async def _check_container(self, run: Run) -> None:
        """See first that there is what shall be started: no model leaves for one that cannot come."""
        if any(step.kind == "start" for step in run.steps) and await self._do.containers.look(run.target) is None:
            raise StepError(starting.NO_CONTAINER.format(run.target))

    async def _step(self, run: Run, step: Step) -> None:
        why = f": it {step.cause}" if step.kind in ("sleep", "stop") and step.cause.startswith("holds ") else ""
        run.say(step.kind, _WORDS[step.kind].format(step.model) + why)
        match step.kind:
            case "close":
                self._close(step.model)
            case "drain":
                await drain(self._do, run, step.model)
            case "sleep":
                await self._sleep(run, step.model)
            case "stop":
                await self._stop(run, step.model)
            case "release":
                await release(self._do, run, self._do.models[step.model])
            case "start":
                await self._start(run, step.model)
            case "wake":
                await self._wake(run, step.model)
            case "prove":
                await self._prove(run, step.model)
            case "open":
                await self._open(run, step.model)
        run.end_step(step)

    async def _undo(self, run: Run, reason: str) -> None:
        """After a failure, or when given up: a target that was coming up is stopped, its route is closed."""
        if run.touched or self._do.board[run.target].state != "ready":
            self._close(run.target)
        if run.touched:
            try:
                await self._do.containers.stop(run.target)
            except DockerError as error:
                reason = f"{reason or 'it was given up'}; and it could not be stopped: {error}"
        before = self._do.board[run.target].state
        if not run.touched and before == "asleep":
            self._do.board.set(run.target, "asleep", reason)
        elif reason:
            self._do.board.set(run.target, "failed", reason)
        elif run.touched:
            self._do.board.set(run.target, "stopped")

    # --- the old model leaves -----------------------------------------------------------------------------------------

    def _close(self, model: str) -> None:
        self._do.routes.close(model)
        self._do.board.opened(model, False)
        if self._do.board[model].state == "ready":
            self._do.board.set(model, "draining")

    async def _sleep(self, run: Run, model: str) -> None:
        if model in run.cut:
            # Asleep with requests in flight it could hang for good.
            await self._stop(run, model)
            return
        asked_at = self._do.wall()
        try:
            await self._do.servers.sleep(model)
        except ServerError as error:
            await self._distrust(model, error, f"it could not go to sleep: {error}")
            await self._stop(run, model)
            return
        run.slept.append((model, asked_at))
        self._left(run, model, asleep=True)

    async def _stop(self, run: Run, model: str) -> None:
        before = self._do.board[model]
        if run.phase != "stop":
            run.say("stop", _WORDS["stop"].format(model))
        self._close(model)
        # A rival that failed stays so, with its reason, until it comes up again: it only holds nothing any more.
        stays_failed = before.state == "failed" and run.kind != "rest"
        if not stays_failed:
            self._do.board.set(model, "stopping")
        try:
            await self._do.containers.stop(model)
        except DockerError as error:
            self._do.board.set(model, "failed", f"it could not be stopped: {error}")
            raise StepError(f"{model} could not be stopped: {error}") from None
        if not stays_failed:
            self._left(run, model, asleep=False, was_up=before.state in ("ready", "draining"))

    def _left(self, run: Run, model: str, *, asleep: bool, was_up: bool = True) -> None:
        self._do.board.set(model, "asleep" if asleep else "stopped")
        if model == run.target:
            return
        if was_up:
            run.evicted.append(model)
        run.gave_way(model, "asleep" if asleep else "stopped")

    # --- the new one comes --------------------------------------------------------------------------------------------

    async def _start(self, run: Run, model: str) -> None:
        """Start a server; once more with nobody asleep on its GPUs, when it ran out of their memory beside one."""
        try:
            await starting.start(self._do, run, model)
        except StepError as error:
            sleepers = self._asleep_beside(model)
            if not sleepers or not failures.of_memory(str(error)):
                raise
            _log.warning("%s ran out of GPU memory beside %s: %s", model, ", ".join(sleepers), error)
            await self._start_alone(run, model, sleepers)

    async def _start_alone(self, run: Run, model: str, sleepers: list[str]) -> None:
        run.more.update(sleepers)
        for sleeper in sleepers:
            run.check()
            run.say("stop", f"it ran out of GPU memory beside {sleeper}, which slept: stopping {sleeper}")
            await self._stop(run, sleeper)
        run.say("release", _WORDS["release"])
        await release(self._do, run, self._do.models[model])
        await starting.start(self._do, run, model)
        # Only now: one that alone lacks memory as well does not lack it for the sleepers.
        image = self._do.board.image(model)
        self._do.memory.starts_alone(model, image, self._do.models[model].claim)
        starting.note_awake(self._do, model, image)

    def _asleep_beside(self, model: str) -> list[str]:
        """Name who sleeps on a model's GPUs, the oldest first."""
        board, mine = self._do.board, self._do.models[model]
        beside = [name for name, other in self._do.models.items() if name != model and other.overlaps(mine)]
        asleep = [name for name in beside if board[name].state == "asleep"]
        return sorted(asleep, key=lambda name: board[name].since)

    async def _wake(self, run: Run, model: str) -> None:
        run.touched = run.woken = True
        self._do.board.set(model, "starting")
        try:
            await self._do.servers.wake(model)
        except ServerError as error:
            await self._restart(run, model, error, f"it did not wake: {error}")

    async def _restart(self, run: Run, model: str, error: Exception, why: str) -> None:
        """Start anew what did not wake well."""
        run.woken, run.kind = False, "cold"
        await self._distrust(model, error, why)
        run.say("stop", f"{why}: starting it anew")
        await self._do.containers.stop(model)
        await release(self._do, run, self._do.models[model])
        await self._start(run, model)

    async def _prove(self, run: Run, model: str) -> None:
        run.touched = True
        try:
            await self._one_token(run, model)
        except StepError as error:
            if not run.woken:
                raise
            await self._restart(run, model, error, f"it gave no token after waking: {error}")
            run.say("prove", _WORDS["prove"].format(model))
            await self._one_token(run, model)

    async def _one_token(self, run: Run, model: str) -> None:
        """Have one token. Raises StepError with the root cause, AbandonedError."""
        for _ in range(TRIES):
            try:
                await run.unless_given_up(self._do.servers.prove(model))
                return
            except ServerError as error:
                reason, refused = str(error), isinstance(error, RefusedError)
            seen = await self._do.containers.look(model)
            if seen is None or not seen.container.alive:
                raise StepError(await starting.death(self._do, model, seen))
            if not refused:
                break
            await run.pause(APART)
        raise StepError(reason)

    async def _open(self, run: Run, model: str) -> None:
        if not any(step.kind == "prove" for step in run.steps):
            await self._still_there(model)
        self._do.routes.open(model)
        self._do.board.opened(model, True)
        self._do.board.set(model, "ready")

    async def _still_there(self, model: str) -> None:
        """See that a server which was to leave, and stays, has not died meanwhile. Raises StepError."""
        if await self._do.servers.lists(model):
            return
        seen = await self._do.containers.look(model)
        if seen is None or not seen.container.alive:
            raise StepError(await starting.death(self._do, model, seen))

    async def _distrust(self, model: str, error: Exception, why: str) -> None:
        """Turn a model's sleep off, unless what ended its server was not its sleep."""
        if not isinstance(error, RefusedError) and not await self._was_killed(model):
            distrust(self._do, model, why)

    async def _was_killed(self, model: str) -> bool:
        """Whether its server was ended from outside; by the kernel, for its memory, is its own doing."""
        seen = await self._do.containers.look(model)
        if seen is None:
            return True
        one = seen.container
        return not one.alive and not one.oom_killed and one.exit_code in STOPPED_CODES


_WORDS = {
    "close": "",
    "drain": "letting what is in flight to {0} end",
    "sleep": "putting {0} to sleep",
    "stop": "stopping {0}",
    "release": "waiting for GPU memory",
    "start": "starting",
    "wake": "waking up",
    "prove": "asking for a first token",
    "open": "",
}
