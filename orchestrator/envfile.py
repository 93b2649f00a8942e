"""Changes single settings of an env file and nothing else in it; the one writer of .env."""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path

from orchestrator.errors import TandemError
from orchestrator.settings import unreadable

# A value as env files have it: in quotes, or up to a comment or the end of the line.
_GAP = r"[^\S\r\n]*"
_VALUE = (
    r"'(?:[^'\\]|\\.)*'"
    r'|"(?:[^"\\]|\\.)*"'
    rf"|(?:(?!\s\#)[^\r\n])*?(?={_GAP}(?:[\r\n]|$)|{_GAP}\s\#)"
)


def edit(text: str, changes: Mapping[str, str | None]) -> str:
    """Set each name to its value, in place where it is set, else at the end; None takes the name out.

    Everything else stays as it is: comments, order, what ends a line.
    """
    from dotenv.parser import parse_stream

    # Read without a change of line ends: "\r" is kept for the parser, which keeps what it read.
    pieces = [
        (line.key, line.original.string) for line in parse_stream(StringIO(text.removeprefix("\ufeff"), newline=""))
    ]
    ending = "\r\n" if re.search(r"\r\n", text) else "\n"
    for name, value in changes.items():
        places = [index for index, (key, _) in enumerate(pieces) if key == name]
        if value is None:
            for index in places:
                pieces[index] = (None, _comments(pieces[index][1]))
        elif places:
            # Of several the last one counts.
            pieces[places[-1]] = (name, _replaced(pieces[places[-1]][1], name, value))
        else:
            last = pieces[-1][1] if pieces else ending
            pieces.append((name, ("" if last.endswith(("\n", "\r")) else ending) + f"{name}={value}{ending}"))
    return ("\ufeff" if text.startswith("\ufeff") else "") + "".join(piece for _, piece in pieces)


def _comments(piece: str) -> str:
    """Keep the blank lines that the parser takes for the beginning of a setting."""
    return piece[: len(piece) - len(piece.lstrip("\r\n"))]


def _replaced(piece: str, name: str, value: str) -> str:
    """Put a value into the text of a setting; an `export`, a comment behind it and the line's end stay."""
    head = rf"(\s*(?:export{_GAP}\s)?'?{re.escape(name)}'?{_GAP})(={_GAP})?"
    return re.sub(
        rf"^{head}(?:{_VALUE})", lambda found: f"{found[1]}{found[2] or '='}{value}", piece, count=1, flags=re.DOTALL
    )


def write(path: Path, changes: Mapping[str, str | None]) -> None:
    """Change an env file in one step, with its owner and mode kept; make it when there is none."""
    target = path.resolve()  # a link stays a link
    new = target.with_name(target.name + ".new")
    try:
        before = target.read_bytes().decode("utf-8") if target.exists() else ""
        after = edit(before, changes)
        if after == before:
            return
        # Others may read it only when they might read the old one: it can hold a proxy's password.
        new.touch(mode=0o600)
        new.write_bytes(after.encode("utf-8"))
        if target.exists():
            held = target.stat()
            shutil.chown(new, held.st_uid, held.st_gid)
            shutil.copymode(target, new)
        new.replace(target)
    except (OSError, UnicodeDecodeError) as error:
        raise TandemError(f"{path}: cannot be written: {unreadable(error)}") from None
    finally:
        with suppress(OSError):
            new.unlink()
