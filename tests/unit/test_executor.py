"""Operations are done in their order, and the switch is the activator's: the executor asks, shows and waits."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator import executor
from orchestrator.ask import Told
from orchestrator.doctor.nccl import Result
from orchestrator.errors import TandemError
from orchestrator.executor import Executor
from orchestrator.http import SilentError
from orchestrator.plan import Kind, Operation
from orchestrator.profiles import Profile
from orchestrator.progress import Phase
from orchestrator.project import write
from orchestrator.pulls import Event
from orchestrator.render.activator import PATH as RENDERED
from orchestrator.render.activator import activator as rendered
from orchestrator.render.file import File
from orchestrator.states import Container
from tests.unit.values import profile, project

COMPOSE = "docker compose --profile qwen-14b --progress plain up"
UP = f"{COMPOSE} -d --no-build --pull never"
CREATE = f"{COMPOSE} --no-start --no-deps --no-build --pull never qwen-14b"
PULL = "pull Qwen/Qwen2.5-14B-Instruct"
READY = Told("qwen-14b", "ready", "ready")


class Engine:
    """Docker as the test tells it."""

    project = "tandem"

    def __init__(self, did: list[str], folder: Path) -> None:
        self.did = did
        self.folder = folder
        # What each command of Compose says, the last for ever.
        self.says = [["=0"]]
        self.refusal: str | None = None

    def container(self, service: str) -> Container | None:
        raise AssertionError(f"the state of {service} is the activator's to know")

    def gpu_refusal(self, image: str, gpus: Sequence[int]) -> str | None:
        self.did.append(f"reserve {list(gpus)} with {image}")
        return self.refusal

    def signal(self, service: str, signal: str) -> None:
        self.did.append(f"signal {service} {signal}")

    def stream(self, argv: list[str]) -> Iterator[str]:
        self.did.append(" ".join(argv))
        yield from self.says.pop(0) if len(self.says) > 1 else self.says[0]


class Activator:
    """An activator that says what a test tells it: for each `up` a list of phases, which an error may end."""

    def __init__(self, did: list[str]) -> None:
        self.did = did
        self.silent = 0
        self.shut = ""
        self.away = "at http://localhost:8000: connection refused"
        # What it says is up, one look after the other, the last for ever.
        self.looks: list[dict[str, Any]] = [{}]
        self.ups: list[list[Told | BaseException]] = [[READY]]

    def check(self) -> None:
        if self.shut:
            raise TandemError(self.shut)

    def status(self) -> dict[str, Any] | None:
        self.silent -= 1
        if self.silent >= 0:
            return None
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def phases(self, verb: str, model: str, *, bound: bool) -> Generator[Told, None, None]:
        self.did.append(f"ask {verb} {model}{' bound' if bound else ''}")
        try:
            for told in self.ups.pop(0) if len(self.ups) > 1 else self.ups[0]:
                if isinstance(told, BaseException):
                    raise told
                yield told
        finally:
            self.did.append("heard")

    def do(self, verb: str, model: str, show: Any) -> Told:
        self.did.append(f"ask {verb} {model}")
        show(Told(model, "drain", "2 requests in flight"))
        return Told(model, "stopped")


class Stage:
    """An executor with nothing real around it. What it does to the world is in did, what it shows in shown."""

    def __init__(self, folder: Path, **said: object) -> None:
        self.did: list[str] = []
        self.shown: list[str] = []
        # What a pull says, and what it ends with.
        self.events: list[str | BaseException] = []
        self.now = 1000.0
        self.tried: Result | TandemError = Result("works", "nccl")
        self.target: Profile = profile(**said)
        self.engine = Engine(self.did, folder)
        self.activator = Activator(self.did)
        self.executor = Executor(
            project(self.target, folder=folder),
            self.engine,
            self.activator,
            self,
            builds=self.build,
            pulls=self.pull,
            tries=self.try_,
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

    def build(self, whole: object, engine: object, images: Iterable[str], say: object) -> None:
        assert (whole, engine) == (self.executor.project, self.engine)
        self.did.append(f"build {' '.join(images)}")
        say("#5 DONE")

    def try_(
        self, whole: object, engine: object, target: Profile, say: Callable[[str], None]
    ) -> tuple[Result, dict[str, str]]:
        assert (whole, engine, target) == (self.executor.project, self.engine, self.target)
        self.did.append("try")
        say("trying")
        if isinstance(self.tried, TandemError):
            raise self.tried
        return self.tried, {"NCCL_P2P_DISABLE": "1"}

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
    stage.activator.ups = [
        [Told("qwen-14b", "stop", "stopping deepseek-14b"), Told("qwen-14b", "start", "", 1, 40), READY]
    ]
    stage.run(
        ("render", "compose.models.yaml"),
        ("build", "tandem/router:0.1.0"),
        ("start", "router"),
        ("start", "activator"),
        ("restart", "engine-proxy"),
        ("check", "GPUs 0, 1"),
        ("build", "tandem/vllm:0.32.0-cu130"),
        ("pull", "Qwen/Qwen2.5-14B-Instruct"),
        ("stop", "qwen-14b"),
        ("create", "qwen-14b"),
        ("create", "demo"),
        ("create", "other"),
        ("reload", "router"),
        ("switch", "qwen-14b"),
    )
    assert stage.did == [
        "build tandem/router:0.1.0",
        f"{UP} router activator",
        f"{UP} --force-recreate --no-deps engine-proxy",
        "reserve [0, 1] with tandem/router:0.1.0",
        "build tandem/vllm:0.32.0-cu130",
        PULL,
        "pull ended",
        "ask down qwen-14b",
        CREATE,
        "docker compose --profile demo --profile other --progress plain up --no-start --no-deps --no-build --pull never"
        " demo other",
        "signal router SIGHUP",
        "ask up qwen-14b bound",
        "heard",
    ]
    assert stage.shown == [
        "image: building tandem/router:0.1.0",
        "image: #5 DONE",
        "container: starting router, activator",
        "container: router, activator started",
        "container: starting engine-proxy",
        "container: engine-proxy started",
        "image: building tandem/vllm:0.32.0-cu130",
        "image: #5 DONE",
        "weights: looking for Qwen/Qwen2.5-14B-Instruct in the volume",
        "drain: 2 requests in flight",
        "container: creating qwen-14b",
        "container: qwen-14b created",
        "container: creating demo, other",
        "container: demo, other created",
        "weights: Qwen/Qwen2.5-14B-Instruct is in the volume",
        "stop: stopping deepseek-14b",
        "start: qwen-14b, about 40 s left",
        "ready: ready",
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
    stage.engine.says = [["Error response from daemon: Bind for 0.0.0.0:8000 failed: port is already allocated", "=1"]]
    assert stage.fails(("start", "router"), ("create", "qwen-14b"), ("switch", "qwen-14b")) == (
        "router could not be started: Error response from daemon: Bind for 0.0.0.0:8000 failed: port is already"
        " allocated\n"
        "  the port is taken. Set TANDEM_PORT in .env to a free one, or stop what holds it ('ss -ltnp' shows it)."
    )
    assert stage.did == [f"{UP} router"]


def test_a_command_that_ends_without_a_word_failed_without_a_word(stage: Stage) -> None:
    stage.engine.says = [["=137"]]
    assert stage.fails(("create", "qwen-14b")) == "qwen-14b could not be created: it said nothing"


def test_a_container_that_nobody_needs_now_may_fail_and_is_told_of(stage: Stage) -> None:
    stage.engine.says = [["Error response from daemon: Conflict. The container name", "=1"], ["=0"]]
    stage.run(("create", "demo"), ("switch", "qwen-14b"))
    assert stage.did[1:] == ["ask up qwen-14b bound", "heard"]
    assert stage.shown[2].startswith("container: no request can start demo: demo could not be created: Error response")


def test_gpus_that_docker_cannot_reserve_end_it_before_anything_is_stopped(stage: Stage) -> None:
    stage.engine.refusal = 'could not select device driver "nvidia" with capabilities: [[gpu]]'
    assert stage.fails(("check", "GPUs 0, 1"), ("create", "qwen-14b")) == (
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


def test_a_pull_that_fails_switches_nothing_and_says_why(stage: Stage) -> None:
    line = "could not pull Qwen/Qwen2.5-14B-Instruct (master): ModelScope does not answer"
    stage.events = ["asking ModelScope", TandemError(line)]
    assert stage.fails(("pull", "Qwen/Qwen2.5-14B-Instruct"), ("switch", "qwen-14b")) == (
        f"qwen-14b has no weights: {line}"
    )
    assert stage.did == [PULL, "pull ended"]


def test_an_interrupted_pull_has_ended_before_the_interruption_is_told(stage: Stage) -> None:
    stage.events = ["asking ModelScope", KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("pull", "Qwen/Qwen2.5-14B-Instruct"), ("switch", "qwen-14b"))
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


def test_an_activator_that_was_just_started_is_waited_for(stage: Stage) -> None:
    stage.activator.silent = 3
    stage.run(("start", "activator"), ("switch", "qwen-14b"))
    assert stage.did == [f"{UP} activator", "pause", "pause", "pause", "ask up qwen-14b bound", "heard"]


def test_an_activator_that_never_answers_is_named_with_its_log(stage: Stage) -> None:
    stage.activator.silent = 10_000
    assert stage.fails(("switch", "qwen-14b")) == (
        "the activator does not answer: nothing in 60 s, at http://localhost:8000: connection refused\n"
        "  Its log: python -m orchestrator logs activator"
    )
    assert set(stage.shown[2:]) == {"container: waiting for the activator to answer"}
    assert stage.did == ["pause"] * round(executor.SILENT_SECONDS / executor.POLL_SECONDS)


def write_models(stage: Stage, *others: Profile) -> str:
    """Render the activator's models, with others beside the target; their digest."""
    whole = stage.executor.project
    file = rendered([stage.target, *others], whole.versions)
    write(whole.folder, [file])
    return str(json.loads(file.text)["digest"])


