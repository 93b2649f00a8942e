"""A rendered file, and the line that says it is one."""

from dataclasses import dataclass

NOTICE = "Rendered from models.toml by `python -m orchestrator render`. Changes made here are lost."


@dataclass(frozen=True)
class File:
    """A rendered file: its path below the project's folder, and its whole text."""

    path: str
    text: str
