"""Ends servers that models.toml does not list any more, when a model needs their GPUs."""

import logging

from orchestrator.activator.draining import drain
from orchestrator.activator.effects import Effects
from orchestrator.activator.run import Run
from orchestrator.switch.world import Model

_log = logging.getLogger(__name__)


async def end_strays(do: Effects, run: Run, model: Model) -> None:
    """Stop what nobody can ask for any more and is on the model's GPUs, once its last requests are over.

    No plan knows of it, as its profile is gone. Raises AbandonedError, DockerError.
    """
    for stray in await do.containers.strays(do.models):
        if not stray.gpus & model.gpus:
            continue
        _log.info("  stop    %s, which models.toml does not list any more", stray.model)
        await drain(do, run, stray.model)
        run.say("stop", f"stopping {stray.model}, which models.toml does not list any more")
        await do.containers.stop(stray.model)
        # What happens to it is none of the events that are listened to.
        do.containers.stops.discard(stray.model)