def test_an_activator_with_older_models_is_waited_for_until_it_has_those_that_were_rendered(stage: Stage) -> None:
    digest = write_models(stage)
    stage.activator.looks = [{"digest": "old", "busy": True}, {"digest": "old", "busy": False}, {"digest": digest}]
    stage.activator.silent = 1
    stage.run(("switch", "qwen-14b"))
    assert stage.did == ["pause", "pause", "pause", "ask up qwen-14b bound", "heard"]
    assert [said for said in stage.shown if "waiting" in said] == [
        "container: waiting for the activator to answer",
        "container: waiting for the activator to take up the models, after what it has under way",
        "container: waiting for the activator to take up the models",
    ]


def test_models_that_somebody_else_rendered_meanwhile_are_waited_for_and_not_those_of_before(stage: Stage) -> None:
    before = write_models(stage)
    other = write_models(stage, profile(name="other"))
    stage.activator.looks = [{"digest": before, "busy": False}, {"digest": other, "busy": False}]
    stage.run(("switch", "qwen-14b"))
    assert stage.did == ["pause", "ask up qwen-14b bound", "heard"]


@pytest.mark.parametrize("text", [None, "half a fi", "[]", "{}"])
def test_an_activator_is_not_waited_for_where_it_has_no_models_to_take_up(stage: Stage, text: str | None) -> None:
    if text is not None:
        write(stage.executor.project.folder, [File(RENDERED, text)])
    stage.activator.looks = [{"digest": "old", "busy": False}]
    stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"]


