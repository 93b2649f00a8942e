"""Judges the words of a model's answers: rows of what broken weights, kernels and all-reduces produce. Pure."""

from collections.abc import Mapping

from orchestrator.proof import texts
from orchestrator.proof.answers import Answer
from orchestrator.proof.checks import Check
from orchestrator.proof.prompts import Question

NAMES = ("not empty", "no loop", "clean text", "language", "own answers")


def words(answers: Mapping[Question, Answer]) -> list[Check]:
    """Judge answers to questions in words. What did not come is for other rows to tell."""
    came = {question: answer for question, answer in answers.items() if answer.ok}
    if not came:
        return [Check(name, "skipped", "no answer came whose words could be judged") for name in NAMES]
    empty = [f"nothing is said to {texts.shown(q.text)}" for q, answer in came.items() if not answer.said.strip()]
    noise = [fault for answer in came.values() if (fault := garbled(answer))]
    # Not of reasoning, parsed or not: models think in the language that they like.
    said = {question: answer.text.rpartition("</think>")[2] for question, answer in came.items()}
    said = {question: text for question, text in said.items() if text.strip()}
    tongues = [fault for question, text in said.items() if (fault := texts.foreign(text, question.language))]
    twin = texts.same({question.text: answer.said for question, answer in came.items()})
    number = f"{len(came)} answers"
    return [
        _row("not empty", empty, f"none of {number}"),
        _loops(list(came.values())),
        _row("clean text", noise, f"{number}: no sign that is none, no noise"),
        _row("language", tongues, f"{len(said)} answers, each in the language of its question")
        if said
        else Check("language", "skipped", "no answer came after the reasoning"),
        _row("own answers", [twin] if twin else [], "each question has its own"),
    ]


def _loops(came: list[Answer]) -> Check:
    """Look for loops in answers. One in the thoughts of a single one is no proof: models that think slip into them."""
    said = [fault for answer in came if (fault := texts.looped(answer.text))]
    thought = [fault for answer in came if (fault := texts.looped(answer.reasoning))]
    if said or len(thought) != 1:
        return _row("no loop", said + thought, f"in {len(came)} answers")
    where = f"in the reasoning of one of {len(came)} answers and in no text"
    return Check("no loop", "warn", f"{thought[0]}, {where}")


def broken(answer: Answer) -> str:
    """Say what is wrong with a text by itself; "" for nothing."""
    if not answer.said.strip():
        return "says nothing"
    return looped(answer) or garbled(answer)


def looped(answer: Answer) -> str:
    """Scan the reasoning and the answer, each by itself."""
    return texts.looped(answer.reasoning) or texts.looped(answer.text)


def garbled(answer: Answer) -> str:
    """Scan all that an answer says. Its reasoning is whole when the answer has begun."""
    thought = texts.garbled(answer.reasoning, cut=answer.cut and not answer.text)
    return thought or texts.garbled(answer.text, cut=answer.cut)


def _row(name: str, faults: list[str], good: str) -> Check:
    if not faults:
        return Check(name, "ok", good)
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check(name, "miss", faults[0] + more)
