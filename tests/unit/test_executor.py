"""Operations are done in their order, and a server that does not become ready is stopped and its cause told."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import TandemError
from orchestrator.executor import Executor
from orchestrator.plan import Kind, Operation
from orchestrator.profiles import Profile
from orchestrator.progress import Phase
from orchestrator.pulls import Event
from orchestrator.states import Container
from tests.unit.values import container, profile, project

UP = "docker compose --profile qwen-14b --progress plain up -d --no-build --pull never"
PULL = "pull Qwen/Qwen2.5-14B-Instruct"
STARTING = container("qwen-14b", "running", "starting")
READY = container("qwen-14b")


class Engine:
    """Docker as the test tells it: seen are the looks at the server, one after another, the last one for ever."""

    project = "tandem"

    def __init__(self, did: list[str], folder: Path) -> None:
        self.did = did
        self.folder = folder
        self.seen: list[Container | None] = [READY]
        self.says = ["=0"]
        self.logged: list[str] = []
        self.refusal: str | None = None

    def another(self) -> "Engine":
        raise ConnectionError("the thread that follows a log finds nobody here")

    def container(self, service: str) -> Container | None:
        assert service == "qwen-14b"
        return self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]

    def gpu_refusal(self, image: str, gpus: Sequence[int]) -> str | None:
        self.did.append(f"reserve {list(gpus)} with {image}")
        return self.refusal

    def stop(self, service: str) -> None:
        self.did.append(f"stop {service}")

    def signal(self, service: str, signal: str) -> None:
        self.did.append(f"signal {service} {signal}")

    def stream(self, argv: list[str]) -> Iterator[str]:
        self.did.append(" ".join(argv))
        yield from self.says

    def remove(self, service: str) -> None:
        self.did.append(f"remove {service}")

    def restarts(self, service: str, policy: str) -> None:
        self.did.append(f"restart {service}: {policy}")

    def log(self, name: str, *, tail: int) -> Iterable[str]:
        self.did.append(f"log {name}")
        return self.logged[-tail:]


class Stage:
    """An executor with nothing real around it. What it does to the world is in did, what it shows in shown."""

    def __init__(self, folder: Path, **said: object) -> None:
        self.did: list[str] = []
        self.shown: list[str] = []
        self.answers: list[str | None] = [None]
        # What a pull says, and what it ends with.
        self.events: list[str | BaseException] = []
        self.interrupted = False
        self.now = 1000.0
        self.target: Profile = profile(ready_timeout=2, **said)
        self.engine = Engine(self.did, folder)
        self.executor = Executor(
            project(self.target, folder=folder),
            self.engine,
            self,
            answers=self.answer,
            builds=self.build,
            pulls=self.pull,
            clock=lambda: self.now,
            pause=self.pause,
        )

    def phase(self, phase: Phase, text: str) -> None:
        self.shown.append(f"{phase}: {text}")

    def close(self) -> None:
        raise AssertionError("the view is its owner's to close")

    def pause(self, seconds: float) -> None:
        self.did.append("pause")
        self.now += seconds
        if self.interrupted:
            raise KeyboardInterrupt

    def answer(self, address: str, model: str) -> str | None:
        self.did.append(f"ask {model} at {address}")
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def build(self, whole: object, engine: object, images: Iterable[str], say: object) -> None:
        assert (whole, engine) == (self.executor.project, self.engine)
        self.did.append(f"build {' '.join(images)}")
        say("#5 DONE")

    def pull(self, whole: object, engine: object, target: Profile) -> Generator[Event, None, None]:
        assert (whole, engine) == (self.executor.project, self.engine)
        self.did.append(f"pull {target.model}")
        try:
            for said in self.events:
                if isinstance(said, BaseException):
                    raise said
                yield Event("progress", said, {})
        finally:
            self.did.append("pull ended")

    def run(self, *steps: tuple[Kind, str]) -> None:
        self.executor.run(self.target, [Operation(kind, subject, "the test says so") for kind, subject in steps])

    def fails(self, *steps: tuple[Kind, str]) -> str:
        with pytest.raises(TandemError) as caught:
            self.run(*steps)
        return str(caught.value)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_operations_are_done_one_after_another_in_their_order(stage: Stage) -> None:
    stage.run(
        ("render", "compose.models.yaml"),
        ("build", "tandem/router:0.1.0"),
        ("start", "router"),
        ("check", "GPUs 0, 1"),
        ("build", "tandem/vllm:0.32.0-cu130"),
        ("pull", "Qwen/Qwen2.5-14B-Instruct"),
        ("stop", "deepseek-14b"),
        ("start", "qwen-14b"),
        ("reload", "router"),
        ("wait", "qwen-14b"),
    )
    assert stage.did == [
        "build tandem/router:0.1.0",
        f"{UP} router",
        "reserve [0, 1] with tandem/router:0.1.0",
        "build tandem/vllm:0.32.0-cu130",
        PULL,
        "pull ended",
        "stop deepseek-14b",
        f"{UP} qwen-14b",
        "restart qwen-14b: no",
        "signal router SIGHUP",
        "ask qwen-14b at http://localhost:8000",
        "restart qwen-14b: unless-stopped",
    ]
    assert stage.shown == [
        "image: building tandem/router:0.1.0",
        "image: #5 DONE",
        "container: router created",
        "image: building tandem/vllm:0.32.0-cu130",
        "image: #5 DONE",
        "weights: looking for Qwen/Qwen2.5-14B-Instruct in the volume",
        "container: stopping deepseek-14b, which the test says so",
        "container: creating qwen-14b",
        "container: qwen-14b created",
        "weights: Qwen/Qwen2.5-14B-Instruct is in the volume",
        "engine: waiting for the server",
        "ready: asking for a first token",
    ]


def test_an_empty_plan_does_and_shows_nothing(stage: Stage) -> None:
    stage.run()
    assert (stage.did, stage.shown) == ([], [])


def test_where_nothing_is_built_the_images_are_said_to_be_here(stage: Stage) -> None:
    stage.run(("reload", "router"))
    assert stage.shown == ["image: on this machine"]


def test_only_the_file_that_is_named_is_rendered(stage: Stage, tmp_path: Path) -> None:
    stage.run(("render", "env/qwen-14b.env"))
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()] == ["env/qwen-14b.env"]
    expected = {file.path: file.text for file in stage.executor.project.rendered()}
    assert (tmp_path / "env/qwen-14b.env").read_text(encoding="utf-8") == expected["env/qwen-14b.env"]


def test_what_follows_a_failed_operation_is_not_done(stage: Stage) -> None:
    stage.engine.says = ["Error response from daemon: Bind for 0.0.0.0:8000 failed: port is already allocated", "=1"]
    assert stage.fails(("start", "router"), ("stop", "deepseek-14b"), ("start", "qwen-14b")) == (
        "router could not be started: Error response from daemon: Bind for 0.0.0.0:8000 failed: port is already"
        " allocated\n"
        "  the port is taken. Set TANDEM_PORT in .env to a free one, or stop what holds it ('ss -ltnp' shows it)."
    )
    assert stage.did == [f"{UP} router"]


def test_gpus_that_docker_cannot_reserve_end_it_before_anything_is_stopped(stage: Stage) -> None:
    stage.engine.refusal = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    assert stage.fails(("check", "GPUs 0, 1"), ("stop", "deepseek-14b")) == (
        'qwen-14b cannot reserve its GPUs: could not select device driver "nvidia" with capabilities: [[gpu]]\n'
        "  this machine has no NVIDIA runtime for Docker. With GPUs: install the NVIDIA Container Toolkit, then "
        "'sudo nvidia-ctk runtime configure' and restart Docker. Without: 'python -m orchestrator up demo'."
    )
    assert stage.did == ["reserve [0, 1] with tandem/router:0.1.0"]


def test_the_lines_of_a_pull_are_its_progress(stage: Stage) -> None:
    stage.events = ["asking ModelScope", "pulling: 42% of 29.6 GB", "complete: 29.6 GB"]
    stage.run(("pull", "Qwen/Qwen2.5-14B-Instruct"))
    assert stage.shown == [
        "image: on this machine",
        "weights: looking for Qwen/Qwen2.5-14B-Instruct in the volume",
        "weights: asking ModelScope",
        "weights: pulling: 42% of 29.6 GB",
        "weights: complete: 29.6 GB",
    ]


def test_a_pull_that_fails_stops_no_other_model_and_says_why(stage: Stage) -> None:
    line = "could not pull Qwen/Qwen2.5-14B-Instruct (master): ModelScope does not answer"
    stage.events = ["asking ModelScope", TandemError(line)]
    assert stage.fails(("pull", "Qwen/Qwen2.5-14B-Instruct"), ("stop", "deepseek-14b")) == (
        f"qwen-14b has no weights: {line}"
    )
    assert stage.did == [PULL, "pull ended"]
    assert stage.executor.unfinished is None


def test_a_command_that_ends_without_a_word_failed_without_a_word(stage: Stage) -> None:
    stage.engine.says = ["=137"]
    assert stage.fails(("start", "qwen-14b")) == "qwen-14b could not be started: it said nothing"


def test_a_server_is_unfinished_from_its_start_until_it_is_ready_and_the_router_never(stage: Stage) -> None:
    stage.run(("start", "router"))
    assert stage.executor.unfinished is None
    stage.run(("start", "qwen-14b"))
    assert stage.executor.unfinished == "qwen-14b"
    stage.run(("wait", "qwen-14b"))
    assert stage.executor.unfinished is None


def test_a_server_is_looked_at_until_it_is_healthy_and_answers(stage: Stage) -> None:
    stage.engine.seen = [STARTING, STARTING, READY]
    stage.answers = ["503: not yet", None]
    stage.run(("wait", "qwen-14b"))
    asked = "ask qwen-14b at http://localhost:8000"
    assert stage.did == ["pause", "pause", asked, "pause", asked]


def test_the_first_token_is_asked_for_with_the_name_that_clients_send(tmp_path: Path) -> None:
    stage = Stage(tmp_path, served_model_name="qwen", model="./mine")
    stage.run(("wait", "qwen-14b"))
    assert stage.did == ["ask qwen at http://localhost:8000"]
    assert stage.shown == [
        "image: on this machine",
        "weights: ./mine is a folder here",
        "engine: waiting for the server",
        "ready: asking for a first token",
    ]


LOG = [
    "(EngineCore pid=25) ERROR 11-23 09:12:31 [core.py:1510] RuntimeError: Cannot find any model weights",
    "RuntimeError: Engine core initialization failed. See root cause above.",
]
DIED = (
    "qwen-14b died while starting: RuntimeError: Cannot find any model weights\n"
    "  The rest: python -m orchestrator logs qwen-14b"
)


@pytest.mark.parametrize(
    "end",
    [
        container("qwen-14b", "exited", "", exit_code=1),
        container("qwen-14b", "exited", "", exit_code=0),
        container("qwen-14b", "restarting", "", exit_code=1),
        container("qwen-14b", "running", "unhealthy"),
        container("qwen-14b", "dead", "", exit_code=1),
        # It runs again already: Docker started it anew between two looks.
        replace(STARTING, restarts=1),
    ],
)
def test_a_server_that_dies_while_starting_is_stopped_and_its_cause_told(stage: Stage, end: Container) -> None:
    stage.engine.seen = [STARTING, end]
    stage.engine.logged = LOG
    assert stage.fails(("wait", "qwen-14b")) == DIED
    assert stage.did == ["pause", "log tandem-qwen-14b", "stop qwen-14b"]
    assert stage.executor.unfinished is None


def test_a_server_of_this_run_that_died_before_the_first_look_has_died_too(stage: Stage) -> None:
    stage.engine.seen = [replace(STARTING, restarts=1)]
    stage.engine.logged = LOG
    assert stage.fails(("start", "qwen-14b"), ("wait", "qwen-14b")) == DIED


def test_a_death_before_this_wait_began_does_not_count(stage: Stage) -> None:
    stage.engine.seen = [replace(STARTING, restarts=2), replace(READY, restarts=2)]
    stage.run(("wait", "qwen-14b"))
    assert stage.did == ["pause", "ask qwen-14b at http://localhost:8000"]


def test_the_cause_is_looked_for_in_the_last_600_lines(stage: Stage) -> None:
    stage.engine.seen = [container("qwen-14b", "exited", "", exit_code=1)]
    stage.engine.logged = ["ValueError: too long ago", *["x"] * 599, "the last line"]
    assert stage.fails(("wait", "qwen-14b")).splitlines()[0] == "qwen-14b died while starting: the last line"
    stage.engine.logged = ["ValueError: just in time", *["x"] * 598, "the last line"]
    assert stage.fails(("wait", "qwen-14b")).splitlines()[0] == "qwen-14b died while starting: ValueError: just in time"


def test_a_server_that_is_never_healthy_is_stopped_when_its_time_is_over(stage: Stage) -> None:
    stage.engine.seen = [STARTING]
    stage.engine.logged = ["still loading"]
    assert stage.fails(("wait", "qwen-14b")) == (
        "qwen-14b was not ready in 2 s: it never became healthy: still loading\n"
        "  The rest: python -m orchestrator logs qwen-14b"
    )
    assert stage.did == ["pause"] * 4 + ["log tandem-qwen-14b", "stop qwen-14b"]
    assert stage.executor.unfinished is None


def test_a_server_that_is_healthy_and_does_not_answer_is_stopped_too(stage: Stage) -> None:
    stage.answers = ["500: EngineDeadError", "no answer from http://localhost:8000: timed out"]
    stage.engine.logged = ["ValueError: no such tensor"]
    assert stage.fails(("wait", "qwen-14b")) == (
        "qwen-14b was not ready in 2 s: it is healthy but does not answer: no answer from http://localhost:8000:"
        " timed out: ValueError: no such tensor\n"
        "  The rest: python -m orchestrator logs qwen-14b"
    )
    assert stage.did[-2:] == ["log tandem-qwen-14b", "stop qwen-14b"]
    assert stage.did.count("ask qwen-14b at http://localhost:8000") == 5


def test_a_server_that_someone_removes_is_not_waited_for(stage: Stage) -> None:
    stage.engine.seen = [STARTING, None]
    assert stage.fails(("wait", "qwen-14b")) == "qwen-14b was removed while it started"
    assert stage.did == ["pause"]


def test_abandon_takes_away_the_server_that_is_not_ready_yet(stage: Stage) -> None:
    stage.run(("start", "router"), ("start", "qwen-14b"))
    stage.did.clear()
    stage.executor.abandon()
    assert (stage.did, stage.executor.unfinished) == (["remove qwen-14b"], None)
    stage.executor.abandon()
    assert stage.did == ["remove qwen-14b"]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("start", "router")],
        [("pull", "Qwen/Qwen2.5-14B-Instruct")],
        [("start", "qwen-14b"), ("wait", "qwen-14b")],
    ],
)
def test_abandon_leaves_alone_what_is_ready_or_was_there_before(stage: Stage, steps: list[tuple[Kind, str]]) -> None:
    stage.run(*steps)
    stage.did.clear()
    stage.executor.abandon()
    assert stage.did == []


def test_abandon_leaves_alone_a_server_that_someone_else_started(stage: Stage) -> None:
    interrupt(stage, ("wait", "qwen-14b"))
    stage.executor.abandon()
    assert stage.did == ["pause"]


def test_abandon_takes_away_what_this_run_started_when_it_is_interrupted_waiting(stage: Stage) -> None:
    interrupt(stage, ("start", "qwen-14b"), ("wait", "qwen-14b"))
    stage.executor.abandon()
    assert stage.did == [f"{UP} qwen-14b", "restart qwen-14b: no", "pause", "remove qwen-14b"]


def test_an_interrupted_pull_has_ended_before_the_interruption_is_told(stage: Stage) -> None:
    stage.events = ["asking ModelScope", KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("pull", "Qwen/Qwen2.5-14B-Instruct"), ("start", "qwen-14b"))
    assert stage.did == [PULL, "pull ended"]
    stage.executor.abandon()
    assert stage.did == [PULL, "pull ended"]


def test_a_pull_ends_with_what_shows_it(tmp_path: Path) -> None:
    class Broken(Stage):
        def phase(self, phase: Phase, text: str) -> None:
            if text == "one":
                raise BrokenPipeError

    stage = Broken(tmp_path)
    stage.events = ["one", "two"]
    with pytest.raises(BrokenPipeError):
        stage.run(("pull", "Qwen/Qwen2.5-14B-Instruct"))
    assert stage.did == [PULL, "pull ended"]


def interrupt(stage: Stage, *steps: tuple[Kind, str]) -> None:
    """Ctrl-C at the first pause of a start that is under way."""
    stage.engine.seen = [STARTING]
    stage.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        stage.run(*steps)


def test_docker_starts_a_server_again_only_after_it_has_been_ready_once(stage: Stage) -> None:
    stage.engine.seen = [STARTING, READY]
    stage.run(("start", "qwen-14b"), ("wait", "qwen-14b"))
    assert stage.did == [
        f"{UP} qwen-14b",
        "restart qwen-14b: no",
        "pause",
        "ask qwen-14b at http://localhost:8000",
        "restart qwen-14b: unless-stopped",
    ]


def test_a_server_whose_start_was_left_to_itself_is_kept_when_it_is_ready(stage: Stage) -> None:
    stage.engine.seen = [replace(READY, restarts_itself=False)]
    stage.run(("wait", "qwen-14b"))
    assert stage.did == ["ask qwen-14b at http://localhost:8000", "restart qwen-14b: unless-stopped"]


def test_a_server_that_is_to_be_kept_is_kept(stage: Stage) -> None:
    stage.run(("keep", "qwen-14b"))
    assert stage.did == ["restart qwen-14b: unless-stopped"]
