"""How long a model that failed is left alone, and why it failed. Pure."""

from dataclasses import dataclass

from orchestrator.switch.world import Policy


@dataclass
class _Record:
    starts: int = 0
    deaths: int = 0
    until: float = 0
    reason: str = ""


class Backoff:
    """Failures in a row, by model.

    A failed start costs a wait at once; the first death of a server that was ready costs none. The waits double.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._records: dict[str, _Record] = {}

    def until(self, model: str) -> float:
        """Tell from when on a model may be tried again; 0 when nothing is in the way."""
        return self._records.get(model, _Record()).until

    def reason(self, model: str) -> str:
        """Tell why a model failed last."""
        return self._records.get(model, _Record()).reason

    def failed(self, model: str, reason: str, now: float) -> None:
        """Count a start that failed."""
        record = self._records.setdefault(model, _Record())
        record.starts += 1
        record.until, record.reason = now + self._wait(record.starts), reason

    def died(self, model: str, reason: str, lived: float, now: float) -> None:
        """Count the death of a server that was ready for `lived` seconds; one that lived long starts a new count."""
        record = self._records.setdefault(model, _Record())
        record.deaths = 1 if lived >= self._policy.longest_backoff else record.deaths + 1
        record.reason = reason
        if record.deaths > 1:
            record.until = now + self._wait(record.deaths - 1)

    def succeeded(self, model: str) -> None:
        """A model became ready: its failed starts are forgotten, its deaths not, as it may die again at once."""
        record = self._records.setdefault(model, _Record())
        record.starts, record.until = 0, 0

    def forgive(self, model: str) -> None:
        """Somebody wants it tried again, whatever was."""
        self._records.pop(model, None)

    def _wait(self, times: int) -> float:
        return float(min(self._policy.backoff * 2 ** min(times - 1, 32), self._policy.longest_backoff))
