"""A stand-in for everything that switching acts on: servers, GPUs and hands, with the plans carried out in steps."""

from dataclasses import dataclass, field, replace

from orchestrator.switch.plan import plan, rest
from orchestrator.switch.scheduler import Scheduler
from orchestrator.switch.world import (
    Abandon,
    Asked,
    Changed,
    Decision,
    Ended,
    Event,
    Footprint,
    Forward,
    Gpu,
    Left,
    Model,
    Observed,
    Policy,
    Refuse,
    Rest,
    Server,
    State,
    Step,
    Switch,
    Tick,
    Unwished,
    Wished,
)

GIB = 1 << 30
BOTH = frozenset({0, 1})
MODELS = {
    "a": Model("a", ("a",), BOTH, sleep="auto"),
    "b": Model("b", ("b",), BOTH, ttl=60),
    "left": Model("left", ("left",), frozenset({0}), sleep="auto", ttl=600),
    "right": Model("right", ("right",), frozenset({1})),
    "cpu": Model("cpu", ("cpu",), frozenset()),
}
POLICY = Policy(queue_requests=6, queue_bytes=1000, min_awake=5, backoff=5, longest_backoff=40)
# A claim of 0.9 and what is thought to come on top leave room for one sleeper of 2 GiB.
GPUS = {index: Gpu(50 * GIB, 0) for index in BOTH}
ALIVE: frozenset[State] = frozenset({"starting", "ready", "draining", "asleep"})


@dataclass
class Run:
    """A plan that is carried out; begun once its target's server may have been touched."""

    decision: Switch | Rest
    steps: list[Step]
    evicted: list[str] = field(default_factory=list)
    begun: bool = False
    given_up: bool = False


