"""Decides which model is up: events in, decisions out. Pure.

One switch, or rest, at a time. The next target is whose turn came first: the model of the oldest waiting request, or
the latest wish. While a request waits, each model is switched to at most once before it: whoever asked for that model
before is served by that switch, whoever asks for it again comes later. So no request waits through more switches begun
after it than there are models, its own included.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from orchestrator.switch import world
from orchestrator.switch.backoff import Backoff
from orchestrator.switch.belief import Belief
from orchestrator.switch.queue import Queue
from orchestrator.switch.wants import Wants
from orchestrator.switch.world import Abandon, Decision, Event, Forward, Model, Policy, Refuse, Rest, Server, Switch

# When to come back to a full queue, in seconds, where nobody knows when it will have room.
COME_BACK = 10.0


@dataclass
class Job:
    """What is under way; unwished: its wish was taken back; given_up: that was decided; times as in Progress."""

    decision: Switch | Rest
    behind: float = 0
    left: float | None = None
    unwished: bool = False
    given_up: bool = False

    @property
    def target(self) -> str:
        """The model that it is about."""
        return self.decision.target


class Scheduler:
    """Holds what is believed of the servers, who waits, and what is wanted. Events name none but these models."""

    def __init__(self, models: Mapping[str, Model], policy: Policy) -> None:
        self.models, self.policy = models, policy
        self.queue = Queue(policy)
        self.backoff = Backoff(policy)
        self.job: Job | None = None
        self._belief = Belief(models)
        self._wants = Wants(self._belief)
        self._rests: dict[str, Rest] = {}
        self._used: dict[str, float] = {}
        self._turn = 0

    @property
    def servers(self) -> Mapping[str, Server]:
        """The servers as they are believed to be."""
        return self._belief.servers

    @property
    def wanted(self) -> tuple[str, ...]:
        """The models that shall be up, also after a restart of the machine; no two of them overlap."""
        return self._wants.wanted

    def handle(self, event: Event, now: float) -> list[Decision]:
        """Take note of an event and decide what follows. now never goes back."""
        return [*self._note(event, now), *self._next(now)]

    def next_time(self, now: float) -> float | None:
        """Tell when a Tick is due at the latest; None when only another event can change anything."""
        if self.job is not None:
            return None
        head = self._head()
        if head is not None:
            return max(now, self._evictable(head))
        due = [self.backoff.until(name) for name in self.wanted if self._belief.missing(name)]
        soonest = min([*due, *map(self._tired, self.models)], default=inf)
        return None if soonest == inf else max(now, soonest)

    def resting(self, name: str) -> bool:
        """Tell whether a model is put to rest now, or will be."""
        job = self.job
        return name in self._rests or (job is not None and isinstance(job.decision, Rest) and job.target == name)

    # --- what happened ------------------------------------------------------------------------------------------------

    def _note(self, event: Event, now: float) -> list[Decision]:
        self._turn += 1
        match event:
            case world.Asked():
                return self._asked(event, now)
            case world.Left():
                self.queue.drop(event.ident)
            case world.Wished():
                self._wished(event)
            case world.Unwished():
                self._unwished(event)
            case world.Changed():
                return self._changed(event, now)
            case world.Used():
                self._used[event.model] = now
            case world.Ended():
                return self._ended(event, now)
            case world.Progress():
                if self.job is not None and self.job.target == event.target:
                    self.job.behind, self.job.left = event.behind, event.left
            case world.Tick():
                pass
        return []

    def _asked(self, event: world.Asked, now: float) -> list[Decision]:
        name = event.model
        if self._belief.state(name) == "ready":
            self._used[name] = now
            return [Forward((event.ident,), name)]
        if self.backoff.until(name) > now:
            return [self._failure((event.ident,), name, now)]
        if self.queue.full(event.size):
            retry = COME_BACK if self.job is None or self.job.left is None else self.job.left
            return [Refuse((event.ident,), "queue_full", "too many requests wait for their models", retry)]
        self.queue.add(event, self._turn, now)
        return []

    def _wished(self, event: world.Wished) -> None:
        self.backoff.forgive(event.model)
        self._rests.pop(event.model, None)
        self._wants.wish(event.model, event.by, self._turn)
        if self._belief.settled(event.model):
            self._wants.fulfil(event.model)

    def _unwished(self, event: world.Unwished) -> None:
        name = event.model
        self._wants.forget(name)
        if event.then:
            self._rests[name] = Rest(name, f"{event.by} does not want it any more", event.then == "stop")
        if self.job is not None and self.job.target == name:
            self.job.unwished = True

    def _changed(self, event: world.Changed, now: float) -> list[Decision]:
        name, before = event.model, self.servers[event.model]
        if self.job is not None and name == self.job.target:
            return []  # its Ended will tell
        if event.state == "ready":
            return self._found_ready(name, now)
        died = before.state in ("ready", "draining") and event.state in ("failed", "stopped")
        if died and name in self.wanted and not self._leaving(name):
            self.backoff.died(name, event.reason, now - before.since, now)
        # A sleeper that died was no use to anybody yet: it will start instead of waking.
        dead_sleeper = before.state == "asleep" and event.state == "failed"
        self._belief.put(name, "stopped" if dead_sleeper else event.state, now, event.reason)
        return []

    def _found_ready(self, name: str, now: float) -> list[Decision]:
        if self._belief.state(name) == "ready":
            return []
        if self._leaving(name) or self._belief.contested(name):
            self._belief.put(name, "draining", now)
            return []
        return self._arrived(name, now)

    def _ended(self, event: world.Ended, now: float) -> list[Decision]:
        job, name = self.job, event.target
        if job is None or name != job.target:
            return []
        self.job = None
        if isinstance(job.decision, Rest):
            self._belief.put(name, event.rested if event.outcome == "rested" else "failed", now, event.reason)
            return []
        ready = event.outcome == "ready"
        self._belief.gave_way(name, self._belief.rivals(name) if ready else event.evicted, now)
        if ready:
            return self._arrived(name, now)
        if event.outcome == "abandoned":
            self._belief.put(name, event.rested, now)
            return []
        self._belief.put(name, "failed", now, event.reason)
        self._wants.fail(name)
        self.backoff.failed(name, event.reason, now)
        waiting = self.queue.take(name)
        return [self._failure(waiting, name, now)] if waiting else []

    def _arrived(self, name: str, now: float) -> list[Decision]:
        """A model is ready: everybody who waits for it is served together."""
        self._belief.put(name, "ready", now)
        self.backoff.succeeded(name)
        self._wants.fulfil(name)
        self._used[name] = now
        waiting = self.queue.take(name)
        return [Forward(waiting, name)] if waiting else []

    def _failure(self, idents: tuple[int, ...], name: str, now: float) -> Refuse:
        message = f"{name} failed: {self.backoff.reason(name)}"
        return Refuse(idents, "model_failed", message, self.backoff.until(name) - now)

    def _leaving(self, name: str) -> bool:
        """Tell whether the switch under way takes a model's GPUs: what becomes of it is no surprise then."""
        job = self.job
        return job is not None and isinstance(job.decision, Switch) and not self._belief.apart(name, [job.target])

    # --- what follows -------------------------------------------------------------------------------------------------

    def _next(self, now: float) -> list[Decision]:
        if self.job is not None:
            return self._give_up(self.job)
        decision = self._due_rest() or self._due_switch(now) or self._due_ttl(now)
        if decision is None:
            return []
        self.job = Job(decision)
        if isinstance(decision, Switch):
            self._belief.give_way(decision.target, now)
        else:
            self._wants.forget(decision.target)
            self._belief.put(decision.target, "draining", now)
        return [decision]

    def _give_up(self, job: Job) -> list[Decision]:
        """Give up a switch that nobody waits for, when told so or when that is sooner for who waits for its GPUs."""
        name, head = job.target, self._head()
        if isinstance(job.decision, Rest) or job.given_up or name in self._wants.wishes or self.queue.count(name):
            return []
        ahead = self.policy.abandon and job.left is not None and job.left > job.behind
        if job.unwished:
            cause = "its wish was taken back"
        elif ahead and head is not None and not self._belief.apart(head, [name]):
            cause = f"nobody waits for it any more, and {head} is waited for"
        else:
            return []
        job.given_up = True
        return [Abandon(name, cause)]

    def _due_rest(self) -> Rest | None:
        """Take the next rest that somebody asked for and that is not done already."""
        while self._rests:
            rest = self._rests.pop(next(iter(self._rests)))
            state = self._belief.state(rest.target)
            if state in ("ready", "draining") or (rest.stop and state != "stopped"):
                return rest
        return None

    def _due_switch(self, now: float) -> Switch | None:
        head = self._head()
        if head is not None:
            return Switch(head, self._cause(head)) if self._evictable(head) <= now else None
        for name in self.wanted:
            if self._belief.missing(name) and self.backoff.until(name) <= now:
                return Switch(name, self._cause(name))
        return None

    def _due_ttl(self, now: float) -> Rest | None:
        tired = [] if self._head() is not None else [name for name in self.models if self._tired(name) <= now]
        return Rest(tired[0], f"no request for {self.models[tired[0]].ttl:g} s") if tired else None

    def _head(self) -> str | None:
        """Name the model whose turn is next, of those that somebody waits for or wishes."""
        turns = [(wish.turn, name) for name, wish in self._wants.wishes.items()]
        turns += [(request.turn, request.model) for request in self.queue.waiting[:1]]
        return min(turns)[1] if turns else None

    def _evictable(self, name: str) -> float:
        """Tell from when on a model may take its GPUs from others: they serve for min_awake, except against a wish."""
        ready = [self.servers[rival] for rival in self._belief.rivals(name) if self._belief.state(rival) == "ready"]
        wished = name in self._wants.wishes
        return 0 if wished else max((server.since + self.policy.min_awake for server in ready), default=0)

    def _tired(self, name: str) -> float:
        """Tell when a model has had no request for its ttl; infinite for one that does not rest."""
        ttl = self.models[name].ttl
        return inf if ttl is None or self._belief.state(name) != "ready" else self._used[name] + ttl

    def _cause(self, name: str) -> str:
        waiting, wish, server = self.queue.count(name), self._wants.wishes.get(name), self.servers[name]
        if wish:
            return f"{wish.by} wants it"
        if waiting:
            return f"{waiting} request{'s wait' if waiting > 1 else ' waits'} for it"
        return f"it died: {server.reason}" if server.state == "failed" else "it was the last good model"
