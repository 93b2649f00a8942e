"""Turns pydantic's errors about models.toml into problems: a path, a fact, the valid values. Pure."""

import re
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator.problems import Path, Problem, show, suggest
from orchestrator.profiles import Entry, File, Options

_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", dict: "a table"}
_EXAMPLES = {"model": ', such as model = "Qwen/Qwen2.5-14B-Instruct"', "models": ", such as [models.qwen-14b]"}


def shape_problems(data: dict[str, Any]) -> list[Problem]:
    """Say what is wrong with models.toml's keys and types."""
    try:
        File.model_validate(data)
    except ValidationError as error:
        return [_problem(detail) for detail in error.errors(include_url=False)]
    return []


def _problem(detail: Any) -> Problem:
    return Problem(detail["loc"], _fact(detail["loc"], detail["type"], detail.get("input"), detail))


def _fact(path: Path, kind: str, given: Any, detail: Any) -> str:
    context = detail.get("ctx", {})
    if kind == "missing":
        return "is missing" + _EXAMPLES.get(str(path[-1]), "")
    if kind == "extra_forbidden":
        return "unknown key" + _suggest(str(path[-1]), _keys_at(path))
    if kind == "literal_error":
        return f"should be one of {str(context['expected']).replace(' or ', ', ')}, got {show(given)}"
    if kind == "string_pattern_mismatch":
        return f"should be a size such as 512mb or 8gb, got {show(given)}"
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"should be {words} {context[key]:g}, got {show(given)}"
    if kind == "too_short" and path == ("models",):
        return "should hold at least one table, as in [models.qwen-14b]"
    if kind in ("string_too_short", "too_short"):
        return "should not be empty"
    if kind.endswith("_type"):
        return f"should be {_expected(path)}, got {show(given)}"
    return str(detail["msg"])


def _keys_at(path: Path) -> list[str]:
    if len(path) == 1:
        return list(File.model_fields)
    return list((Options if path[0] == "defaults" else Entry).model_fields)


def _suggest(word: str, valid: list[str]) -> str:
    spelt_as_ours = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.replace("-", "_")).lower()
    return suggest(spelt_as_ours, valid, f"; valid keys: {', '.join(sorted(valid))}")


def _expected(path: Path) -> str:
    if path[0] == "models" and len(path) <= 2:
        return "a table, as in [models.qwen-14b]"
    if len(path) == 1:
        return "a table"
    key, *rest = path[1:] if path[0] == "defaults" else path[2:]
    if key in ("gpus", "aliases"):
        element = "integer" if key == "gpus" else "string"
        return (f"an {element}" if key == "gpus" else f"a {element}") if rest else f"a list of {element}s"
    if key == "env":
        return "a string" if rest else "a table of strings"
    return next(_KINDS[kind] for kind in _types(Entry.model_fields[str(key)].annotation) if kind in _KINDS)


def _types(annotation: Any) -> list[Any]:
    """List the plain types of an annotation, outermost first."""
    origin = getattr(annotation, "__origin__", None)
    inner = [kind for argument in get_args(annotation) for kind in _types(argument)]
    return [origin, *inner] if origin is dict else inner or [annotation]
