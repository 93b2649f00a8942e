"""Whatever happens, in whatever order: the rules of FakeWorld hold, and everybody is answered.

TANDEM_EXAMPLES=5000 tries more sequences than the default does.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from orchestrator.switch.world import Progress, Unwished, Used, Wished
from tests.unit.switching import MODELS, FakeWorld

NAMES = st.sampled_from(sorted(MODELS))
SECONDS = st.sampled_from([0.0, 0.5, 3.0, 5.0, 20.0, 100.0, 10_000.0])


class Busy(RuleBasedStateMachine):
    """Clients and wishes come and go; what is under way goes on, or fails."""

    @initialize(tells=st.booleans())
    def begin(self, tells: bool) -> None:
        self.world = FakeWorld(tells=tells)

    @rule(model=NAMES, size=st.sampled_from([0, 10, 600]))
    def ask(self, model: str, size: int) -> None:
        self.world.ask(model, size)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        self.world.leave(data.draw(st.sampled_from([0, *self.world.waiting])))

    @rule(model=NAMES)
    def wish(self, model: str) -> None:
        self.world.tell(Wished(model, "up"))

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @precondition(lambda self: self.world.run is not None)
    @rule(steps=st.sampled_from([20, 1, 2, 4]))
    def go_on(self, steps: int) -> None:
        run = self.world.run
        for _ in range(steps):
            if self.world.run is run:
                self.world.step()

    @precondition(lambda self: self.world.run is not None)
    @rule()
    def fail(self) -> None:
        self.world.fail("out of memory")

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            assert not self.world.waiting


class Anything(Busy):
    """Besides, servers die, hands start and stop them, wishes are taken back, and switches are given up."""

    @rule(model=NAMES, then=st.sampled_from(["", "sleep", "stop"]))
    def unwish(self, model: str, then: str) -> None:
        # `up` takes its wish back only while the model is not ready.
        if then or self.world.servers[model].state != "ready":
            self.world.tell(Unwished(model, "down", then))

    @rule(model=NAMES)
    def die(self, model: str) -> None:
        self.world.die(model)

    @rule(model=NAMES)
    def stop_by_hand(self, model: str) -> None:
        self.world.stop_by_hand(model)

    @rule(model=NAMES)
    def start_by_hand(self, model: str) -> None:
        self.world.start_by_hand(model)

    @precondition(lambda self: self.world.by_hand)
    @rule(data=st.data())
    def load_by_hand(self, data: st.DataObject) -> None:
        self.world.load_by_hand(data.draw(st.sampled_from(sorted(self.world.by_hand))))

    @rule(model=NAMES)
    def use(self, model: str) -> None:
        self.world.tell(Used(model))

    @precondition(lambda self: self.world.run is not None and self.world.run.given_up)
    @rule()
    def give_up(self) -> None:
        self.world.give_up()

    @precondition(lambda self: self.world.run is not None)
    @rule(behind=SECONDS, left=st.none() | SECONDS)
    def progress(self, behind: float, left: float | None) -> None:
        assert self.world.run is not None
        self.world.tell(Progress(self.world.run.decision.target, behind, left))


def many(machine: type[Busy]) -> Any:
    case = machine.TestCase
    case.settings = settings(
        max_examples=int(os.environ.get("TANDEM_EXAMPLES", "60")),
        stateful_step_count=50,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    return case


TestBusy = many(Busy)
TestAnything = many(Anything)
