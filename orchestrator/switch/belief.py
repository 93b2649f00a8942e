"""What the scheduler believes of the servers, and whose GPUs are whose. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from orchestrator.switch.world import AWAKE, Model, Server, State

# From which a model that is wanted is brought back; one that starts or stops by somebody's hand is let do so.
DOWN: frozenset[State] = frozenset({"stopped", "failed", "asleep", "draining"})


class Belief:
    """The state of each model's server, as events told it; its route is believed open while it is ready."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self.models = models
        self.servers: dict[str, Server] = {name: Server() for name in models}

    def state(self, name: str) -> State:
        """Tell the state of a model's server."""
        return self.servers[name].state

    def put(self, name: str, state: State, now: float, reason: str = "") -> None:
        """Note that a server is in a state; since when counts from the first time."""
        before = self.servers[name]
        since = before.since if state == before.state else now
        self.servers[name] = replace(before, state=state, open=state == "ready", since=since, reason=reason)

    def apart(self, name: str, others: Collection[str]) -> bool:
        """Tell whether a model shares no GPU with any of the others; itself does not count."""
        return not any(self.models[name].overlaps(self.models[other]) for other in others if other != name)

    def rivals(self, name: str) -> list[str]:
        """Name the models that cannot be awake beside this one."""
        return [other for other in self.models if other != name and not self.apart(name, [other])]

    def settled(self, name: str) -> bool:
        """Tell whether a model is ready with no rival awake: nothing is to be done for it."""
        return self.state(name) == "ready" and not any(self.state(rival) in AWAKE for rival in self.rivals(name))

    def missing(self, name: str) -> bool:
        """Tell whether a switch is needed for a model that shall be up."""
        contested = any(self.state(rival) == "draining" for rival in self.rivals(name))
        return self.state(name) in DOWN or (self.state(name) == "ready" and contested)

    def contested(self, name: str) -> bool:
        """Tell whether a rival is up already: of two, a switch settles which one stays, before the second serves."""
        return any(self.state(rival) in ("ready", "draining") for rival in self.rivals(name))

    def give_way(self, name: str, now: float) -> None:
        """A switch to this model begins: it is not ready, and its rivals are leaving."""
        self.put(name, "starting", now)
        for rival in self.rivals(name):
            if self.state(rival) in AWAKE:
                leaving: State = "draining" if self.state(rival) in ("ready", "draining") else "stopping"
                self.put(rival, leaving, now)

    def gave_way(self, name: str, gone: Collection[str], now: float) -> None:
        """A switch to this model ended: `gone` are the rivals that left, as far as nothing else was told of them."""
        for rival in self.rivals(name):
            if self.state(rival) == "stopping" or (self.state(rival) == "draining" and rival in gone):
                self.put(rival, "stopped", now)
