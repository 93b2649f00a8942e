"""The commands `bench NAME`, `bench flags` and `bench compare`, beside `bench switch`: reads arguments, calls parts."""

import json
import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator import cli_measure, session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.ask import Activator
    from orchestrator.engine import Engine
    from orchestrator.errors import TandemError
    from orchestrator.load.results import Options, Result
    from orchestrator.load.trial import Runs as RunsOperations
    from orchestrator.plan import Operation
    from orchestrator.profiles import Profile
    from orchestrator.project import Project

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
# Where results are kept, in the project's folder; git ignores it.
PLACE = "results/bench"
# A request waits for its turn in the router and in vLLM; far above what either takes.
MOST_AT_ONCE = 1024


Name = Annotated[str, typer.Argument(metavar="NAME", help="A profile that is up, or a name that clients send.")]
Concurrency = Annotated[str, typer.Option(metavar="N,N", help="How many requests at once, one after the other.")]
Input = Annotated[int, typer.Option("--input", min=1, help="Tokens of each prompt.")]
Output = Annotated[int, typer.Option("--output", min=2, help="Tokens of each answer.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs at each concurrency.")]
Warmups = Annotated[int, typer.Option(min=0, help="Answers to each of those at once before that.")]
Per = Annotated[int, typer.Option(min=1, help="Requests of a run, for each at once.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it too, into a new file; needs matplotlib.")]


class _Names(TyperGroup):
    """Takes a first word that is none of the commands for a model's name: `bench demo` is `bench run demo`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Names,
    subcommand_metavar="NAME [OPTIONS] | COMMAND [ARGS]...",
    help="Measure on this machine: 'bench NAME' how fast a model that is up answers (its options: 'bench run --help'), "
    "'bench flags NAME' the same with other flags, 'bench switch' how long switches take.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip


@app.callback()
def _group() -> None:
    pass


app.command()(cli_measure.switch)


@app.command()
def run(  # noqa: PLR0913, PLR0917 (options)
    context: typer.Context,
    name: Name,
    concurrency: Concurrency = "1,4,16,64",
    tokens_in: Input = 512,
    tokens_out: Output = 128,
    runs: Runs = 5,
    warmups: Warmups = 3,
    per: Per = 4,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Measure how fast a model that is up answers, with vLLM's own benchmark: `bench NAME`, or `bench run NAME`.

    It asks through the router, as a client does, with random prompts, and never brings a model up. Other requests
    meanwhile spoil the numbers. Exits with 1 when a request failed.
    """
    from orchestrator.ask import activator
    from orchestrator.load import words
    from orchestrator.load.run import Load, keep

    options = _options(concurrency, tokens_in, tokens_out, per, runs, warmups)
    _paper(plot)
    whole = session.project(context)
    profile = _profile(whole, name, options)
    with _nothing_kept():
        result = Load(whole, session.engine(whole), activator(whole), profile, session.say).measure(options)
    path = keep(whole.folder / PLACE, result)
    shown = str(path.relative_to(whole.folder))
    fault = _drawn(plot, (path.stem, result))
    if as_json:
        print(json.dumps({"file": str(path), **_plotted(plot, fault), **result.model_dump()}))
    else:
        print("\n".join([words.text(result, shown), *_told(plot, fault)]))
    if fault:
        raise fault
    if result.failed:
        raise typer.Exit(1)


@app.command()
def flags(  # noqa: PLR0913, PLR0917 (options)
    context: typer.Context,
    name: Name,
    against: Annotated[str, typer.Option(metavar='"FLAGS"', help="Flags of vllm serve, which come after its own.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often the two take turns.")] = 1,
    concurrency: Concurrency = "1,4,16,64",
    tokens_in: Input = 512,
    tokens_out: Output = 128,
    runs: Runs = 5,
    warmups: Warmups = 3,
    per: Per = 4,
    as_json: Json = False,
) -> None:
    """Measure a model that is up with other flags and with its own in turn, and compare: A its own, B the others.

    Each turn is a start of the server; requests for it wait meanwhile. Its own flags come back at the end, also after
    Ctrl-C or a failure, and models.toml stays as it is. Both results are kept. Exits with 1 when a request failed.
    """
    from orchestrator import states
    from orchestrator.ask import activator
    from orchestrator.load import compare as comparing
    from orchestrator.load import flags as given
    from orchestrator.load.run import Load, keep
    from orchestrator.load.trial import Trial

    more = given.read(against)
    options = _options(concurrency, tokens_in, tokens_out, per, runs, warmups)
    whole = session.project(context)
    profile = _profile(whole, name, options)
    engine, asked = session.engine(whole), activator(whole)
    # As for `up`: the container is to have the same image again.
    choice = whole.choice(profile)
    if choice.automatic:
        engine.environment["TANDEM_VLLM"] = choice.build.tag

    def load() -> Load:
        return Load(whole, engine, asked, profile, session.say)

    load().check()
    trial = Trial(
        whole, engine, profile, session.say,
        measure=lambda wanted: load().measure(wanted), run=_operations(whole, engine, asked, profile),
        taken=lambda: states.rivals(asked.require(), profile.name, profile.gpus),
    )  # fmt: skip
    with _nothing_kept():
        own, other = trial.turns(options, more, rounds)
    paths = [keep(whole.folder / PLACE, result) for result in (own, other)]
    names = paths[0].stem, paths[1].stem
    if as_json:
        print(json.dumps({"files": [str(path) for path in paths], **comparing.values(own, other, names, [])}))
    else:
        print(comparing.text(own, other, names, []))
        print(f"kept in {PLACE}, in the order B, A" + (f", {rounds} times" if rounds > 1 else ""))
    if own.failed or other.failed:
        raise typer.Exit(1)


