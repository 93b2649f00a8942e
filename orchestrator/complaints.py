"""Turns pydantic's errors about models.toml into lines for a person: a path, a fact, the valid values. Pure."""

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator.profiles import Entry, File, Options


def shape_problems(data: dict[str, Any]) -> list[str]:
    """Say what is wrong with models.toml's keys and types, one line each."""
    try:
        File.model_validate(data)
    except ValidationError as error:
        return _unique([_shape_problem(detail) for detail in error.errors(include_url=False)])
    return []


def _unique(lines: list[str]) -> list[str]:
    return list(dict.fromkeys(lines))


def _shape_problem(detail: Any) -> str:
    location = [part for part in detail["loc"] if not (isinstance(part, str) and _is_union_branch(part))]
    path = ".".join(str(part) for part in location)
    kind, given, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    if kind == "missing":
        return f"{path}: is missing" + (
            ', such as model = "Qwen/Qwen2.5-14B-Instruct"' if location[-1] == "model" else ""
        )
    if kind == "extra_forbidden":
        return f"{path}: unknown key{_suggest(str(location[-1]), _keys_at(location))}"
    if kind == "literal_error":
        valid = str(context["expected"]).replace(" or ", ", ")
        return f"{path}: should be one of {valid}, got {_show(given)}"
    if kind == "string_pattern_mismatch":
        return f"{path}: should be a size such as 512mb or 8gb, got {_show(given)}"
    if kind.endswith(("_type", "_parsing")):
        return f"{path}: should be {_expected(location)}, got {_show(given)}"
    limits = {
        "greater_than_equal": ("ge", "at least"),
        "greater_than": ("gt", "more than"),
        "less_than_equal": ("le", "at most"),
    }
    if kind in limits:
        key, words = limits[kind]
        return f"{path}: should be {words} {context[key]:g}, got {_show(given)}"
    if kind in ("string_too_short", "too_short", "dict_too_short"):
        return f"{path}: should not be empty"
    return f"{path}: {detail['msg']}"


def _is_union_branch(part: str) -> bool:
    return part.startswith(("list[", "dict[", "constrained-")) or part in ("bool", "int", "float", "str")


def _show(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _keys_at(location: list[Any]) -> list[str]:
    if len(location) == 1:
        return list(File.model_fields)
    return list((Options if location[0] == "defaults" else Entry).model_fields)


def _suggest(word: str, valid: list[str]) -> str:
    close = get_close_matches(word.replace("-", "_"), valid, n=1)
    return f", did you mean {close[0]}?" if close else f"; valid keys: {', '.join(sorted(valid))}"


def _expected(location: list[Any]) -> str:
    if location[0] == "models" and len(location) <= 2:
        return "a table, as in [models.qwen-14b]"
    keys = [part for part in location if isinstance(part, str)]
    if "args" in keys:
        return "a boolean, number, string, list or table"
    if "env" in keys:
        return "a table of strings" if keys[-1] == "env" else "a string"
    field = Entry.model_fields.get(keys[-1])
    kinds = {
        "gpus": "a list of integers",
        "aliases": "a list of strings",
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a string",
    }
    if field is None:
        return "a table"
    if location[-1] in kinds:
        return kinds[location[-1]]
    if isinstance(location[-1], int):
        return {"gpus": "an integer", "aliases": "a string"}[keys[-1]]
    return next((kinds[kind] for kind in _types(field.annotation) if kind in kinds), "a value of another type")


def _types(annotation: Any) -> list[Any]:
    inner = [kind for argument in get_args(annotation) for kind in _types(argument)]
    return inner or [annotation]
