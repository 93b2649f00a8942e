"""Judges what a model answered: a row for each thing that has to be right. Pure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.proof.answers import Answer, Call
from orchestrator.proof.prompts import CAPITALS, CUT, PASSWORD, SHORT, TOOL
from orchestrator.proof.texts import shown

State = Literal["ok", "miss", "warn", "skipped"]
# What tool calls look like before a parser has read them, in the ways that models are taught to write them.
MARKUP = re.compile(
    r"</?tool_call>|<\|tool_calls?|<｜tool▁call|\[TOOL_CALLS\]|<\|python_tag\|>|<function=|</?function_call|functools\["
    rf'|"name"\s*:\s*"{TOOL}"|\b{TOOL}\s*\(\s*city\s*='
)
THINKING = re.compile(r"</?think(?:ing)?>|◁/?think▷|<\|(?:begin|end)_of_thought\|>")
# Of the capitals, how many a small model may not know: more than these and it is no small model's slip.
UNKNOWN = 2
# Fewer tokens than these may come in one piece.
PIECES = 16


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: its name, how it is, and the fact. warn and skipped do not count against it."""

    name: str
    state: State
    fact: str


@dataclass(frozen=True)
class Twice:
    """One request, answered once whole and once as a stream."""

    what: str
    whole: Answer
    stream: Answer

    @property
    def comparable(self) -> bool:
        """Whether both came."""
        return self.whole.ok and self.stream.ok

    @property
    def same(self) -> bool:
        """Whether both say the same; space aside, as parsers of reasoning trim it in one and not in the other."""
        return "".join(self.whole.said.split()) == "".join(self.stream.said.split())


def listed(answer: Any, names: Sequence[str], aliases: Mapping[str, Answer]) -> Check:
    """Look for the served model name, which is the first of names, and the others in GET /v1/models.

    aliases are short answers that were asked for by the other names.
    """
    try:
        entry: Mapping[str, Any] = {one["id"]: one for one in answer["data"]}.get(names[0], {})
        found = {str(entry.get("id")), *entry.get("aliases", [])}
    except (LookupError, TypeError, AttributeError):
        return Check("listed", "miss", "GET /v1/models answers no list of models")
    missing = [name for name in names if name not in found]
    if missing:
        return Check("listed", "miss", f"GET /v1/models does not have {', '.join(missing)}")
    deaf = [f"{name} is listed, and its server says {answer.why}" for name, answer in aliases.items() if not answer.ok]
    return Check("listed", "miss", deaf[0]) if deaf else Check("listed", "ok", ", ".join(names))


def answers(name: str, found: Iterable[Answer]) -> Check:
    """Look whether answers came whole: each with the reason of its end and the count of its tokens."""
    all_of = list(found)
    for answer in all_of:
        if not answer.ok:
            return Check(name, "miss", answer.why)
        if answer.finish not in ("stop", "length") or answer.tokens is None:
            return Check(name, "miss", f"finish_reason {answer.finish or 'none'}, completion_tokens {answer.tokens}")
    return Check(name, "ok", f"{len(all_of)} answers of {sum(answer.tokens or 0 for answer in all_of)} tokens in all")


def no_chat(found: Answer) -> bool:
    """Whether a chat was refused because the model was never taught to chat."""
    return found.status == 400 and "chat template" in found.fault


def streaming(tries: Sequence[Sequence[Twice]]) -> Check:
    """Judge streams by the last try of each request; more than one where the texts differed before."""
    for twice in (one[-1] for one in tries):
        fault = _stream_fault(twice)
        if fault:
            return Check("streaming", "miss", f"{twice.what}: {fault}")
    again = max((len(one) for one in tries), default=1)
    pieces = ", ".join(f"{one[-1].what} in {one[-1].stream.pieces} pieces" for one in tries)
    times = f", at try {again}" if again > 1 else ""
    return Check("streaming", "ok", f"{pieces}; the same text as whole{times}")