@contextmanager
def _nothing_kept() -> "Iterator[None]":
    """End with 130 when Ctrl-C comes meanwhile."""
    try:
        yield
    except KeyboardInterrupt:
        session.say("interrupted; nothing is kept")
        raise typer.Exit(130) from None


def _operations(whole: "Project", engine: "Engine", asked: "Activator", profile: "Profile") -> "RunsOperations":
    from orchestrator import view
    from orchestrator.executor import Executor

    def run(operations: "Sequence[Operation]", files: "Sequence[str]") -> None:
        with closing(view.choose(os.environ.get("TERM"))) as shown:
            Executor(whole, engine, asked, shown).run(profile, operations, files)

    return run


def _profile(whole: "Project", name: str, options: "Options") -> "Profile":
    """Find the profile that is meant, and see that it can be measured and the result be kept."""
    from orchestrator.errors import TandemError
    from orchestrator.load.run import prepare, refuse

    try:
        profile = whole.profile(name)
    except TandemError as error:
        raise TandemError(f"{error}; bench has the commands {', '.join(sorted(_commands()))} too") from None
    refuse(whole, profile, options)
    prepare(whole.folder / PLACE)
    return profile


def _commands() -> set[str]:
    return {str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback}


def _options(concurrency: str, tokens_in: int, tokens_out: int, per: int, runs: int, warmups: int) -> "Options":
    from orchestrator.load.results import Options

    at_once = _at_once(concurrency)
    return Options(input=tokens_in, output=tokens_out, per=per, runs=runs, warmups=warmups, concurrency=at_once)


def _at_once(text: str) -> tuple[int, ...]:
    from orchestrator.errors import TandemError

    given = [word.strip() for word in text.split(",")]
    wrong = [word for word in given if not (word.isascii() and word.isdigit() and 1 <= int(word) <= MOST_AT_ONCE)]
    if wrong or len({int(word) for word in given}) < len(given):
        what = f"should be numbers from 1 to {MOST_AT_ONCE}, each once, such as 1,4,16"
        raise TandemError(f'--concurrency: {what}, got "{text}"')
    return tuple(map(int, given))


@app.command()
def compare(
    context: typer.Context,
    a: Annotated[str, typer.Argument(metavar="A", help="A result: its file, its name, or latest.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, which is compared with it.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where they measured different things.")] = False,
    plot: Plot = None,
    as_json: Json = False,
) -> None:
    """Compare two results of `bench NAME`: the ratio at each concurrency, and whether it is beyond the spread."""
    from orchestrator.errors import TandemError
    from orchestrator.load import compare as comparing

    _paper(plot)
    place = session.project(context).folder / PLACE
    one, other = _result(place, a), _result(place, b)
    against = comparing.obstacles(one[1], other[1])
    if against and not anyway:
        raise TandemError(
            f"{a} and {b} did not measure the same, so a ratio means little:\n  "
            + "\n  ".join(against)
            + "\n  --anyway compares them all the same"
        )
    names = one[0].stem, other[0].stem
    fault = _drawn(plot, (names[0], one[1]), (names[1], other[1]))
    if as_json:
        print(json.dumps({**comparing.values(one[1], other[1], names, against), **_plotted(plot, fault)}))
    else:
        print("\n".join([comparing.text(one[1], other[1], names, against), *_told(plot, fault)]))
    if fault:
        raise fault


def _paper(path: Path | None) -> None:
    """See that a picture that was asked for can be drawn, before anything else is done."""
    if path is not None:
        from orchestrator.load import plot

        plot.prepare(path)


def _drawn(path: Path | None, *named: "tuple[str, Result]") -> "TandemError | None":
    """Draw results, each with its name, if that was asked for; why it failed, so that the figures are told first."""
    from orchestrator.errors import TandemError

    if path is None:
        return None
    from orchestrator.load import chart, plot

    try:
        plot.draw(chart.describe(*named), path)
    except TandemError as error:
        return error
    except KeyboardInterrupt:
        stopped = TandemError("interrupted; nothing is drawn")
        stopped.exit_code = 130
        return stopped
    return None


def _told(path: Path | None, fault: "TandemError | None") -> list[str]:
    return [f"drawn in {path}"] if path and not fault else []


def _plotted(path: Path | None, fault: "TandemError | None") -> dict[str, str]:
    return {"plot": str(path.absolute())} if path and not fault else {}


def _result(place: Path, name: str) -> "tuple[Path, Result]":
    from orchestrator.load.results import load
    from orchestrator.load.run import find
    from orchestrator.project import text_of

    path = find(place, name)
    return path, load(text_of(path), str(path))
