"""Does what --fix may do, and says of each thing what was done and how it is undone."""

import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import envfile
from orchestrator.doctor.remedies import DAEMON, KEPT, Remedy, lines
from orchestrator.errors import TandemError
from orchestrator.settings import unreadable

# Who pulls weights in the containers.
PULLER = 1000


@dataclass(frozen=True)
class Done:
    """What was done about one thing, or why it was not; and how it is undone, "" where nothing was done."""

    text: str
    undo: str = ""


@dataclass(frozen=True)
class Hands:
    """What --fix works with: the env file that settings go into, the user's number, and who answers a question.

    ask is None where nobody can be asked; run runs a program that the user sees, and gives its exit code.
    """

    target: Callable[[], Path]
    user: int
    run: Callable[[Sequence[str]], int]
    ask: Callable[[str], bool] | None = None


def fix(remedies: Sequence[Remedy], hands: Hands) -> Iterator[Done]:
    """Do one after the other. Raises TandemError when a file cannot be written; what was done before stays done."""
    for remedy in remedies:
        match remedy.kind:
            case "ends":
                yield _ends(Path(remedy.subject))
            case "folder":
                yield _folder(Path(remedy.subject), hands.user)
            case "setting":
                yield _setting(remedy, hands.target())
            case "runtime":
                yield _runtime(remedy, hands)


def _kept(path: Path) -> Path:
    """Keep a copy of a file beside it, under a free name; with its owner and mode, as it may hold a key."""
    copy, number = path.with_name(path.name + KEPT), 1
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}{KEPT}-{number}")
    try:
        copy.touch(mode=0o600)
        shutil.copyfile(path, copy)
        _like(path, copy)
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise TandemError(f"{copy}: cannot be written: {unreadable(error)}") from None
    return copy


def _like(path: Path, other: Path) -> None:
    """Give a file another's owner and mode."""
    held = path.stat()
    shutil.chown(other, held.st_uid, held.st_gid)
    shutil.copymode(path, other)


def _ends(path: Path) -> Done:
    target = path.resolve()  # a link stays a link
    new, copy = target.with_name(target.name + ".new"), _kept(target)
    try:
        new.touch(mode=0o600)
        new.write_bytes(target.read_bytes().replace(b"\r\n", b"\n"))
        _like(target, new)
        new.replace(target)
    except OSError as error:
        for left in (new, copy):
            left.unlink(missing_ok=True)
        raise TandemError(f"{path}: cannot be written: {unreadable(error)}") from None
    return Done(f"{path}: its lines end as on Linux now", _move(copy, target))


def _folder(path: Path, user: int) -> Done:
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    if user not in (0, PULLER):
        return Done(f"{path}: not made, as it has to be user {PULLER}'s; run:\n  {_by_root(path)}")
    try:
        path.mkdir(parents=True)
        if user == 0:
            shutil.chown(path, PULLER, PULLER)
    except OSError as error:
        return Done(f"{path}: not made: {unreadable(error)}; run:\n  {_by_root(path)}")
    # Not rm -r: weights may be in it by then.
    return Done(f"{path}: made, for user {PULLER}", f"rmdir {shlex.join(map(str, made))}")


def _by_root(path: Path) -> str:
    return f"sudo install -d -o {PULLER} -g {PULLER} {shlex.quote(str(path))}"


def _move(copy: Path, target: Path) -> str:
    return f"mv {shlex.quote(str(copy))} {shlex.quote(str(target))}"


def _setting(remedy: Remedy, target: Path) -> Done:
    copy = _kept(target) if target.exists() else None
    try:
        envfile.write(target, {remedy.subject: remedy.value})
    except TandemError:
        if copy:
            copy.unlink(missing_ok=True)
        raise
    cause = f" ({remedy.cause})" if remedy.cause else ""
    text = f"{remedy.subject}={remedy.value}: written to {target}{cause}"
    return Done(text, _move(copy, target) if copy else f"rm {shlex.quote(str(target))}")


def _runtime(remedy: Remedy, hands: Hands) -> Done:
    """Change Docker's own configuration; only when somebody says yes, and never half."""
    commands = "".join(f"\n  {line}" for line in lines(remedy.argv))
    if hands.ask is None:
        return Done(f"NVIDIA's runtime: not configured, as nobody can be asked here; run:{commands}")
    if not hands.ask(f"Configure NVIDIA's runtime in Docker? {remedy.cause}. It runs:{commands}\n"):
        return Done(f"NVIDIA's runtime: left as it is; to do it yourself:{commands}")
    for number, argv in enumerate(remedy.argv):
        if hands.run(argv):
            text = f"NVIDIA's runtime: '{shlex.join(argv)}' failed; what comes after it was not done"
            # Before the second one nothing has been changed.
            return Done(text, _back(remedy) if number else "")
    return Done("NVIDIA's runtime: configured, and Docker restarted", _back(remedy))


def _back(remedy: Remedy) -> str:
    before = f"sudo mv {remedy.value} {DAEMON}" if remedy.value else f"sudo rm {DAEMON}"
    return f"{before} && {shlex.join(remedy.argv[-1])}"
