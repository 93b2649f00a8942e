"""How much time the router takes: beside its upstream bare, plain nginx, LiteLLM's proxy and vllm-router, in one run.

python -m tests.routing.bench [--quick] [--rounds 5] [--work FOLDER] [--without NAME] [--image tandem/router:0.1.0]

Prints the tables of docs/router-speed.md. Needs Docker, the router's image, and wrk. Sends to 127.0.0.1 alone.
--work keeps the venvs of LiteLLM and vllm-router there for the next run. --without litellm leaves one out.
"""

import argparse
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.checkout import free_port
from tests.routing import bench_bars, bench_measure, bench_nginx, bench_rivals, bench_tables
from tests.routing.bench_ask import trouble
from tests.routing.bench_bodies import SIZES, chat, numbers
from tests.routing.bench_containers import Machine, model
from tests.routing.bench_measure import PAIRS, Cell, Contender, Results
from tests.routing.bench_wrk import CannotMeasureError

IMAGE = "tandem/router:0.1.0"
LAST = "200 KB, key last"
FULL = [Cell(body, many) for body in ("1 KB", "200 KB", LAST, "8 MB") for many in (1, 16, 64)]
QUICK = [Cell("1 KB", 1), Cell("1 KB", 16), Cell("200 KB", 1), Cell("200 KB", 16), Cell(LAST, 1), Cell("8 MB", 1)]
TWICE = "8 MB that has to be read whole"
NUMBERS = "8 MB of numbers that has to be read whole"
MISSING = {
    "wrk": "wrk, which makes the load, is not installed: sudo apt-get install wrk, or brew install wrk",
    "docker": "docker is not installed: the contenders run in containers",
}
NGINX = ("bare", "plain", "unkept", "tandem")


def arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.routing.bench", description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="under 2 minutes: fewer cells and rounds, and nobody else's router"
    )
    parser.add_argument("--rounds", type=int, help="how often each cell is measured (5, or 3 with --quick)")
    parser.add_argument("--work", type=Path, help="a folder for venvs and logs, kept (default: a temporary one)")
    parser.add_argument("--without", action="append", default=[], choices=sorted(bench_rivals.RIVALS), help="leave out")
    parser.add_argument("--image", default=IMAGE, help="the router's image")
    parser.add_argument("--project", default="tandem-bench", help="what the containers' names begin with")
    return parser.parse_args(argv)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def bodies(folder: Path) -> dict[str, Path]:
    """Write what is sent."""
    name, _ = model()
    made = {
        "1 KB": chat(SIZES["1 KB"], name),
        "200 KB": chat(SIZES["200 KB"], name),
        LAST: chat(SIZES["200 KB"], name, "end"),
        "8 MB": chat(SIZES["8 MB"], name),
        TWICE: chat(SIZES["8 MB"], name, "twice"),
        NUMBERS: numbers(SIZES["8 MB"], name),
    }
    paths = {}
    for number, (called, body) in enumerate(made.items()):
        paths[called] = folder / f"body-{number}.json"
        paths[called].write_bytes(body)
    return paths


