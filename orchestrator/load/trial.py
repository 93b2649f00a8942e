"""Measures a profile with its own flags and with others in turn, and puts its own back, whatever happens."""

import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator import commands
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.interrupts import Guard
from orchestrator.load import flags
from orchestrator.load.results import Options, Result
from orchestrator.plan import Operation
from orchestrator.profiles import Profile
from orchestrator.project import Project

Say = Callable[[str], None]


class Runs(Protocol):
    """What does the operations of a plan, with these Compose files in place of the usual ones."""

    def __call__(self, operations: Sequence[Operation], files: Sequence[str]) -> None:
        """Raise TandemError at the first that fails."""


class Trial:
    """One profile that is up, and flags to try on it."""

    def __init__(
        self, whole: Project, engine: Engine, profile: Profile, say: Say, *,
        measure: Callable[[Options], Result], run: Runs, taken: Callable[[], Sequence[str]],
    ) -> None:  # fmt: skip
        """measure() measures what is up; run() does operations, as `up` does them.

        taken() names the other models that are up, or wanted, on the profile's GPUs: from those nothing is taken.
        """
        self._whole = whole
        self._engine = engine
        self._profile = profile
        self._say = say
        self._measure = measure
        self._run = run
        self._taken = taken

    def turns(self, options: Options, against: Sequence[str], rounds: int) -> tuple[Result, Result]:
        """Measure B, the other flags, then A, its own, so many times; both right after a start. Gives A and B.

        B comes first, as flags that vLLM refuses should not wait for A. Raises TandemError when either cannot be.
        """
        command = self._current()
        own: list[Result] = []
        other: list[Result] = []
        for turn in range(1, rounds + 1):
            self._say(f"round {turn} of {rounds}: B, with {' '.join(against)}")
            other.append(self._other(options, command, against))
            self._say(f"round {turn} of {rounds}: A, with the flags of models.toml")
            own.append(self._measure(options))
        return flags.joined(own), flags.joined(other)

    def _current(self) -> tuple[str, ...]:
        """See that the server is as models.toml says, since that is what is put back; its command line."""
        name = self._profile.name
        container = self._engine.container(name)
        if container is None:
            raise TandemError(f"{name} is not up; bring it up first: python -m orchestrator up {name}")
        wanted = self._engine.wanted_hashes(commands.hashes(self._whole.settings.env_files))
        if container.config_hash != wanted.get(name, container.config_hash):
            raise TandemError(
                f"{name} runs with other settings than models.toml and .env say now: python -m orchestrator up {name}"
            )
        return container.command

    def _other(self, options: Options, command: Sequence[str], against: Sequence[str]) -> Result:
        with Guard() as guard, tempfile.TemporaryDirectory(prefix="tandem-") as folder:
            path = Path(folder) / "flags.yaml"
            path.write_text(flags.override(self._profile.name, command, against), encoding="utf-8")
            left = ""
            try:
                try:
                    self._start([*self._usual(), str(path)])
                    found = self._measure(options)
                finally:
                    # Should a signal come before this does anything, it holds the others back itself.
                    guard.hold()
            finally:
                left = self._restore(guard)
            if left:
                raise TandemError(left)
            return found

    def _start(self, files: Sequence[str]) -> None:
        stop, create, switch = self._operations("other flags are measured")
        self._run([stop, create], files)
        others = self._taken()
        if others:
            raise TandemError(f"{self._of_others(others)}; nothing is measured")
        self._run([switch], files)

    def _restore(self, guard: Guard) -> str:
        """Put its own flags back, and bring it up again unless others have its GPUs; why it is not up, "" if it is."""
        name = self._profile.name
        self._say(f"putting {name}'s own flags back; Ctrl-C does not break that off")
        stop, create, switch = self._operations("its own flags come back")
        self._engine.group = 0
        try:
            try:
                self._run([stop], [])
            except TandemError as error:
                # A request that wants it again at this moment, say. Its own flags count for more than that one.
                self._say(f"{name} is not drained, and is stopped all the same: {error}")
            self._run([create], [])
        except BaseException:
            self._say(f"{name} may still have the other flags, or be down: {self._up}")
            raise
        finally:
            self._engine.group = None
        # What takes minutes, and leaves nothing wrong when it is broken off.
        guard.let(signal.SIGINT)
        left = f"{name} is left down, with its own flags"
        try:
            return self._bring_back(switch, left)
        except BaseException:
            self._say(f"{left}: {self._up}")
            raise
        finally:
            guard.hold()

    def _bring_back(self, switch: Operation, left: str) -> str:
        try:
            others = self._taken()
            if others:
                why = f"{self._of_others(others)}, so {left}: {self._up}"
            else:
                self._say(f"bringing {self._profile.name} up again (Ctrl-C leaves it down, with its own flags)")
                self._run([switch], [])
                why = ""
        except TandemError as error:
            why = f"{left}: {error}"
        if why:
            self._say(why)
        return why

    def _of_others(self, others: Sequence[str]) -> str:
        are = "are" if len(others) > 1 else "is"
        return f"{', '.join(others)} {are} up, or wanted, on GPUs of {self._profile.name}"

    def _operations(self, cause: str) -> tuple[Operation, Operation, Operation]:
        """Have the server drained and stopped, its container made anew, and the model brought up."""
        name = self._profile.name
        return Operation("stop", name, cause), Operation("create", name, cause), Operation("switch", name, cause)

    @property
    def _up(self) -> str:
        return f"python -m orchestrator up {self._profile.name}"

    def _usual(self) -> list[str]:
        get, folder = self._whole.settings.get, self._whole.folder
        present = [path.name for path in folder.glob("compose.*")]
        found = flags.files(get("COMPOSE_FILE"), get("COMPOSE_PATH_SEPARATOR") or ":", present)
        return [str(folder / name) for name in found]
