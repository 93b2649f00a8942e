"""The settings of a server that follow from the machine: a file of variables, which the orchestrator renders.

It is read at each start, and is no part of the container: the same machine may be seen otherwise, and a container need
not be made anew for that.
"""

import re
from collections.abc import Callable
from pathlib import Path

_LINE = re.compile(r"([A-Z_][A-Z0-9_]*)=(.*)")


def read(path: Path, say: Callable[[str], None]) -> dict[str, str]:
    """Read the variables of a file; none where there is no file, or none that can be read, which is said."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        say(f"nothing follows from the machine: {error}")
        return {}
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if match:
            found[match[1]] = match[2]
        elif line.strip() and not line.startswith("#"):
            say(f"{path.name}: not understood: {line.strip()}")
    return found
