"""Runs `vllm bench serve` against a model that is up, in containers of its own; results.py makes sense of it."""

import itertools
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator import __version__, commands, host, states
from orchestrator.ask import Activator
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.load import results, words
from orchestrator.load.results import SINCE, Case, Gpu, Machine, Options, Result, Run, Server
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.render.serve import folder, variable
from orchestrator.states import Container
from orchestrator.versions import number

Say = Callable[[str], None]
# Where the router is found in the network of the servers.
ROUTER = "router:8000"
# Of a profile's args, what its tokenizer is chosen by.
_TOKENIZER = ("tokenizer", "tokenizer-mode", "trust-remote-code")
_NUMBERS = itertools.count(1)
# The activator counts requests once a second: what it still tells after so many looks is not the last run's.
SETTLE_LOOKS = 5
SETTLE_SECONDS = 0.5


def refuse(whole: Project, profile: Profile, options: Options) -> None:
    """Raise TandemError when a profile cannot be measured so, whatever is up."""
    if not profile.local and not profile.pull:
        raise TandemError(
            f"{profile.name}: its server fetches {profile.model} itself, as pull is false; bench needs the tokenizer "
            "in a folder: without pull = false, 'up' pulls the model into one"
        )
    said = whole.settings.get(variable(profile, "max_model_len"))
    longest = int(said) if said else profile.max_model_len
    if longest is not None and options.input + options.output > longest:
        raise TandemError(
            f"--input and --output: should be at most {longest} together, max_model_len of {profile.name}, "
            f"got {options.input} + {options.output}"
        )


def version(whole: Project, profile: Profile, container: Container) -> str:
    """Name the vLLM that a server has, by its image's tag. Raises TandemError when that has no `vllm bench serve`."""
    tag = container.image.rpartition(":")[2] or whole.choice(profile).build.tag
    found = tag.partition("-")[0]
    if number(found)[:2] < SINCE:
        able = [name for name in whole.versions.builds if number(name)[:2] >= SINCE]
        raise TandemError(
            f"{profile.name} has vLLM {found}, which has no 'vllm bench serve' that could be used: it came with 0.8, "
            f"and what it needs here with {'.'.join(map(str, SINCE))}. There are: {', '.join(able) or 'none'}"
        )
    return found


def mounts(whole: Project, profile: Profile) -> list[str]:
    """Name what the tokenizer is read from, as `docker run --mount` takes it."""
    if profile.local:
        source = (whole.folder / profile.model).resolve()
        return [f"type=bind,source={source},target={folder(profile)},readonly"]
    place = whole.settings.get("TANDEM_MODELS")
    if place.startswith("/"):
        return [f"type=bind,source={place},target=/models,readonly"]
    return [f"type=volume,source={whole.settings.project}_{place},target=/models,readonly"]


