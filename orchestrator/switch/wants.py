"""Which models shall be up: the wishes, and what was good before them. Pure."""

from dataclasses import dataclass

from orchestrator.switch.belief import Belief


@dataclass(frozen=True)
class Wish:
    """Who wants a model up, and the turn of that wish among all that was asked or wished."""

    by: str
    turn: int


class Wants:
    """Wishes that no switch has fulfilled yet, and the models that were ready last on their GPUs.

    No two wishes are of overlapping models, nor two that were good. A wish that is fulfilled becomes what is good; one
    that fails is forgotten, so that what was good before it is wanted again.
    """

    def __init__(self, belief: Belief) -> None:
        self._belief = belief
        self.wishes: dict[str, Wish] = {}
        self.good: list[str] = []

    @property
    def wanted(self) -> tuple[str, ...]:
        """The models that shall be up, no two of them overlapping: the wishes, and what was good beside them."""
        return (*self.wishes, *(name for name in self.good if self._good_beside_wishes(name)))

    def wish(self, name: str, by: str, turn: int) -> None:
        """Somebody wants a model up; that ends the wishes for its rivals. One that was wished keeps its turn."""
        self.wishes = {other: wish for other, wish in self.wishes.items() if self._belief.apart(other, [name])}
        self.wishes.setdefault(name, Wish(by, turn))

    def fulfil(self, name: str) -> None:
        """A model is up: it is what is good now, on its GPUs."""
        self.wishes.pop(name, None)
        self.good = [other for other in self.good if other != name and self._belief.apart(other, [name])] + [name]

    def fail(self, name: str) -> None:
        """A start failed: nobody wishes it any more. It is wanted still only if it was the last good one."""
        self.wishes.pop(name, None)

    def forget(self, name: str) -> None:
        """A model shall not be up any more."""
        self.wishes.pop(name, None)
        self.good = [other for other in self.good if other != name]

    def _good_beside_wishes(self, name: str) -> bool:
        return name not in self.wishes and self._belief.apart(name, list(self.wishes))