def _stream_fault(twice: Twice) -> str:
    whole, stream = twice.whole, twice.stream
    if not whole.ok:
        return whole.why
    if not stream.ok:
        return f"streamed: {stream.why}"
    if not stream.done:
        return "the stream ends without [DONE]"
    if not stream.finish:
        return "the stream ends without a finish_reason"
    if not twice.same:
        return f"streamed {_from(stream.said, whole.said)}, whole {_from(whole.said, stream.said)}"
    if (whole.tokens or 0) >= PIECES and stream.said and stream.pieces < 2:
        return f"{whole.tokens} tokens came in one piece"
    return ""


def _from(text: str, other: str) -> str:
    """Quote a text from a little before where another one differs."""
    same = next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    return shown(text[max(same - 4, 0) :] or "nothing")


def word_of(text: str) -> str:
    """Choose from the middle of an answer what is to stop the next one; "" where there is nothing to choose."""
    middle = text[len(text) // 3 :].replace("\ufffd", " ").split()
    return middle[0][:4] if middle else ""


def stopping(stop: str, tries: Sequence[Answer]) -> Check:
    """Judge the last answer that a string was to stop, which the model says when nothing stops it.

    Its tokens may vary a little from one time to the next, so it may have said something else: it is asked again then.
    """
    if not stop:
        return Check("stop", "miss", "an answer with nothing in it that could be stopped at")
    found = tries[-1]
    if not found.ok:
        return Check("stop", "miss", found.why)
    if stop in found.text:
        return Check("stop", "miss", f"it says {shown(stop)}, where it was to stop, and is not stopped")
    if found.finish != "stop":
        return Check("stop", "miss", f"finish_reason {found.finish or 'none'} and not stop, {len(tries)} times")
    return Check("stop", "ok", f"stopped at {shown(stop)}")


def stopped(stop: str, found: Answer) -> bool:
    """Whether an answer need not be asked for again."""
    return not stop or not found.ok or stop in found.text or found.finish == "stop"


def length(found: Answer) -> Check:
    """Judge an answer that was to have CUT tokens."""
    if not found.ok:
        return Check("max_tokens", "miss", found.why)
    if found.tokens != CUT or not found.cut:
        return Check(
            "max_tokens", "miss", f"asked for {CUT} tokens: {found.tokens} came, finish_reason {found.finish or 'none'}"
        )
    return Check("max_tokens", "ok", f"{CUT} tokens and finish_reason length")


def tools(found: Answer) -> Check:
    """Judge the answer to a question that a tool can answer."""
    if not found.ok:
        return Check("tool calls", "miss", found.why)
    raw = MARKUP.search(found.text)
    if raw:
        fact = f"the call is in the text, not read by tool_call_parser: {shown(found.text[raw.start() :])}"
        return Check("tool calls", "miss", fact)
    if found.calls:
        fault = _call_fault(found.calls[0])
        return Check("tool calls", "miss" if fault else "ok", fault or f"{TOOL}({found.calls[0].arguments})")
    if found.cut:
        return Check("tool calls", "warn", f"no call within {found.tokens} tokens")
    return Check("tool calls", "warn", f"answered in words, as small models do: {shown(found.said)}")


def _call_fault(call: Call) -> str:
    if call.name != TOOL:
        return f"calls {shown(call.name)}, which is no tool that it was given"
    try:
        given = json.loads(call.arguments)
    except ValueError:
        return f"arguments that are no JSON: {shown(call.arguments)}"
    if not isinstance(given, dict) or not isinstance(given.get("city"), str):
        return f"arguments without the city: {shown(call.arguments)}"
    return ""


def reasoning(found: Sequence[Answer]) -> Check:
    """Judge the answers, one at least, of a model that thinks first; what did not come is for "chat" to tell.

    DeepSeek-R1 and its distills think nothing at some easy questions, as their card says, so not every answer need have
    reasoning. With no marks at all an answer is reasoning to vLLM's parsers, which is no fault either where it is one.
    """
    came = [answer for answer in found if answer.ok]
    if not came:
        return Check("reasoning", "miss", found[0].why)
    marks = [mark[0] for answer in came if (mark := THINKING.search(answer.text))]
    if marks:
        return Check("reasoning", "miss", f"{marks[0]} is in the answer, not read by reasoning_parser")
    thought = [answer for answer in came if answer.reasoning.strip()]
    if not thought:
        return Check("reasoning", "miss", f"no reasoning beside any of {len(came)} answers")
    bare = [answer for answer in thought if not answer.text.strip()]
    missing = f"no answer after it in {len(bare)} of {len(came)}"
    # A model that thinks nothing, with a parser that takes all it says for thoughts.
    whole = [answer for answer in came if not answer.cut]
    if len(whole) > 1 and all(answer in bare for answer in whole):
        return Check("reasoning", "miss", f"{missing}, though they ended by themselves")
    if bare:
        longest = max(answer.tokens or 0 for answer in bare)
        return Check("reasoning", "warn", f"{missing}, the longest of {longest} tokens")
    size = sum(len(answer.reasoning) for answer in thought)
    return Check("reasoning", "ok", f"apart from the answer in {len(thought)} of {len(came)}, {size} characters in all")


def long(found: Answer, tokens: int, limit: int, fault: str, *, words: bool) -> Check:
    """Judge the answer to a prompt of so many tokens, close to the limit; fault is what is wrong with its text."""
    size = f"{tokens} of {limit} tokens"
    if not found.ok:
        return Check("long prompt", "miss", f"{size}: {found.why}")
    if words and fault:
        return Check("long prompt", "miss", f"{size}: {fault}")
    if words and PASSWORD not in found.text.lower():
        fact = f"{size}: it does not know any more what stood at the beginning, and says {shown(found.text)}"
        return Check("long prompt", "warn", fact)
    return Check("long prompt", "ok", f"{size}, and {SHORT} to answer" + (": it knows how it began" if words else ""))


def too_long(found: Answer, tokens: int, limit: int) -> Check:
    """Judge what became of a prompt beyond the limit: 400, and nothing else."""
    if found.status == 400:
        return Check("too long", "ok", f"{tokens} of {limit} tokens: 400")
    fact = "was answered, so it was cut, or the limit is no limit" if found.ok else found.why
    return Check("too long", "miss", f"{tokens} of {limit} tokens: should be 400; {fact}")


def at_once(alone: Mapping[str, Answer], together: Mapping[str, Answer], *, words: bool) -> Check:
    """Judge answers about countries, asked for one after another and then all at once.

    The texts need not be the same: vLLM's kernels sum in another order in another batch, so that a near tie between
    two tokens may end otherwise. What has to be the same is what each is about.
    """
    name = f"{len(together)} at once"
    dumb = [answer.why for answer in together.values() if not answer.ok]
    if dumb:
        return Check(name, "miss", f"{len(dumb)} of {len(together)} get no answer: {dumb[0]}")
    if not words:
        return Check(name, "ok", "all answer")
    wrong = [country for country, answer in together.items() if not _right(country, answer)]
    for country in wrong:
        before = alone.get(country, Answer(fault="none"))
        if before.ok and _right(country, before):
            said = f"alone {shown(before.text)}, at once {shown(together[country].text)}"
            return Check(name, "miss", f"the capital of {country}: {said}")
    right = f"{len(together) - len(wrong)} of {len(together)} right"
    if not wrong:
        return Check(name, "ok", f"all right, as alone: {', '.join(CAPITALS[country] for country in together)}")
    said = f"{right}, as alone; for {wrong[0]} it says {shown(together[wrong[0]].text)}"
    return Check(name, "warn" if len(wrong) <= UNKNOWN else "miss", said)


def _right(country: str, answer: Answer) -> bool:
    """Whether the right capital stands before any other: what comes after may be the next country's."""
    found = {capital: answer.text.find(capital) for capital in CAPITALS.values() if capital in answer.text}
    return bool(found) and min(found, key=lambda capital: found[capital]) == CAPITALS[country]


def passed(rows: Iterable[Check]) -> bool:
    """Whether nothing is wrong."""
    return all(row.state != "miss" for row in rows)