def tokenizer(profile: Profile) -> list[str]:
    """Name the tokenizer of a profile's server, in words of `vllm bench serve`."""
    found = {"tokenizer": folder(profile)} | {name: profile.args[name] for name in _TOKENIZER if name in profile.args}
    return [
        word
        for name, value in found.items()
        if value is not False
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


class Load:
    """Puts load on one model that is up, through the router as a client would, and never brings one up."""

    def __init__(
        self,
        whole: Project,
        engine: Engine,
        activator: Activator,
        profile: Profile,
        say: Say,
        *,
        seed: Callable[[], int] = lambda: secrets.randbelow(1 << 31),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take a profile that `refuse` lets pass. seed() gives another number for each run."""
        self._whole = whole
        self._engine = engine
        self._activator = activator
        self._profile = profile
        self._say = say
        self._seed = seed
        self._now = now
        self._pause = pause
        self._since: Any = None
        self._image = ""

    def measure(self, options: Options) -> Result:
        """Measure at each concurrency. Raises TandemError when the model is not up, or does not stay up."""
        began = self._now()
        self._look()
        container, vllm = self._server()
        # The image that the server has, also where its tag has gone to a newer one.
        self._image = container.ident
        self._say(f"{self._profile.name}: {words.options(options)}")
        cases = [self._case(options, at_once) for at_once in options.concurrency]
        self._look()
        return Result(
            profile=self._profile.name,
            model=self._profile.model,
            date=host.rfc3339(began),
            tandem=__version__,
            commit=host.commit(self._whole.folder),
            server=Server(vllm=vllm, image=container.image, image_id=container.ident, command=container.command),
            machine=_machine(),
            options=options,
            cases=tuple(cases),
        )

    def check(self) -> None:
        """Raise TandemError when the model is not up, or its server's vLLM has no such benchmark."""
        self._look()
        self._server()

    def _server(self) -> tuple[Container, str]:
        """Look at the server's container, and name the vLLM in it."""
        container = self._engine.container(self._profile.name)
        if container is None:
            raise TandemError(f"{self._profile.name} has no container; bring it up: {self._up}")
        return container, version(self._whole, self._profile, container)

    @property
    def _up(self) -> str:
        return f"python -m orchestrator up {self._profile.name}"

    def _look(self) -> int:
        """See that the model is up, and has been since the first look; how many requests are in flight to it."""
        entry = states.entry(self._activator.require(), self._profile.name)
        state = entry.get("state", "stopped")
        if state != "ready" and self._since is None:
            raise TandemError(f"{self._profile.name} is {state}; bring it up first: {self._up}")
        if state != "ready" or self._since not in (None, entry.get("since")):
            now = f"is {state} now" if state != "ready" else "was started again"
            raise TandemError(
                f"{self._profile.name} {now}: somebody switched models while it was measured, or its server died. "
                "Nothing is kept."
            )
        self._since = entry.get("since")
        return int(entry.get("in_flight") or 0)

    def _others(self) -> int:
        """Count the requests of other clients that are in flight to the model, once the last run's are counted off."""
        for _ in range(SETTLE_LOOKS):
            found = self._look()
            if not found:
                return 0
            self._pause(SETTLE_SECONDS)
        return self._look()

    def _case(self, options: Options, at_once: int) -> Case:
        if options.warmups:
            self._say(f"{at_once} at once: warming up")
            self._run(options, at_once, at_once * options.warmups)
        return results.case(at_once, list(self._runs(options, at_once)))

    def _runs(self, options: Options, at_once: int) -> Iterator[Run]:
        for place in range(1, options.runs + 1):
            run = self._run(options, at_once, at_once * options.per)
            self._say(f"{at_once} at once, run {place} of {options.runs}: {words.run_line(run)}")
            yield run

    def _run(self, options: Options, at_once: int, requests: int) -> Run:
        others, seed = self._others(), self._seed()
        scheme = "https" if self._whole.settings.certificate else "http"
        argv = commands.bench_serve(
            f"{scheme}://{ROUTER}",
            self._profile.served_model_name,
            tokenizer(self._profile),
            seed=seed,
            at_once=at_once,
            requests=requests,
            lengths=(options.input, options.output),
        )
        return results.read(self._said(argv), asked=requests, output=options.output, seed=seed, others=others)

    def _said(self, argv: list[str]) -> str:
        """Run it in a container, which is gone afterwards, also after Ctrl-C; the JSON that it saved."""
        name = f"{self._engine.project}-load-{self._profile.name}-{os.getpid()}-{next(_NUMBERS)}"
        line = commands.load(self._engine.project, name, self._image, mounts(self._whole, self._profile), argv)
        said: list[str] = []
        code = found = ""
        try:
            with closing(self._engine.stream(line, f"{self._whole.client_key}\n")) as lines:
                for each in lines:
                    # vLLM prints lines of equals signs too; the last line alone is the code.
                    code = each if re.fullmatch(r"=-?[0-9]+", each) else ""
                    if each.startswith(commands.LOADED):
                        found = each.removeprefix(commands.LOADED)
                    elif each.strip() and not code:
                        said.append(each)
        finally:
            if code == "":
                self._engine.discard(name)
        if code != "=0" or not found:
            raise TandemError(
                f"vllm bench serve failed ({code.removeprefix('=')}): {said[-1] if said else 'it said nothing'}"
            )
        return found


def _machine() -> Machine:
    name, cores = host.cpu()
    gpus = tuple(Gpu(index=gpu.index, name=gpu.name, memory=gpu.total) for gpu in host.gpu_memory())
    return Machine(cpu=name, cores=cores, driver=host.driver(), gpus=gpus)


def prepare(place: Path) -> None:
    """Make the folder of the results. Raises TandemError when none can be written there: before, and not after."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TandemError(f"{place}: cannot be made: {error.strerror or error}") from None
    if not os.access(place, os.W_OK | os.X_OK):
        raise TandemError(f"{place}: this user may not write there, so no result could be kept")


def keep(place: Path, result: Result) -> Path:
    """Put a result into a new file of a folder, and name it. Raises TandemError when it cannot be written."""
    stamp = result.date.translate({ord("-"): None, ord(":"): None}).removesuffix("Z")
    for more in itertools.count(1):
        path = place / f"{result.profile}-{stamp}{f'-{more}' if more > 1 else ''}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                try:
                    file.write(results.dump(result))
                    file.flush()
                except BaseException:
                    # A part of one would be the latest.
                    path.unlink()
                    raise
        except FileExistsError:
            continue
        except OSError as error:
            raise TandemError(f"{path}: cannot be written: {error.strerror or error}") from None
        return path
    raise AssertionError("counting has no end")


def find(place: Path, name: str) -> Path:
    """Find a result by its path, its name without the folder or .json, or `latest`. Raises TandemError if none is."""
    there = sorted(place.glob("*.json"), key=_moment)
    if name == "latest" and there:
        return there[-1]
    for path in (Path(name), place / name, place / f"{name}.json"):
        if path.is_file():
            return path
    last = ", ".join(path.stem for path in there[-5:]) or "none yet: 'python -m orchestrator bench NAME' makes one"
    raise TandemError(f"{name}: no such result; in {place} there are: {last}")


def last(place: Path, profile: str) -> Path | None:
    """Find the last result of one profile, by its file's name; None where there is none."""
    named = re.compile(re.escape(profile) + r"-[0-9]{8}T[0-9]{6}(?:-[0-9]+)?")
    return max((path for path in place.glob("*.json") if named.fullmatch(path.stem)), key=_moment, default=None)


def _moment(path: Path) -> tuple[str, int]:
    """When a result was begun, which its name ends with, and which of that second it is."""
    found = re.search(r"([0-9]{8}T[0-9]{6})(?:-([0-9]+))?$", path.stem)
    return (found[1], int(found[2] or 1)) if found else ("", 0)
