"""What is known of a model's sleep with the image that it runs: whether it may be trusted, and what it keeps asleep."""

import logging

from orchestrator.activator.effects import Effects
from orchestrator.activator.ports import Slept

_log = logging.getLogger(__name__)


def distrust(do: Effects, model: str, why: str) -> None:
    """Turn a model's sleep off until it has another image, or passes a sleep test."""
    _log.warning("%s: %s; its sleep is off until it has another image or passes a sleep test", model, why)
    do.memory.refuse_sleep(model, do.board.image(model), why)
    do.board.sleeps(model, False, None)


def tested(do: Effects, model: str, found: Slept) -> None:
    """Keep what a sleep test found. What was measured here by NVML comes before what the test saw from outside.

    Raises LookupError when the model's container was never seen, so that nobody knows which image was tested.
    """
    image = do.board.image(model)
    if not image:
        raise LookupError(model)
    if found.footprint is not None and do.memory.footprint(model, image) is None:
        do.memory.measured(model, image, found.footprint)
    if found.fault:
        distrust(do, model, found.fault)
        return
    do.memory.allow_sleep(model, image, found.cycles)
    able = do.models[model].sleep == "auto"
    do.board.sleeps(model, able, do.memory.footprint(model, image))
    _log.info("%s passed a sleep test of %d cycles", model, found.cycles)


def once_more(do: Effects, model: str) -> None:
    """Let a model whose sleep is refused sleep all the same, until its server is looked at next: it is being tested."""
    if do.models[model].sleep == "auto" and do.memory.sleep_refused(model, do.board.image(model)):
        do.board.sleeps(model, True, None)


def kept(do: Effects) -> dict[str, int]:
    """Give what was measured of each GPU that the models which sleep now keep, in bytes."""
    asleep = [model for model, server in do.board.servers.items() if server.state == "asleep"]
    found = {model: do.memory.footprint(model, do.board.image(model)) for model in asleep}
    return {model: footprint.gpu for model, footprint in found.items() if footprint is not None}
