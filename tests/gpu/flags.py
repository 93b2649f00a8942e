"""Measures what flags of `vllm serve` are worth at the shapes of the four GPU profiles; random weights, no Docker.

In this project's folder, on a machine with the profiles' number of GPUs and vLLM's packages in sight (a virtual
environment, or PYTHONPATH; VLLM is the command, by default "python3 -m vllm.entrypoints.cli.main"):

  python3 tests/gpu/flags.py plan FOLDER                  what would be started together, and how long it takes
  python3 tests/gpu/flags.py run FOLDER --seconds 540     measure; another call goes on where this one ended
  python3 tests/gpu/flags.py table FOLDER                 Markdown of all that was measured

Without --variants the tutorial's flags are held against ours. Several servers lie on the GPUs at once, as many as their
memory holds: they start together, and are asked one at a time, in turns. tests/gpu/README.md says more.

`run` ends with 0 when all is measured, 1 when a server or a request failed (the log's line is told), 3 when the time
was up before all was measured, 2 for what cannot be, 130 after Ctrl-C. No process is left behind; after a `kill -9` the
next call ends what was left.
"""

import argparse
import contextlib
import fcntl
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    # In place of this script's own folder, whose modules have everyday names.
    sys.path[0] = str(ROOT)

from orchestrator import host  # noqa: E402 (the project is no installed package there)
from orchestrator.errors import TandemError  # noqa: E402
from orchestrator.load import words as spoken  # noqa: E402
from orchestrator.load.results import Gpu, Machine  # noqa: E402
from tests.gpu import fit, serving, tables  # noqa: E402
from tests.gpu.asking import Client, LateError  # noqa: E402
from tests.gpu.batches import STOPPING, Known, Limits, Load, Plan, Turn  # noqa: E402
from tests.gpu.kept import Kept, Made, Start  # noqa: E402
from tests.gpu.serving import Server, Servers  # noqa: E402
from tests.gpu.variants import DRAFT, OURS, SHAPES, TUTORIAL, VARIANTS, Catalogue, Spec, named  # noqa: E402

# GiB of a GPU, or of the machine's memory, that are not promised to anyone.
RESERVE = 2.0
# Tokens of each answer of a warm-up: what is compiled at the first request of a size is compiled then.
WARM = 16
# Of the environment, what is kept beside a start.
TOLD = ("VLLM_", "NCCL_", "CUDA_", "TORCH_", "OMP_")
FOREVER = 1e9


class FullError(Exception):
    """The time is up."""


def say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def installed() -> str:
    """Name vLLM's version. Raises TandemError where there is none."""
    try:
        return version("vllm")
    except PackageNotFoundError:
        raise TandemError("vLLM is not installed here: PYTHONPATH may name the folder of its packages") from None


def machine() -> Machine:
    name, cores = host.cpu()
    gpus = tuple(Gpu(index=gpu.index, name=gpu.name, memory=gpu.total) for gpu in host.gpu_memory())
    return Machine(cpu=name, cores=cores, driver=host.driver(), gpus=gpus)