def test_what_the_activator_has_under_way_is_waited_for_longer_than_silence(stage: Stage) -> None:
    digest = write_models(stage)
    many = round(2 * executor.SILENT_SECONDS / executor.POLL_SECONDS)
    stage.activator.looks = [{"digest": "old", "busy": True}] * many + [{"digest": digest, "busy": False}]
    stage.run(("switch", "qwen-14b"))
    assert stage.did == ["pause"] * many + ["ask up qwen-14b bound", "heard"]


def test_an_activator_that_keeps_older_models_is_told_of_with_what_helps(stage: Stage) -> None:
    write_models(stage)
    stage.activator.looks = [{"digest": "old", "busy": False}]
    assert stage.fails(("switch", "qwen-14b")) == (
        "the activator goes by other models than docker/activator/models/models.json has, after 60 s too\n"
        "  'python -m orchestrator logs activator' shows why; 'docker compose restart activator' has it begin anew"
    )
    assert stage.did == ["pause"] * round(executor.SILENT_SECONDS / executor.POLL_SECONDS)


def test_a_router_that_is_shut_is_not_waited_for(stage: Stage) -> None:
    stage.activator.shut = "make a key"
    assert stage.fails(("switch", "qwen-14b")) == "make a key"
    assert stage.did == []


def test_a_model_that_fails_is_told_with_its_reason_and_where_the_rest_is(stage: Stage) -> None:
    stage.activator.ups = [[Told("qwen-14b", "start"), Told("qwen-14b", "failed", reason="RuntimeError: no weights")]]
    assert stage.fails(("switch", "qwen-14b")) == (
        "qwen-14b is not ready: RuntimeError: no weights\n  The rest: python -m orchestrator logs qwen-14b"
    )


