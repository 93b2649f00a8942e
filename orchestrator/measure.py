"""Measures sleep and switches on what is up, through the router as a client would; bench.py makes sense of it."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from orchestrator import bench, host, states
from orchestrator.ask import Activator, Verb
from orchestrator.bench import Cycle, Kind, Part, SleepTest, Switch
from orchestrator.errors import TandemError

Say = Callable[[str], None]
PROMPT = "Count from one to twenty in words, then name the days of the week: one, two, three,"
TOKENS = 32
# A first token may have a whole start before it.
ANSWER_SECONDS = 3600.0
# Seconds from a sleep, or a wake, until its memory is looked at.
SETTLE = 2.0


class _WrongError(Exception):
    """The model did not sleep or wake as it should; str() says what it did."""


class Measure:
    """Measures models by their profile's names; served gives the name that a client sends for each."""

    def __init__(
        self,
        activator: Activator,
        served: Callable[[str], str],
        say: Say,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        free: Callable[[], int | None] = host.free_memory,
    ) -> None:
        self._activator = activator
        self._served = served
        self._say = say
        self._clock = clock
        self._pause = pause
        self._free = free

    def cycles(self, model: str, gpus: Sequence[int], number: int) -> SleepTest:
        """Put a model that is up to sleep and wake it, so many times or until it goes wrong; tell the activator.

        Raises TandemError when that cannot be tried, or what went wrong says nothing of the model's sleep.
        """
        refused = self._check(model)
        free, before = self._free(), self._answer(model)
        found: list[Cycle] = []
        fault = ""
        try:
            while len(found) < number and not fault:
                found.append(self._cycle(model, gpus, refused, free, before))
                self._say(f"cycle {len(found)} of {number}: {bench.cycle_text(found[-1])}")
                fault = "" if found[-1].same else "after a sleep it answers otherwise"
        except _WrongError as error:
            fault = str(error)
        result = SleepTest(model, tuple(found), fault)
        self._activator.slept(model, bench.verdict(result))
        if fault and self._state(model) != "ready":
            self._say(f"{model} did not come through: bringing it up again")
            self._bring(model)
        return result

    def _check(self, model: str) -> str:
        """See that a model can be tested, and tell what stands against its sleep so far, "" for nothing."""
        entry = self._entry(model)
        state, sleep = entry.get("state", "stopped"), str(entry.get("sleep") or "auto")
        up = f"python -m orchestrator up {model}"
        if sleep == "off":
            raise TandemError(f'{model} never sleeps. Set sleep = "auto" for it in models.toml, then: {up}')
        if state != "ready":
            raise TandemError(f"{model} is {state}; bring it up first: {up}")
        if sleep == "auto" and not entry.get("can_sleep", True):
            raise TandemError(
                f"{model} cannot sleep: its server has no sleep mode. vLLM has one from 0.17 on; "
                "'python -m orchestrator images' shows which is used."
            )
        return "" if sleep == "auto" else sleep

    def _cycle(self, model: str, gpus: Sequence[int], refused: str, free: int | None, before: str) -> Cycle:
        """Let it sleep and wake once. Raises _WrongError with what it does instead, TandemError as above."""
        asleep = self._part(self._step("try", model, "asleep", "rest", refused), gpus, free)
        awake = self._part(self._step("wake", model, "ready", "wake", refused), gpus, free)
        return Cycle(asleep, awake, same=self._answer(model) == before)

    def _step(self, verb: Verb, model: str, state: str, kind: str, refused: str) -> tuple[float, dict[str, float]]:
        """Have it sleep, or wake: seconds in all, and by phase."""
        began = self._clock()
        try:
            self._activator.do(verb, model)
            fault = ""
        except TandemError as error:
            fault = str(error)
        took = self._clock() - began
        entry, last = self._entry(model), self._last(model)
        why, anew = str(entry.get("sleep") or "auto"), last.get("kind") == "cold"
        if anew or (fault and why not in ("auto", refused)):
            raise _WrongError(why if why != "auto" else "it was started anew rather than woken")
        if not fault and (entry.get("state") != state or last.get("kind", kind) != kind):
            fault = f"{model} is {entry.get('state')}, not {state}: something else happened meanwhile"
        if fault:
            raise TandemError(
                f"{fault}\n  That says nothing of its sleep. It comes back with: python -m orchestrator up {model}"
            )
        return took, dict(last.get("seconds") or {})

    def _part(self, took: tuple[float, dict[str, float]], gpus: Sequence[int], free: int | None) -> Part:
        if gpus:
            # A driver gives memory back some time after it said so, and the activator looks every second.
            self._pause(SETTLE)
        left = self._free()
        return Part(*took, self._held(gpus), None if free is None or left is None else free - left)

    def _last(self, model: str) -> dict[str, Any]:
        """How the activator's last switch went, if it was the model's; else nothing."""
        last = dict((self._activator.status() or {}).get("last") or {})
        return last if last.get("target") == model else {}

    def switch(self, source: str, target: str, kind: Kind, *, awake: float, clear: Callable[[str], None]) -> Switch:
        """Measure one switch, from the request to its first token; what fails is the switch's fault.

        awake is for how many seconds a model keeps its GPUs in any case; clear drops what a model's server compiled.
        """
        self._say(f"{source} -> {target}, {kind}")
        try:
            self._bring(source)
            if kind == "wake":
                # Both have slept then: the first time takes longer, as it pins memory.
                self._bring(target)
                self._bring(source)
                if self._state(target) != "asleep":
                    return Switch(source, target, kind, fault=f"{target} is {self._state(target)} and does not sleep")
            else:
                self._activator.do("down", target)
                if kind == "cold":
                    clear(target)
            self._pause(awake)
            first = self._first_token(target)
            last = (self._activator.status() or {}).get("last") or {}
        except TandemError as error:
            return Switch(source, target, kind, fault=str(error).splitlines()[0])
        if last.get("target") != target:
            return Switch(source, target, kind, first_token=first, fault="the activator tells of another switch")
        wanted, did = ("wake" if kind == "wake" else "cold"), last.get("kind")
        if did != wanted:
            return Switch(source, target, kind, first_token=first, fault=f"it was no {kind} switch but by {did}")
        return Switch(source, target, kind, dict(last.get("seconds") or {}), float(last.get("total") or 0), first)

    def _bring(self, model: str) -> None:
        self._activator.do("up", model)

    def _entry(self, model: str) -> dict[str, Any]:
        return dict(states.entry(self._activator.require(), model))

    def _state(self, model: str) -> str:
        return str(self._entry(model).get("state", "stopped"))

    def _held(self, gpus: Sequence[int]) -> int | None:
        """Bytes in use on the fullest of some GPUs; None where nobody can tell."""
        status = self._activator.status() or {}
        mine = [gpu for gpu in status.get("gpus") or [] if gpu["index"] in gpus]
        return max((gpu["total"] - gpu["free"] for gpu in mine), default=None)

    def _answer(self, model: str) -> str:
        """Ask for a fixed prompt's answer, the same one each time as far as the server is the same."""
        body = {"model": self._served(model), "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "seed": 0}
        with closing(self._activator.complete(body, seconds=ANSWER_SECONDS)) as said:
            whole = "\n".join(said)
        try:
            return str(json.loads(whole)["choices"][0]["text"])
        except (ValueError, LookupError, TypeError):
            raise TandemError(f"{model} answers no completion: {whole[:200]}") from None

    def _first_token(self, model: str) -> float:
        """Seconds from a request that streams to its first token."""
        began = self._clock()
        body = {"model": self._served(model), "prompt": "Hi", "max_tokens": 1, "temperature": 0, "stream": True}
        first = None
        with closing(self._activator.complete(body, seconds=ANSWER_SECONDS)) as said:
            for line in said:
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                event = json.loads(data)
                if "error" in event:
                    raise TandemError(f"{model}: {event['error'].get('message')}")
                if event.get("choices") and first is None:
                    first = self._clock() - began
        if first is None:
            raise TandemError(f"{model} streamed no token")
        return first