class Session:
    """One call of `run`: starts batches of servers and measures them, until all is done or the time is up."""

    def __init__(
        self, catalogue: Catalogue, plan: Plan, kept: Kept, options: argparse.Namespace, began: float, *,
        command: Sequence[str], client: Client,
    ) -> None:  # fmt: skip
        """Begin the clock of --seconds at `began`; command is vLLM's, client is what asks."""
        self._catalogue, self._plan, self._kept, self._options = catalogue, plan, kept, options
        self._deadline = began + (options.seconds or FOREVER)
        self._command, self._client = command, client
        self._servers = Servers(kept.folder / "servers.json", options.port, say)
        self._failed: set[Spec] = set()

    def run(self) -> None:
        """Measure. Raises TandemError when what is wanted can never fit."""
        self._servers.sweep()
        (self._kept.folder / "logs").mkdir(exist_ok=True)
        room = serving.free(self._options.room)
        while True:
            known = self.known()
            limits = Limits(room - RESERVE, self._options.at_once, self._left(), self._options.start)
            large = self._plan.too_large(known, limits)
            if large:
                raise TandemError(
                    f"{large[0]}: needs {self._plan.claim(large[0]):.0f} GiB of each GPU, beside what it is held "
                    f"against; there are {limits.room:.0f}, and --at-once is {limits.servers}"
                )
            batch = self._plan.batch(known, limits)
            if not batch:
                return
            try:
                self._batch(batch, known)
            except FullError:
                return
            finally:
                self._servers.stop()
            if self._options.room is None:
                room = serving.settled(room)

    def known(self) -> Known:
        found = self._kept.known(self._plan.load, again=self._options.again)
        # Nothing is tried twice in one call.
        found.failed |= self._failed
        return found

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _batch(self, batch: Sequence[Spec], known: Known) -> None:
        number, rounds = self._kept.batch(), max(self._plan.rounds_of(batch, known).values())
        say(f"batch {number}: {', '.join(map(str, batch))}; {rounds} rounds")
        servers = {spec: self._start(number, spec) for spec in batch}
        # Meanwhile: it takes as long as their own imports.
        self._client.prepare()
        self._servers.wait(self._deadline - STOPPING, self._options.start_limit)
        held = serving.held(self._servers.up)
        for spec, server in servers.items():
            self._note(number, spec, server, held.get(server.name, []))
        for spec in batch:
            if self._measurable(spec, servers):
                self._warm(number, spec, servers[spec])
        for turn in self._plan.turns(batch, known):
            if self._measurable(turn.spec, servers):
                self._turn(number, turn, rounds, servers[turn.spec])

    def _measurable(self, spec: Spec, servers: dict[Spec, Server]) -> bool:
        """Whether a server is up, and so is the one that it is held against."""
        return all(servers[one].state == "ready" for one in {spec, self._catalogue.against(spec)})

    def _start(self, number: int, spec: Spec) -> Server:
        place = self._catalogue.place(spec)
        if spec.profile in SHAPES and not place.exists():
            fit.folder(place, SHAPES[spec.profile])
        draft = self._catalogue.folder / "draft"
        if any("{draft}" in word for word in self._catalogue.variants[spec.variant].words) and not draft.exists():
            fit.folder(draft, DRAFT)
        log = self._kept.folder / "logs" / f"{number}-{spec.profile}-{spec.variant}.log"
        return self._servers.start(
            str(spec), lambda port: self._catalogue.argv(spec, self._command, port),
            self._catalogue.environment(spec), log,
        )  # fmt: skip

    def _note(self, number: int, spec: Spec, server: Server, held: list[float], fault: str = "") -> None:
        """Keep how a start went, or that a server which was ready failed."""
        text = server.said()
        why, lines = serving.reason(text) if server.state != "ready" else ("", [])
        if server.state == "late":
            waited = server.seconds >= self._options.start_limit
            why = f"not ready within {self._options.start_limit:.0f} s" if waited else ""
        elif fault:
            why = f"{fault}; its log: {why}"
        if why:
            say(f"{spec}: {why}")
            self._failed.add(spec)
        env = {key: value for key, value in os.environ.items() if key.startswith(TOLD)}
        self._kept.started(
            Start(
                batch=number, profile=spec.profile, variant=spec.variant, state=server.state, seconds=server.seconds,
                argv=[str(word) for word in server.process.args],  # type: ignore[union-attr]
                env=env | dict(self._catalogue.variants[spec.variant].env), held=held,
                date=host.rfc3339(datetime.now(UTC)), said=serving.reported(text), reason=why, lines=lines,
            )
        )  # fmt: skip

    def _lose(self, number: int, spec: Spec, server: Server, fault: str) -> None:
        """Give a server up that was ready."""
        server.state = "died"
        server.seconds = round(time.monotonic() - server.began, 1)
        self._servers.drop(server)
        self._note(number, spec, server, [], fault)

    def _warm(self, number: int, spec: Spec, server: Server) -> None:
        load = self._plan.load
        for at_once in self._plan.concurrency:
            answers = min(WARM, load.output)
            try:
                found = self._ask(spec, server, at_once, at_once, (load.input, answers), secrets.randbelow(1 << 31))
            except TandemError as error:
                self._lose(number, spec, server, f"its warm-up failed: {error}")
                return
            if found.run.faults:
                self._lose(number, spec, server, f"its warm-up failed: {found.run.faults[0]}")
                return

    def _turn(self, number: int, turn: Turn, rounds: int, server: Server) -> None:
        load = self._plan.load
        if self._plan.run_seconds(turn.spec, turn.at_once, self.known()) > self._left() - STOPPING:
            raise FullError
        # The same prompts for all servers of a round, and others in each.
        seed = (number * 1000 + turn.round) * 1000 + turn.at_once
        try:
            found = self._ask(
                turn.spec, server, turn.at_once, load.asked(turn.at_once), (load.input, load.output), seed
            )
        except TandemError as error:
            self._lose(number, turn.spec, server, str(error))
            return
        said = spoken.run_line(found.run)
        say(f"round {turn.round} of {rounds}, {turn.at_once} at once, {turn.spec}: {said}")
        self._kept.made(
            Made(number, turn.round, turn.spec.profile, turn.spec.variant, turn.at_once, load.key, found.run,
                 found.drafts)
        )  # fmt: skip
        if server.died():
            self._lose(number, turn.spec, server, "it died while it was measured")

    def _ask(self, spec: Spec, server: Server, at_once: int, asked: int, lengths: tuple[int, int], seed: int) -> Any:
        seconds = self._left() - STOPPING
        if seconds <= 0:
            raise FullError
        try:
            return self._client.ask(
                server.address, self._catalogue.profile(spec).served_model_name, self._catalogue.place(spec),
                seed=seed, at_once=at_once, asked=asked, lengths=lengths, seconds=seconds,
            )  # fmt: skip
        except LateError:
            raise FullError from None


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[TextIO]:
    """Let one call alone measure into a folder. Raises TandemError when another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TandemError(f"{folder}: another call measures into it now") from None
        yield file


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def run(catalogue: Catalogue, plan: Plan, options: argparse.Namespace, began: float) -> int:
    """Measure, and tell what is left."""
    # Also where a shell started this in the background, and so with Ctrl-C turned off.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for kind in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, interrupted)
    kept = Kept(options.folder)
    with alone(options.folder):
        kept.same(machine(), installed(), as_is=options.as_is)
        vllm = os.environ.get("VLLM", f"{sys.executable} -m vllm.entrypoints.cli.main").split()
        client = Client(options.folder / "client.log")
        session = Session(catalogue, plan, kept, options, began, command=vllm, client=client)
        try:
            session.run()
        except KeyboardInterrupt:
            say("stopped; what was measured is kept, and the same call goes on with it")
            return 130
    return told(catalogue, plan, kept, session.known())


def told(catalogue: Catalogue, plan: Plan, kept: Kept, known: Known) -> int:
    """Tell what failed and what is left; the exit code."""
    failed = [spec for spec in plan.wanted if spec in known.failed]
    for spec in failed:
        say(f"failed: {spec}: {next(one.reason for one in reversed(kept.starts()) if one.spec == spec and one.reason)}")
    blocked = [spec for spec in plan.wanted if spec not in failed and catalogue.against(spec) in known.failed]
    if blocked:
        say(f"not measured, as what they are held against failed: {', '.join(map(str, blocked))}")
    left = plan.open(known)
    if left:
        say(f"the time is up; left: {', '.join(f'{spec} ({plan.missing(spec, known)} rounds)' for spec in left)}")
        return 3
    wanted = {*plan.wanted, *map(catalogue.against, plan.wanted)}
    bad = [made for made in kept.runs() if made.load == plan.load.key and made.run.faults and made.spec in wanted]
    for made in bad:
        say(f"not counted: {made.spec}, {made.at_once} at once: {made.run.faults[0]}")
    return int(bool(failed or blocked or bad))


def preview(catalogue: Catalogue, plan: Plan, options: argparse.Namespace) -> int:
    """Show the batches as they would be if nothing failed, and the command lines; nothing is started."""
    kept = Kept(options.folder)
    known = kept.known(plan.load, again=options.again)
    room = serving.free(options.room) - RESERVE
    limits = Limits(room, options.at_once, options.seconds or FOREVER, options.start)
    total, number = 0.0, 0
    while batch := plan.batch(known, limits):
        number += 1
        rounds = plan.rounds_of(batch, known)
        seconds = plan.seconds(batch, rounds, known, options.start)
        total += seconds
        gib = sum(map(plan.claim, batch))
        print(f"batch {number}: {max(rounds.values())} rounds, {seconds:.0f} s, {gib:.0f} of {room:.0f} GiB")
        for spec in batch:
            once = sum(plan.run_seconds(spec, at_once, known) for at_once in plan.concurrency)
            print(f"  {spec}: {plan.claim(spec):.1f} GiB, {once:.0f} s a round")
            print(f"    {' '.join(catalogue.argv(spec, ['vllm'], options.port)[1:])}")
            for at_once in plan.concurrency:
                known.made[spec, at_once] = known.made.get((spec, at_once), 0) + rounds[at_once]
    print(f"{number} batches, {total:.0f} s")
    rest = plan.open(known)
    if rest:
        print(f"do not fit: {', '.join(map(str, rest))}")
    return int(bool(rest))


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers with commas, each 1 or more, in their order."""
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if not found or found[0] < 1:
        raise ValueError(text)
    return found


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    formed = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser(description=__doc__, formatter_class=formed)
    commands = found.add_subparsers(dest="command", required=True)
    for name in ("run", "plan"):
        each = commands.add_parser(name, formatter_class=formed, epilog="variants: " + ", ".join(VARIANTS))
        each.add_argument("folder", type=Path, help="where results, logs and models' folders are kept")
        each.add_argument("--profiles", default=",".join(SHAPES), help="of %(default)s, demo")
        each.add_argument("--variants", default=f"{OURS},{TUTORIAL}", help="%(default)s unless given")
        each.add_argument("--try", action="append", default=[], metavar="NAME=FLAGS", dest="more",
                          help="a variant of one's own: ours and these flags")  # fmt: skip
        each.add_argument("--concurrency", type=numbers, default=(1, 16, 64), help="requests at once: 1,16,64")
        each.add_argument("--rounds", type=int, default=3, help="runs of each server at each of those")
        each.add_argument("--input", type=int, default=512, help="tokens of a prompt")
        each.add_argument("--output", type=int, default=128, help="tokens of an answer")
        each.add_argument("--per", type=int, default=1, help="requests of a run, for each at once")
        each.add_argument("--least", type=int, default=2, help="requests of a run, at the least")
        each.add_argument("--seconds", type=float, help="end before so many have passed; nothing is begun too late")
        each.add_argument("--start", type=float, default=150, help="seconds that a batch's first start may take")
        each.add_argument("--start-limit", type=float, default=400, help="a server that takes longer has failed")
        each.add_argument("--at-once", type=int, default=6, help="servers that are up at once, at the most")
        each.add_argument("--room", type=float, help="GiB of each GPU that may be used; what is free unless given")
        each.add_argument("--port", type=int, default=21000, help="each server has a hundred from here on")
        each.add_argument("--as-is", action="store_true",
                          help="leave to vLLM what it chooses by the cards' size; else it is as on 24 GiB")  # fmt: skip
        each.add_argument("--again", action="store_true", help="try what failed in an earlier call once more")
    shown = commands.add_parser("table", formatter_class=formed)
    shown.add_argument("folder", type=Path)
    return found


