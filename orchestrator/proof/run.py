"""Asks a model one thing after another, and gives a row for each; what is right is for checks.py to say."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from orchestrator.profiles import Profile
from orchestrator.proof import checks, prompts, wording
from orchestrator.proof.answers import Answer
from orchestrator.proof.asking import ANSWER_SECONDS, LONG_SECONDS, Asker, Tokens
from orchestrator.proof.checks import Check, Twice
from orchestrator.proof.prompts import CAPITALS, QUESTIONS, Question

# How often what is compared token by token is asked again when it differs. The first request of a prompt computes
# what later ones find in the prefix cache, in other batches, so that a near tie between two tokens may end otherwise.
TRIES = 3
# A prompt counts as close to the limit within so many tokens, and is looked for so many times.
CLOSE, LOOKS = 8, 12
# What a prompt beyond the limit has more than it.
BEYOND = 64
# Of the time for an answer, how much thoughts may take at the pace of one request alone: five at once are slower.
THINKING_SHARE = 0.75


class _Step(NamedTuple):
    names: tuple[str, ...]
    doing: str
    take: Callable[[], list[Check]]


class Proof:
    """One run of all checks. sleep makes its row, which only it knows how."""

    def __init__(
        self,
        asker: Asker,
        profile: Profile,
        say: Callable[[str], None],
        sleep: Callable[[], Check],
        *,
        plumbing: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asker = asker
        self._profile = profile
        self._say = say
        self._sleep = sleep
        self._words = not plumbing
        self._clock = clock
        self._thinks = profile.reasoning_parser is not None
        self._sampled = prompts.SAMPLED if self._thinks else {}
        self._answers: dict[Question, Answer] = {}
        self._alone: dict[str, Answer] = {}
        self._called: Answer | None = None
        self._limit: int | None = None
        # Tokens a second of one request alone, None while nothing tells.
        self._pace: float | None = None
        # Whether it chats: a model that was never taught to is asked in another form.
        self._chats = True
        # Why nothing more is asked; "" while it can be.
        self._over = ""

    def rows(self) -> list[Check]:
        """Ask, and judge. Raises UnaskedError when the model is not up, or leaves for another one meanwhile."""
        self._asker.require()
        rows: list[Check] = []
        for step in self._steps():
            self._over = self._over or self._asker.died()
            if self._over:
                rows += [Check(name, "skipped", f"not asked: {self._over}") for name in step.names]
                continue
            self._say(f"{self._profile.name}: {step.doing}")
            rows += step.take()
        rows += wording.words(self._answers) if self._words else [_unjudged(name) for name in wording.NAMES]
        return sorted(rows, key=lambda row: row.name == "sleep")

    def _steps(self) -> Iterable[_Step]:
        once = f"{len(CAPITALS)} at once"
        yield _Step(("listed",), "looking for its names", self._listed)
        yield _Step(("completions",), "completions, one after another", self._completions)
        yield _Step((once,), f"{len(CAPITALS)} completions at once", self._at_once)
        chats = "chats, in English and in Chinese"
        yield _Step(("chat",), f"{chats}, which it thinks about first" if self._thinks else chats, self._chat)
        yield _Step(("max_tokens", "stop", "streaming"), "streams, and where answers end", self._ends)
        if self._thinks:
            yield _Step(("reasoning",), "its reasoning", self._reasoning)
        if self._profile.tool_call_parser:
            yield _Step(("tool calls",), "a tool call", self._tools)
        yield _Step(("long prompt", "too long"), "a prompt as long as it takes, and a longer one", self._long)
        yield _Step(("sleep",), "its sleep", lambda: [self._sleep()])

    def _listed(self) -> list[Check]:
        names = self._profile.names
        short = {"prompt": "Hi", "max_tokens": 1, "temperature": 0}
        aliases = {name: self._asker.completion(short, name=name) for name in names[1:]}
        self._limit = self._asker.tokens("Hi").limit
        return [checks.listed(self._asker.models(), names, aliases)]

    def _completions(self) -> list[Check]:
        paces = []
        for country in CAPITALS:
            began = self._clock()
            answer = self._alone[country] = self._asker.completion(prompts.capital(country))
            if answer.cut and answer.tokens:
                # Of full length: of a short one, most of the time is not the model's.
                paces.append(answer.tokens / max(self._clock() - began, 1e-3))
            if answer.silent:
                # What hangs once hangs again: to wait for it each time takes hours and tells nothing.
                self._over = self._asker.died() or "it does not answer completions"
                break
        # Not the mean: the very first request may have kernels compiled.
        self._pace = median(paces) if paces else None
        return [checks.answers("completions", self._alone.values())]

    def _at_once(self) -> list[Check]:
        asks = [partial(self._asker.completion, prompts.capital(country)) for country in CAPITALS]
        together = dict(zip(CAPITALS, self._asker.together(asks), strict=True))
        return [checks.at_once(self._alone, together, words=self._words)]

    def _chat(self) -> list[Check]:
        """Ask one question alone, which may tell that the model does not chat, and the others at once.

        One that thinks is asked all at once, and for its tool call too: one after another, it thinks for minutes.
        """
        first = QUESTIONS if self._thinks else QUESTIONS[:1]
        self._ask(first, tool=self._thinks and self._profile.tool_call_parser is not None)
        refused = self._answers[QUESTIONS[0]]
        self._chats = not checks.no_chat(refused)
        self._ask(QUESTIONS[len(first) :] if self._chats else QUESTIONS)
        if not self._chats:
            return [Check("chat", "warn", f"it is no model for chats: {refused.fault}")]
        return [checks.answers("chat", self._answers.values())]

    def _ask(self, questions: Sequence[Question], *, tool: bool = False) -> None:
        """Ask as many at once as have room for sure: a KV cache may hold max_model_len and no more, so others wait."""
        asks: list[Callable[[], Answer]] = [partial(self._question, question) for question in questions]
        asks += [self._weather] if tool else []
        found: list[Answer] = []
        limit = self._limit or self._profile.max_model_len
        few = max(limit // max(self._room, 1), 1) if limit else len(asks)
        while len(found) < len(asks):
            found += self._asker.together(asks[len(found) : len(found) + few])
        if tool:
            self._called = found.pop()
        self._answers |= dict(zip(questions, found, strict=True))

    def _question(self, question: Question) -> Answer:
        if self._chats:
            return self._asker.chat(prompts.chat(question.text, self._room, **self._sampled))
        return self._asker.completion(prompts.plainly(question.text, self._room, **self._sampled))

    def _weather(self) -> Answer:
        return self._asker.chat(prompts.weather(self._room, **self._sampled))

    @property
    def _room(self) -> int:
        """How many tokens an answer may have: enough to think first, as far as the context and the time allow."""
        wanted = prompts.THOUGHT if self._thinks else prompts.SENTENCES
        if self._thinks and self._pace is not None:
            wanted = max(min(wanted, int(self._pace * ANSWER_SECONDS * THINKING_SHARE)), 1)
        limit = self._limit or self._profile.max_model_len
        return min(wanted, max(limit // 2, limit - prompts.ASKED)) if limit else wanted

    def _ends(self) -> list[Check]:
        """Judge an answer of a fixed length: its length, stopped in its middle, and streamed; and a chat streamed."""
        told = [self._twice("completions", self._asker.completion, self._asker.completion_stream, prompts.tale())]
        if self._chats:
            body = prompts.chat(QUESTIONS[-1].text, min(prompts.CUT, self._room))
            told.append(self._twice("chat", self._asker.chat, self._asker.chat_stream, body))
        whole = told[0][-1].whole
        stop, tries = checks.word_of(whole.text), list[Answer]()
        while stop and len(tries) < TRIES and not (tries and checks.stopped(stop, tries[-1])):
            tries.append(self._asker.completion(prompts.tale(stop=[stop])))
        return [checks.length(whole), checks.stopping(stop, tries), checks.streaming(told)]

    def _twice(
        self,
        what: str,
        whole: Callable[[Mapping[str, Any]], Answer],
        stream: Callable[[Mapping[str, Any]], Answer],
        body: Mapping[str, Any],
    ) -> list[Twice]:
        tries: list[Twice] = []
        while not tries or (len(tries) < TRIES and tries[-1].comparable and not tries[-1].same):
            tries.append(Twice(what, whole(body), stream(body)))
        return tries

    def _reasoning(self) -> list[Check]:
        return [checks.reasoning(list(self._answers.values()))]

    def _tools(self) -> list[Check]:
        return [checks.tools(self._called or self._weather())]

    def _long(self) -> list[Check]:
        found = self._asker.tokens("Hi")
        limit = found.limit or self._profile.max_model_len
        if found.fault or limit is None:
            why = found.fault or "neither /tokenize nor models.toml tells how long a prompt may be"
            return [Check(name, "miss" if found.fault else "skipped", why) for name in ("long prompt", "too long")]
        target = limit - prompts.SHORT
        size, text = self._filled(target)
        if not text or target - size > BEYOND:
            # Of half the length it would prove nothing.
            why = f"no prompt of {target} tokens or a few less could be made, the nearest has {size}"
            return [Check(name, "skipped", why) for name in ("long prompt", "too long")]
        body = {"prompt": text, "max_tokens": prompts.SHORT, "temperature": 0}
        answer = self._asker.completion(body, seconds=LONG_SECONDS)
        fault = wording.broken(answer) if answer.ok else ""
        row = checks.long(answer, size, limit, fault, words=self._words)
        self._over = self._asker.died()
        if self._over:
            return [row, Check("too long", "skipped", f"not asked: {self._over}")]
        size, text = self._overfull(limit, size, text)
        if size <= limit:
            return [row, Check("too long", "skipped", f"no prompt of more than {limit} tokens could be made")]
        over = self._asker.completion({**body, "prompt": text, "max_tokens": 1}, seconds=LONG_SECONDS)
        return [row, checks.too_long(over, size, limit)]

    def _overfull(self, limit: int, size: int, text: str) -> tuple[int, str]:
        """Make a prompt of more than so many tokens from one of less: how many, and the prompt."""
        for _ in range(LOOKS):
            if size > limit:
                break
            # As many characters more as that many tokens have here.
            text = prompts.long(len(text) + (limit - size + BEYOND) * (len(text) // max(size, 1) + 1))
            size = self._asker.tokens(text).count
        return size, text

    def _filled(self, target: int) -> tuple[int, str]:
        """Find a prompt of at most so many tokens, and hardly fewer: how many, and the prompt."""
        # To begin with, what English has: about 3 characters a token, with so many numbers in it.
        length, best = 3 * target, (0, "")
        for _ in range(LOOKS):
            text = prompts.long(length)
            found: Tokens = self._asker.tokens(text)
            if best[0] < found.count <= target:
                best = (found.count, text)
            gap = target - found.count
            if found.fault or 0 <= gap <= CLOSE:
                break
            # Past a target by little: aim at the middle of what counts as close.
            length += round((gap - CLOSE / 2) * len(text) / max(found.count, 1))
        return best


def _unjudged(name: str) -> Check:
    return Check(name, "skipped", "words are not judged: --plumbing")