@contextlib.contextmanager
def contenders(machine: Machine, rivals: list[str], small: Path) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Start everybody, and give them with what is to be said of each."""
    with contextlib.ExitStack() as stack:
        to = free_port()
        stack.enter_context(machine.nginx("upstream", to, bench_nginx.upstream(to)))
        found = [Contender("bare", to, machine.pid("upstream"))]
        for name in ("plain", "unkept"):
            port = free_port()
            stack.enter_context(machine.nginx(name, port, bench_nginx.plain(port, to, kept=name == "plain")))
            asked = (lambda cell: True) if name == "plain" else (lambda cell: cell.body == "1 KB")
            found.append(Contender(name, port, machine.pid(name), asked=asked))
        port = stack.enter_context(machine.router(to))
        found.append(Contender("tandem", port, machine.pid("tandem")))
        notes = {"nginx": machine.versions()}
        for name in rivals:
            rival = bench_rivals.RIVALS[name]
            say(f"{rival.name}: installing and starting it")
            try:
                running = bench_rivals.running(rival, machine.folder, to, model()[0], small.read_bytes())
                port, pid = stack.enter_context(running)
            except bench_rivals.UnavailableError as error:
                notes[rival.name] = f"left out, {error}"
                say(f"{rival.name}: {notes[rival.name]}")
                continue
            notes[rival.name] = bench_rivals.version(rival, machine.folder)
            found.append(Contender(name, port, pid, patience=rival.patience))
        yield found, notes


def check(found: list[Contender], paths: dict[str, Path]) -> None:
    """Ask everybody for everything once: who refuses fast is not fast. Numbers are no chat: only nginx gets them."""
    for contender in found:
        for called, path in paths.items():
            if called == NUMBERS and contender.name not in NGINX:
                continue
            wrong = trouble(contender.port, path.read_bytes(), counted=contender.name in NGINX)
            if wrong:
                raise CannotMeasureError(f"{contender.name}, {called}: {wrong}")


def machine_text() -> str:
    """What the run ran on."""
    name = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores ({name}), Linux {platform.release()}"


def measure(options: argparse.Namespace, folder: Path) -> tuple[Results, dict[str, str], int]:
    """Run all rounds."""
    rivals = [name for name in ("vllm-router", "litellm") if name not in options.without and not options.quick]
    cells, rounds = (QUICK, options.rounds or 3) if options.quick else (FULL, options.rounds or 5)
    paths, results = bodies(folder), Results()
    kinds = {kind: paths[kind] for kind in ((TWICE,) if options.quick else ("8 MB", TWICE, NUMBERS))}
    with contenders(Machine(options.image, options.project, folder), rivals, paths["1 KB"]) as (found, notes):
        check(found, paths)
        two = [one for one in found if one.name in ("plain", "tandem")]
        three = [one for one in found if one.name in ("bare", "plain", "tandem")]
        paced = [one for one in found if one.name != "unkept"]
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            bench_measure.one_round(results, number, cells, found, paths)
            barred = [cell for cell in cells if cell.size in bench_bars.BARS]
            bench_measure.more_pairs(results, barred, *two, paths, 1 if options.quick else PAIRS)
            if not options.quick:
                bench_measure.one_pace(results, number, cells, paced, paths)
            bench_measure.one_turn(results, paths, three)
            bench_measure.one_wait(results, number, kinds, two, paths["1 KB"], os.cpu_count() or 1)
    return results, notes, rounds


def main() -> int:
    """Measure and print; exit 1 when a bar is not met."""
    options = arguments(sys.argv[1:])
    missing = [text for program, text in MISSING.items() if not shutil.which(program)]
    if missing:
        say("\n".join(missing))
        return 2
    started, load = time.monotonic(), os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        folder = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tandem-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results, notes, rounds = measure(options, folder.resolve())
        except CannotMeasureError as error:
            say(str(error))
            return 2
    names, calm, times = bench_tables.who(results.cells), bench_tables.who(results.paced), bench_tables.times
    verdict = bench_bars.bars(results)
    said = "; ".join(f"{name} {note}" for name, note in notes.items())
    sections = {
        "": f"{machine_text()}; load {load:.1f} before. {said}. {rounds} rounds, {time.monotonic() - started:.0f} s."
        + bench_tables.noise(results),
        "Bars": f"{bench_bars.text(verdict)}\n\n{bench_bars.at_full_load(results)}".strip(),
        "Requests in turn over one connection each, median, ms": bench_tables.turns(results),
        "At one rate for all, median, ms": times(results.paced, calm, lambda sample: sample.median),
        "At one rate for all, 99th percentile, ms": times(results.paced, calm, lambda sample: sample.p99),
        "At full load, median, ms": times(results.cells, names, lambda sample: sample.median),
        "At full load, 99th percentile, ms": times(results.cells, names, lambda sample: sample.p99),
        "Requests a second": bench_tables.rates(results, names),
        "CPU per request, ms of a core": bench_tables.cpu(results, [name for name in names if name != "bare"]),
        "Plain nginx with and without connections that are kept": bench_tables.unkept(results),
        "1 KB behind large bodies, ms": bench_tables.waits(results),
        "Errors": "\n".join(f"- {line}" for line in bench_tables.faults(results)),
    }
    print("\n\n".join(f"### {title}\n\n{text}" if title else text for title, text in sections.items() if text))
    return 0 if all(bar.met for bar in verdict) else 1


if __name__ == "__main__":
    sys.exit(main())
