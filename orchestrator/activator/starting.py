"""Starts one server and follows it until it lists its name: its log for progress, its container for its death."""

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field

from orchestrator import failures, progress
from orchestrator.activator.docker import DockerError, Seen
from orchestrator.activator.effects import Effects
from orchestrator.activator.run import Run, StepError
from orchestrator.states import STOPPED_CODES
from orchestrator.switch.world import Footprint

# Seconds between two looks at a server that starts, and before its log is followed again when that broke off.
BETWEEN, AGAIN = 0.25, 1.0
NO_CONTAINER = "{0} has no container yet: python -m orchestrator up {0} creates it"
STOPPED_OUTSIDE = "it was stopped from outside while it started"

_WEIGHTS = re.compile(r"Model loading took ([\d.]+) Gi[Bb]")
_log = logging.getLogger(__name__)


@dataclass
class _Heard:
    """What a server's log said so far: since when it said nothing new, and the weights in GiB a GPU."""

    at: float
    text: str = "its container runs"
    weights: float = 0
    lines: set[str] = field(default_factory=set)

    def hear(self, line: str, now: float) -> bool:
        """Take note of a line; whether it is one of progress. What a hanging server repeats is none."""
        known = progress.read(line)
        if known is not None:
            self.text = known
        elif line.startswith("tandem: "):
            self.text = line.removeprefix("tandem: ")
        found = _WEIGHTS.search(line)
        if found:
            self.weights = float(found[1])
        key = known if known is not None else re.sub(r"[\d.]+", "#", line)
        if key in self.lines:
            return False
        self.lines.add(key)
        self.at = now
        return True


async def start(do: Effects, run: Run, model: str) -> None:
    """See that a model's container runs and wait until its server lists its name. Raises StepError, AbandonedError."""
    seen = await do.containers.look(model)
    if seen is None:
        raise StepError(NO_CONTAINER.format(model))
    run.touched = True
    do.board.set(model, "starting")
    run.say("start", "starting its container")
    try:
        seen = await do.containers.start(model)
    except DockerError as error:
        raise StepError(failures.cause([str(error)])) from None
    if seen is None:
        raise StepError("its container was removed while it started")
    do.memory.saw_run(model, seen.container.started_at)
    heard = _Heard(do.clock())
    follower = asyncio.create_task(_follow(do, run, model, seen, heard))
    try:
        await _until_it_lists(do, run, model, heard)
    finally:
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
    await note_sleep(do, model, seen, heard.weights)


async def death(do: Effects, model: str, seen: Seen | None) -> str:
    """Say why a server that was coming up is gone."""
    container = seen.container if seen is not None else None
    # A server that ends by itself while it starts does so with an error; these are the codes of being told to.
    if container is not None and not container.oom_killed and container.exit_code in STOPPED_CODES - {137}:
        return STOPPED_OUTSIDE
    return await do.containers.cause(model, seen)


def note_awake(do: Effects, model: str, image: str) -> None:
    """Note what a server holds while awake, and needs to start, as measured with this image and its claim."""
    do.board.saw_image(model, image)
    holds, alone = do.memory.awake(model, image, do.models[model].claim)
    do.board.awake(model, holds, alone)


async def note_sleep(do: Effects, model: str, seen: Seen, weights: float = 0) -> None:
    """Note whether a server can sleep, and what it keeps then, as measured with this image or told by its weights."""
    note_awake(do, model, seen.image)
    refused = do.memory.sleep_refused(model, seen.image)
    able = do.models[model].sleep == "auto" and not refused and await do.servers.can_sleep(model)
    measured = do.memory.footprint(model, seen.image)
    if measured is None and weights:
        host = int(weights * 2**30) * max(1, len(do.models[model].gpus))
        measured = Footprint(do.board[model].footprint.gpu, host)
    do.board.sleeps(model, able, measured)


async def _until_it_lists(do: Effects, run: Run, model: str, heard: _Heard) -> None:
    began = do.clock()
    while not await do.servers.lists(model):
        now = do.clock()
        seen = await do.containers.look(model)
        if seen is None or not seen.container.alive:
            raise StepError(await death(do, model, seen))
        if now - heard.at >= do.policy.stall_timeout:
            raise StepError(f"it hangs: no progress for {do.policy.stall_timeout:g} s; the last was: {heard.text}")
        if now - began >= do.models[model].ready_timeout:
            raise StepError(f"it was not ready after {do.models[model].ready_timeout:g} s; the last was: {heard.text}")
        run.say("start", heard.text)
        await run.pause(BETWEEN)


async def _follow(do: Effects, run: Run, model: str, seen: Seen, heard: _Heard) -> None:
    while True:
        with suppress(DockerError):
            async for line in do.docker.follow(model, seen.since):
                if heard.hear(line, do.clock()):
                    run.say("start", heard.text)
        # The daemon went away, or the container ended: the loop that looks at it knows.
        await do.pause(AGAIN)
