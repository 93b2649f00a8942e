"""Flags to try on a server: reads them, and writes the Compose file that lays them over the profile's own. Pure."""

import json
import re
import shlex
from collections.abc import Sequence

from orchestrator.errors import TandemError
from orchestrator.load.results import Case, Result, case
from orchestrator.rules import FIXED_FLAGS

# Beside those: by what the activator and the health check find the server, and what it serves.
_TAKEN = FIXED_FLAGS | {"served-model-name", "model", "revision", "config"}
_NUMBER = re.compile(r"-[0-9.]+")


def read(text: str) -> list[str]:
    """Split flags as a shell does. Raises TandemError for what is none, or must stay as it is; vLLM knows the rest."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise TandemError(f"--against: cannot be split into words: {error}, got {text}") from None
    if not words:
        raise TandemError('--against: should be flags of vllm serve, such as "--enforce-eager --max-num-seqs 64"')
    for place, word in enumerate(words):
        if word.startswith("--"):
            name = word.removeprefix("--").partition("=")[0].replace("_", "-")
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", name):
                raise TandemError(f'--against: "{word}" is no flag; a flag is two hyphens and words')
            if name.removeprefix("no-") in _TAKEN:
                raise TandemError(f"--against: {word} is fixed: clients, the router and the activator go by it")
        elif place == 0 or (word.startswith("-") and not _NUMBER.fullmatch(word)):
            raise TandemError(f'--against: each flag should begin with two hyphens, got "{word}"')
    return words


def override(service: str, command: Sequence[str], flags: Sequence[str]) -> str:
    """Write a Compose file that gives a service's server more flags, which come last and win."""
    words = [word.replace("$", "$$") for word in (*command, *flags)]
    # JSON is YAML.
    return json.dumps({"services": {service: {"command": words}}}, indent=1, ensure_ascii=False) + "\n"


def files(named: str, separator: str, present: Sequence[str]) -> list[str]:
    """Name the Compose files that are read without -f: those of COMPOSE_FILE, else the usual ones that are present."""
    if named:
        return named.split(separator)
    override_names = ("compose.override.yaml", "compose.override.yml")
    return ["compose.yaml", *[name for name in override_names if name in present][:1]]


def joined(rounds: Sequence[Result]) -> Result:
    """Put the rounds of one setting together: the runs of each concurrency, in their order."""
    first = rounds[0]
    cases: list[Case] = [
        case(each.concurrency, [run for one in rounds for run in one.cases[place].runs])
        for place, each in enumerate(first.cases)
    ]
    options = first.options.model_copy(update={"runs": first.options.runs * len(rounds)})
    return first.model_copy(update={"cases": tuple(cases), "options": options})
