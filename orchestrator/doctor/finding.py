"""What one check of this machine found. Pure."""

from dataclasses import dataclass
from typing import Literal

# "warn" works and costs something; "bad" stands in the way; "unknown" could not be looked at.
Status = Literal["ok", "warn", "bad", "unknown"]


@dataclass(frozen=True)
class Finding:
    """One row of the doctor's table."""

    # A short name, in lower case, one for each check: "wsl version", "gpu 0 memory".
    check: str
    status: Status
    # A fact with its figures, in a line.
    found: str
    # What it leads to; "" for what is well.
    why: str = ""
    # What mends it, as text to paste or to do; "" where nothing has to be done.
    fix: str = ""
    # Whether no model can start like this: `up` stops with it.
    blocks: bool = False