class FakeWorld:
    """Servers as they really are, a scheduler that is told of them, and every rule that must hold between the two.

    tells: whether the driver also reports what its own steps did to the models that give way.
    """

    def __init__(self, *, tells: bool = True) -> None:
        self.scheduler = Scheduler(MODELS, POLICY)
        self.tells = tells
        self.now = 1000.0
        self.servers = {name: Server(footprint=Footprint(2 * GIB, GIB), can_sleep=True) for name in MODELS}
        self.holding: set[str] = set()  # who has its model in GPU memory
        self.by_hand: set[str] = set()  # who starts by somebody's hand
        self.run: Run | None = None
        self.waiting: dict[int, tuple[str, int]] = {}  # the model, and how many switches began since it was asked
        self.wished: set[str] = set()
        self.serving: dict[str, float] = {}  # since when, of the models that were told to be ready
        self.idents = 0
        self.log: list[Event | Decision] = []

    # --- what happens -------------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        self.log.append(event)
        if isinstance(event, Wished):
            self.wished = self.wished - self.rivals(event.model) | {event.model}
        for decision in self.scheduler.handle(event, self.now):
            self.log.append(decision)
            self.obey(decision)
        self.check()

    def over(self, run: Run, event: Ended) -> None:
        """Tell that a run ended, which answers everybody who waits for the target of a switch."""
        answers = isinstance(run.decision, Switch) and event.outcome != "abandoned"
        if answers:
            self.wished.discard(event.target)
        if event.outcome == "ready":
            self.serving[event.target] = self.now
        self.tell(event)
        assert not answers or all(model != event.target for model, _ in self.waiting.values()), "not answered"

    def ask(self, model: str, size: int = 10) -> int:
        self.idents += 1
        self.waiting[self.idents] = (model, 0)
        self.tell(Asked(self.idents, model, size))
        return self.idents

    def leave(self, ident: int) -> None:
        self.waiting.pop(ident, None)
        self.tell(Left(ident))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick())

    def die(self, model: str) -> None:
        if self.servers[model].state in ALIVE:
            self.put(model, "failed")
            self.tell(Changed(model, "failed", "Killed"))

    def stop_by_hand(self, model: str) -> None:
        if self.servers[model].state in ALIVE:
            self.put(model, "stopped")
            self.tell(Unwished(model, "docker"))
            self.tell(Changed(model, "stopped"))

    def start_by_hand(self, model: str) -> None:
        if self.servers[model].state not in ALIVE:
            self.put(model, "starting")
            self.by_hand.add(model)
            self.tell(Wished(model, "docker"))
            self.tell(Changed(model, "starting"))

    def load_by_hand(self, model: str) -> None:
        """The gate of a server that was started by hand sees its memory free, and the server becomes ready."""
        its_own = self.run is not None and self.run.decision.target == model
        if model in self.by_hand and not its_own and not self.rivals(model) & self.holding:
            self.put(model, "ready", open=True)
            self.holding.add(model)
            self.tell(Changed(model, "ready"))

    # --- what is decided ----------------------------------------------------------------------------------------------

    def obey(self, decision: Decision) -> None:
        observed = Observed(dict(self.servers), GPUS, 100 * GIB)
        match decision:
            case Switch():
                assert self.run is None, "two switches at once"
                self.check_turn(decision.target)
                for name in (decision.target, *self.rivals(decision.target)):
                    self.serving.pop(name, None)
                self.run = Run(decision, plan(decision.target, MODELS, observed, POLICY))
                self.waiting = {ident: (model, count + 1) for ident, (model, count) in self.waiting.items()}
            case Rest():
                assert self.run is None, "a rest while something is under way"
                self.serving.pop(decision.target, None)
                steps = rest(decision.target, MODELS, observed, POLICY, decision.cause, stop=decision.stop)
                self.run = Run(decision, steps)
            case Abandon():
                assert self.run is not None
                assert self.run.decision.target == decision.target
                assert not any(model == decision.target for model, _ in self.waiting.values()), "somebody waits for it"
                self.run.given_up = True
            case Forward() | Refuse():
                self.answer(decision)

    def answer(self, decision: Forward | Refuse) -> None:
        assert decision.idents
        for ident in decision.idents:
            assert ident in self.waiting, "answered twice, or though it went away"
            model, switches = self.waiting.pop(ident)
            assert switches <= len(MODELS), "starved"
            if isinstance(decision, Forward):
                assert model == decision.model
                assert self.servers[model].state == "ready", (
                    f"forwarded to a server that is {self.servers[model].state}"
                )
                assert model not in self.leaving(), "forwarded to a server whose route closes next"
            else:
                assert decision.retry_after >= 0
                assert decision.code != "model_failed" or model in decision.message

    # --- what a driver does with it -----------------------------------------------------------------------------------

    def step(self) -> None:
        """Carry out the next step of the plan, or end it."""
        run = self.run
        if run is None:
            return
        if not run.steps:
            self.end()
        elif not self.do(run, run.steps.pop(0)):
            self.fail("it does not start")

    def do(self, run: Run, step: Step) -> bool:
        name, state = step.model, self.servers[step.model].state
        run.begun |= name == run.decision.target
        match step.kind:
            case "close":
                self.put(name, "draining" if state == "ready" else state, open=False)
            case "sleep" | "stop":
                alive = state in ALIVE
                if alive:
                    self.put(name, "asleep" if step.kind == "sleep" else "stopped")
                if name != run.decision.target:
                    run.evicted.append(name)
                    if self.tells and alive:
                        self.tell(Changed(name, self.servers[name].state))
            case "start" | "wake":
                # By the plan all rivals have let go; only a hand can have come between.
                assert not (self.rivals(name) & self.holding) - self.by_hand, "two models on the same memory"
                if (self.rivals(name) & self.holding) or (step.kind == "wake" and state != "asleep"):
                    return False
                self.put(name, "starting")
                self.holding.add(name)
            case "prove":
                if state not in ("starting", "ready"):
                    return False
                self.put(name, "ready", open=False)
            case "open":
                if state not in ("ready", "draining"):
                    return False
                self.put(name, "ready", open=True)
        return True

    def end(self) -> None:
        assert self.run is not None
        target = self.run.decision.target
        if isinstance(self.run.decision, Switch) and self.servers[target].state != "ready":
            self.fail("it died at once")
            return
        run, self.run = self.run, None
        if isinstance(run.decision, Rest):
            state: State = "asleep" if self.servers[target].state == "asleep" else "stopped"
            self.over(run, Ended(target, "rested", rested=state))
        else:
            self.by_hand.discard(target)
            self.over(run, Ended(target, "ready", evicted=tuple(run.evicted)))

    def fail(self, reason: str) -> None:
        if self.run is None:
            return
        run, self.run = self.run, None
        if run.begun:
            self.put(run.decision.target, "failed")
        self.over(run, Ended(run.decision.target, "failed", reason, evicted=tuple(run.evicted)))

    def give_up(self) -> None:
        if self.run is None or not self.run.given_up:
            return
        run, self.run = self.run, None
        if run.begun:
            self.put(run.decision.target, "stopped")
        self.over(run, Ended(run.decision.target, "abandoned", evicted=tuple(run.evicted)))

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check_turn(self, target: str) -> None:
        if target in self.wished:
            return
        oldest = next(iter(self.waiting.values()), None)
        assert oldest is None or oldest[0] == target, "somebody waits longer"
        young = [
            name
            for name in self.rivals(target)
            if self.servers[name].state == "ready" and self.serving.get(name, 0) > self.now - POLICY.min_awake
        ]
        assert not young, f"{young} had no time to serve"

    def check(self) -> None:
        believed = {name for name, server in self.scheduler.servers.items() if server.state == "ready"}
        for group in (self.holding, believed, set(self.scheduler.wanted)):
            assert not any(self.rivals(name) & group for name in group), f"rivals side by side: {sorted(group)}"
        assert {request.ident for request in self.scheduler.queue.waiting} == set(self.waiting)
        assert len(self.waiting) <= POLICY.queue_requests
        if self.waiting and self.run is None:
            due = self.scheduler.next_time(self.now)
            assert due is not None, "somebody waits, and nothing will happen"
            assert due <= self.now + POLICY.min_awake

    def settle(self) -> None:
        """Let everything go well from here: whoever waits is answered, and what is wanted comes up."""
        for _ in range(400):
            if self.run is not None:
                self.step()
                continue
            missing = [name for name in self.scheduler.wanted if self.servers[name].state != "ready"]
            if not self.waiting and not missing:
                return
            due = self.scheduler.next_time(self.now)
            assert due is not None, f"nothing will happen for {missing}"
            self.now = due
            self.tell(Tick())
        raise AssertionError("it does not come to rest")

    def leaving(self) -> set[str]:
        if self.run is None:
            return set()
        target = self.run.decision.target
        return {target} if isinstance(self.run.decision, Rest) else self.rivals(target)

    def rivals(self, name: str) -> set[str]:
        return {other for other in MODELS if other != name and MODELS[other].overlaps(MODELS[name])}

    def put(self, name: str, state: State, *, open: bool = False) -> None:  # noqa: A002
        self.servers[name] = replace(self.servers[name], state=state, open=open, since=self.now)
        if state in ("stopped", "failed", "asleep"):
            self.holding.discard(name)
            self.by_hand.discard(name)