def split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def command(options: argparse.Namespace, began: float) -> int:
    """Do what was asked. Raises TandemError for what cannot be."""
    options.folder = options.folder.resolve()
    if options.command == "table":
        print(tables.markdown(Kept(options.folder)))
        return 0
    for name in ("rounds", "input", "output", "per", "least", "at_once"):
        low = 2 if name == "output" else 1
        if getattr(options, name) < low:
            raise TandemError(f"--{name.replace('_', '-')}: should be at least {low}, got {getattr(options, name)}")
    load = Load(options.input, options.output, options.per, options.least)
    more = dict(map(named, options.more))
    tokens = max(options.concurrency) * (load.input + load.output)
    catalogue = Catalogue(options.folder / "models", more, tokens=tokens, as_is=options.as_is)
    wanted = catalogue.wanted(split(options.profiles), split(options.variants) + list(more))
    if not wanted:
        raise TandemError(f"--variants: {options.variants} are for none of {options.profiles}")
    for spec in wanted:
        longest = catalogue.profile(spec).max_model_len
        if longest is not None and load.input + load.output > longest:
            raise TandemError(f"--input, --output: {spec} takes {longest} tokens, got {load.input} + {load.output}")
    plan = Plan(wanted, catalogue.against, catalogue.claim, load, options.concurrency, options.rounds)
    if options.command == "plan":
        return preview(catalogue, plan, options)
    (options.folder / "models").mkdir(parents=True, exist_ok=True)
    return run(catalogue, plan, options, began)


def main(argv: Sequence[str], began: float) -> int:
    try:
        return command(parser().parse_args(argv), began)
    except TandemError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], time.monotonic()))