def test_a_model_that_somebody_stops_meanwhile_is_not_ready(stage: Stage) -> None:
    stage.activator.ups = [[Told("qwen-14b", "stopped")]]
    assert stage.fails(("switch", "qwen-14b")).splitlines()[0] == "qwen-14b is not ready: somebody stopped it"


def test_an_activator_that_dies_in_a_switch_comes_back_and_goes_on(stage: Stage) -> None:
    stage.activator.ups = [[Told("qwen-14b", "start"), SilentError("the answer broke off")], [READY]]
    stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"] * 2


def test_an_activator_that_dies_again_and_again_ends_it(stage: Stage) -> None:
    stage.activator.ups = [[SilentError("the answer broke off")]]
    assert stage.fails(("switch", "qwen-14b")).splitlines()[0] == (
        "the activator does not answer: the answer broke off"
    )
    assert stage.did == ["ask up qwen-14b bound", "heard"] * (executor.DEATHS + 1)


def test_an_interruption_closes_the_stream_which_takes_the_wish_back(stage: Stage) -> None:
    stage.activator.ups = [[Told("qwen-14b", "start"), KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"]


def entry(state: str, *, is_open: bool = False) -> dict[str, Any]:
    return {"models": [{"name": "qwen-14b", "state": state, "open": is_open}]}


@pytest.mark.parametrize(
    "coming",
    [
        {**entry("starting"), "wanted": []},
        {**entry("stopping"), "wanted": []},
        # The activator has not heard yet that who asked is gone.
        {**entry("stopped"), "wanted": ["qwen-14b"]},
        {**entry("stopped"), "wanted": [], "switch": {"target": "qwen-14b"}},
    ],
)
def test_an_interrupted_up_ends_when_what_was_coming_is_given_up(stage: Stage, coming: dict[str, Any]) -> None:
    gone = {**entry("stopped"), "wanted": ["other"], "switch": {"target": "other"}}
    stage.activator.looks = [{}, coming, coming, gone]
    stage.activator.ups = [[Told("qwen-14b", "start"), KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard", "pause", "pause"]
    assert stage.shown[-1] == "stop: giving qwen-14b up"


def test_an_interruption_that_comes_too_late_waits_for_nothing(stage: Stage) -> None:
    stage.activator.looks = [{**entry("ready", is_open=True), "wanted": ["qwen-14b"]}]
    stage.activator.ups = [[KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"]


def test_an_interruption_waits_no_longer_than_a_server_has_to_end(stage: Stage) -> None:
    stage.activator.looks = [{**entry("stopping"), "wanted": []}]
    stage.activator.ups = [[KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("switch", "qwen-14b"))
    assert stage.did[2:] == ["pause"] * round(executor.GIVE_UP_SECONDS / executor.POLL_SECONDS)


def test_an_interruption_does_not_wait_for_an_activator_that_is_gone(stage: Stage) -> None:
    class Going(Activator):
        def phases(self, verb: str, model: str, *, bound: bool) -> Generator[Told, None, None]:
            self.silent = 10_000
            yield from super().phases(verb, model, bound=bound)

    stage.activator = stage.executor.activator = Going(stage.did)  # type: ignore[assignment]
    stage.activator.ups = [[KeyboardInterrupt()]]
    with pytest.raises(KeyboardInterrupt):
        stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"]


def test_the_phases_of_the_activator_are_all_that_is_shown_of_a_start(stage: Stage) -> None:
    stage.activator.ups = [
        [Told("qwen-14b", "start", "importing vLLM"), Told("qwen-14b", "prove", "asking for a first token"), READY]
    ]
    stage.run(("switch", "qwen-14b"))
    assert stage.shown[2:] == ["start: importing vLLM", "prove: asking for a first token", "ready: ready"]


def test_what_shows_the_phases_may_break_and_the_stream_is_closed_all_the_same(tmp_path: Path) -> None:
    class Broken(Stage):
        def phase(self, phase: Phase, text: str) -> None:
            if phase == "start":
                raise BrokenPipeError

    stage = Broken(tmp_path)
    stage.activator.ups = [[Told("qwen-14b", "start"), READY]]
    with pytest.raises(BrokenPipeError):
        stage.run(("switch", "qwen-14b"))
    assert stage.did == ["ask up qwen-14b bound", "heard"]


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    stage = Stage(tmp_path, model="./mine")
    stage.run(("switch", "qwen-14b"))
    assert stage.shown == ["image: on this machine", "weights: ./mine is a folder here", "ready: ready"]


TRY: tuple[tuple[Kind, str], ...] = (("try", "NCCL on GPUs 0, 1"), ("pull", "Qwen/Qwen2.5-14B-Instruct"))


@pytest.mark.parametrize("tried", [Result("works", "nccl"), Result("failed", "nccl", why="CUDA out of memory")])
def test_what_comes_of_a_trial_is_shown_and_what_says_nothing_stops_nothing(stage: Stage, tried: Result) -> None:
    stage.tried = tried
    stage.run(*TRY)
    assert stage.did == ["try", PULL, "pull ended"]
    assert stage.shown[1] == "container: trying"


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (Result("hung", "nccl", "first", "no end in 60 s"), "did not end (no end in 60 s)."),
        (Result("wrong", "nccl"), "gave wrong sums."),
    ],
)
def test_gpus_that_cannot_talk_stop_it_unless_it_is_forced(stage: Stage, tried: Result, words: str) -> None:
    stage.tried = tried
    said = stage.fails(*TRY)
    first, mend, *_ = said.splitlines()
    assert first == f"qwen-14b would hang: the all-reduce between GPUs 0, 1 {words}"
    assert mend.startswith("  python -m orchestrator doctor --fix ")
    assert "\n  or by hand: env = { NCCL_P2P" in said
    assert said.endswith("\n  To start it all the same: up qwen-14b --force")
    assert stage.did == ["try"]
    stage.executor.run(stage.target, [Operation(kind, subject, "") for kind, subject in TRY], force=True)
    assert stage.did == ["try", "try", PULL, "pull ended"]


def test_a_trial_that_cannot_be_made_is_told_of(stage: Stage) -> None:
    stage.tried = TandemError("the all-reduce printed no answer")
    stage.run(*TRY)
    assert stage.shown[2] == "container: its GPUs could not be tried together: the all-reduce printed no answer"
    assert stage.did == ["try", PULL, "pull ended"]
