"""The requests that wait for their model, oldest first, bounded in number and bytes. Pure."""

from dataclasses import dataclass

from orchestrator.switch.world import Asked, Policy


@dataclass(frozen=True)
class Waiting:
    """A request that waits; turn is its place among all that was ever asked or wished, since is when it came."""

    ident: int
    model: str
    size: int
    turn: int
    since: float


class Queue:
    """Waiting requests, in the order in which they came."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._waiting: dict[int, Waiting] = {}

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """All that wait, the oldest first."""
        return tuple(self._waiting.values())

    def full(self, size: int) -> bool:
        """Tell whether a request of so many bytes is one too many."""
        held = sum(request.size for request in self._waiting.values())
        return len(self._waiting) >= self._policy.queue_requests or held + size > self._policy.queue_bytes

    def add(self, event: Asked, turn: int, now: float) -> None:
        """Let a request wait."""
        self._waiting[event.ident] = Waiting(event.ident, event.model, event.size, turn, now)

    def drop(self, ident: int) -> None:
        """Forget a request that went away; fine if it is not here."""
        self._waiting.pop(ident, None)

    def count(self, model: str) -> int:
        """Tell how many wait for a model."""
        return sum(request.model == model for request in self._waiting.values())

    def take(self, model: str) -> tuple[int, ...]:
        """Remove and name all that wait for a model."""
        idents = tuple(request.ident for request in self._waiting.values() if request.model == model)
        for ident in idents:
            del self._waiting[ident]
        return idents
