"""Load on a model that is up: what runs, in which order, and that nothing is left behind or averaged over a switch."""

import itertools
import json
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator import commands
from orchestrator.ask import Activator
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.keys import Key
from orchestrator.load import run as running
from orchestrator.load.results import Options
from orchestrator.load.run import Load
from orchestrator.profiles import Profile
from orchestrator.states import Container
from tests.unit.loads import recorded, result
from tests.unit.values import CPU, container, profile, project

DEMO = profile(name="demo", model="./demo", image="cpu", gpus=[], max_model_len=1024)
OPTIONS = Options(input=64, output=16, per=2, runs=2, warmups=3, concurrency=(4, 1))
SERVER = container("demo", image=CPU.image, ident="sha256:1", command=("vllm", "serve", "/local/demo"))


def answer(argv: list[str]) -> str:
    """What vLLM's benchmark would save: every request answered."""
    asked, output = (int(argv[argv.index(word) + 1]) for word in ("--num-prompts", "--random-output-len"))
    said = json.loads(recorded("bench-serve-0.32.0"))
    return json.dumps(said | {"completed": asked, "total_output_tokens": asked * output})


class Machine:
    """Stands in for Docker and for the activator; keeps what was run and what containers were removed."""

    project = "tandem"

    def __init__(self, server: Container | None = SERVER) -> None:
        self.server = server
        self.ran: list[list[str]] = []
        self.given: list[str | None] = []
        self.discarded: list[str] = []
        self.looks = 0
        self.paused: list[float] = []
        self.look: Callable[[int], dict[str, Any]] = lambda _: {"state": "ready", "since": 5}
        self.says: Callable[[list[str]], Iterable[str]] = lambda argv: [
            "INFO",
            "",
            commands.LOADED + answer(argv),
            "=0",
        ]

    def container(self, service: str) -> Container | None:
        assert service == "demo"
        return self.server

    def stream(self, argv: list[str], given: str | None = None) -> Generator[str, None, None]:
        self.ran.append(argv)
        self.given.append(given)
        yield from self.says(argv)

    def discard(self, name: str) -> None:
        self.discarded.append(name)

    def require(self) -> dict[str, Any]:
        self.looks += 1
        return {"models": [{"name": "demo", **self.look(self.looks)}]}

    def load(self, said: list[str] | None = None, which: Profile = DEMO, **more: Any) -> Load:
        whole = more.pop("whole", None) or project(which, **more)
        seeds = itertools.count(100)
        return Load(
            whole, cast(Engine, self), cast(Activator, self), which, (said if said is not None else []).append,
            seed=lambda: next(seeds), now=lambda: datetime(2026, 11, 22, 3, 4, 5, tzinfo=UTC), pause=self.paused.append,
        )  # fmt: skip


def words(argv: list[str], *names: str) -> list[str]:
    return [argv[argv.index(name) + 1] for name in names]


def test_each_concurrency_is_warmed_up_and_run_with_a_seed_of_its_own() -> None:
    machine, said = Machine(), list[str]()
    found = machine.load(said).measure(OPTIONS)
    asked = [words(argv, "--max-concurrency", "--num-prompts", "--seed") for argv in machine.ran]
    assert asked == [
        ["4", "12", "100"], ["4", "8", "101"], ["4", "8", "102"],
        ["1", "3", "103"], ["1", "2", "104"], ["1", "2", "105"],
    ]  # fmt: skip
    assert [(case.concurrency, [run.seed for run in case.runs]) for case in found.cases] == [
        (4, [101, 102]),
        (1, [104, 105]),
    ]
    assert machine.looks == 8
    assert machine.discarded == []
    assert said[0] == (
        "demo: prompts of 64 random tokens, answers of 16; at once: 4, 1; 3 warm-ups, 2 runs, 2 requests for each at "
        "once"
    )
    assert [line.partition(":")[0] for line in said[1:]] == [
        "4 at once", "4 at once, run 1 of 2", "4 at once, run 2 of 2",
        "1 at once", "1 at once, run 1 of 2", "1 at once, run 2 of 2",
    ]  # fmt: skip


def test_what_was_measured_and_where_is_in_the_result() -> None:
    found = Machine().load().measure(OPTIONS)
    assert (found.profile, found.model, found.date) == ("demo", "./demo", "2026-11-22T03:04:05Z")
    assert found.server.model_dump() == {
        "vllm": "0.32.0",
        "image": "tandem/vllm:0.32.0-cpu",
        "image_id": "sha256:1",
        "command": ("vllm", "serve", "/local/demo"),
    }
    assert found.machine.cores >= 1
    assert not found.failed


def test_without_warm_ups_there_are_none() -> None:
    machine = Machine()
    machine.load().measure(OPTIONS.model_copy(update={"warmups": 0, "concurrency": (1,)}))
    assert len(machine.ran) == 2


def test_it_runs_in_a_container_of_the_servers_image_that_sees_no_gpu_and_can_write_nothing() -> None:
    machine = Machine()
    machine.load().measure(OPTIONS)
    line = machine.ran[0]
    assert line[:4] == ["docker", "run", "--rm", "-i"]
    assert line[line.index("--entrypoint") + 2] == "sha256:1"
    assert {"--read-only", "no-new-privileges:true", "NVIDIA_VISIBLE_DEVICES=void"} <= set(line)
    assert words(line, "--network", "--cap-drop", "--pull") == ["tandem_models", "ALL", "never"]
    assert "--gpus" not in line
    assert len({words(argv, "--name")[0] for argv in machine.ran}) == 6


def test_a_key_goes_by_the_containers_input_alone() -> None:
    machine = Machine()
    limited, free = Key("a", "tdm-limited-0123456789", rate="1/s"), Key("b", "tdm-free-0123456789")
    machine.load(whole=replace(project(DEMO), client_keys=(limited, free))).measure(OPTIONS)
    assert set(machine.given) == {"tdm-free-0123456789\n"}
    assert not any("tdm-" in word for argv in machine.ran for word in argv)


def test_with_no_key_none_is_given() -> None:
    machine = Machine()
    machine.load().measure(OPTIONS)
    assert set(machine.given) == {"\n"}


def test_a_router_with_tls_is_asked_by_tls() -> None:
    machine = Machine()
    machine.load(values={"TANDEM_TLS_CERT_FILE": "/a.pem"}).measure(OPTIONS)
    assert words(machine.ran[0], "--base-url") == ["https://router:8000"]
    assert "--insecure" in machine.ran[0]


# --- what is not up ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["stopped", "asleep", "starting", "failed"])
def test_a_model_that_is_not_up_is_not_brought_up(state: str) -> None:
    machine = Machine()
    machine.look = lambda _: {"state": state}
    with pytest.raises(TandemError) as caught:
        machine.load().measure(OPTIONS)
    assert str(caught.value) == f"demo is {state}; bring it up first: python -m orchestrator up demo"
    assert machine.ran == []


@pytest.mark.parametrize(
    ("then", "fact"),
    [
        ({"state": "asleep", "since": 5}, "demo is asleep now: "),
        ({"state": "ready", "since": 6}, "demo was started again: "),
    ],
)
@pytest.mark.parametrize("when", [3, 8])
def test_a_model_that_does_not_stay_up_is_an_error_also_at_the_end(then: dict[str, Any], fact: str, when: int) -> None:
    machine = Machine()
    machine.look = lambda look: then if look >= when else {"state": "ready", "since": 5}
    with pytest.raises(TandemError, match="Nothing is kept") as caught:
        machine.load().measure(OPTIONS)
    assert str(caught.value).startswith(fact)


def test_other_clients_requests_are_noted() -> None:
    machine = Machine()
    machine.look = lambda look: {"state": "ready", "since": 5, "in_flight": 3}
    found = machine.load().measure(OPTIONS)
    assert [[run.others for run in case.runs] for case in found.cases] == [[3, 3], [3, 3]]


def test_requests_of_the_last_run_that_are_not_counted_off_yet_are_nobody_elses() -> None:
    machine = Machine()
    # The activator's count is a second old.
    machine.look = lambda look: {"state": "ready", "since": 5, "in_flight": 64 if look % 3 else 0}
    found = machine.load().measure(OPTIONS)
    assert {run.others for case in found.cases for run in case.runs} == {0}
    assert machine.paused


# --- what fails -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "fact"),
    [
        (
            ["usage: vllm", "vllm: error: unrecognized arguments: --x", "=2"],
            "(2): vllm: error: unrecognized arguments: --x",
        ),
        (["=125"], "(125): it said nothing"),
        (["done", "=0"], "(0): done"),
    ],
)
def test_a_benchmark_that_fails_ends_it_with_its_last_words(says: list[str], fact: str) -> None:
    machine = Machine()
    machine.says = lambda _: says
    with pytest.raises(TandemError) as caught:
        machine.load().measure(OPTIONS)
    assert str(caught.value) == f"vllm bench serve failed {fact}"
    assert len(machine.ran) == 1


@pytest.mark.parametrize("before", [[], ["INFO"], ["====== Serving Benchmark Result ======"], ["=" * 50]])
def test_ctrl_c_leaves_no_container_behind(before: list[str]) -> None:
    machine = Machine()

    def interrupted(argv: list[str]) -> Iterator[str]:
        yield from before
        raise KeyboardInterrupt

    machine.says = interrupted
    with pytest.raises(KeyboardInterrupt):
        machine.load().measure(OPTIONS)
    assert machine.discarded == words(machine.ran[0], "--name")


# --- what cannot be measured ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["0.7.3-cu124", "0.10.2-cu128"])
def test_a_vllm_that_has_no_such_benchmark_is_named_with_those_that_have(tag: str) -> None:
    machine = Machine(container("demo", image=f"tandem/vllm:{tag}"))
    with pytest.raises(TandemError) as caught:
        machine.load().measure(OPTIONS)
    assert str(caught.value) == (
        f"demo has vLLM {tag.partition('-')[0]}, which has no 'vllm bench serve' that could be used: it came with 0.8, "
        "and what it needs here with 0.11. There are: 0.32.0"
    )
    assert machine.ran == []


def test_prompts_and_answers_that_do_not_fit_are_refused() -> None:
    long = OPTIONS.model_copy(update={"input": 1000, "output": 25})
    with pytest.raises(
        TandemError, match=r"^--input and --output: should be at most 1024 together, .* got 1000 \+ 25$"
    ):
        running.refuse(project(DEMO), DEMO, long)
    running.refuse(project(DEMO), DEMO, long.model_copy(update={"output": 24}))
    running.refuse(project(DEMO, values={"DEMO_MAX_MODEL_LEN": "2048"}), DEMO, long)
    free = profile(max_model_len=None)
    running.refuse(project(free), free, long)


def test_a_model_without_a_folder_is_refused() -> None:
    by_id = profile(pull=False)
    with pytest.raises(TandemError, match="as pull is false; bench needs the tokenizer in a folder"):
        running.refuse(project(by_id), by_id, OPTIONS)


@pytest.mark.parametrize(
    ("which", "values", "mount", "tokenizer"),
    [
        (DEMO, {}, "type=bind,source=/tandem/demo,target=/local/demo,readonly", "/local/demo"),
        (
            profile(),
            {},
            "type=volume,source=tandem_models,target=/models,readonly",
            "/models/Qwen/Qwen2.5-14B-Instruct",
        ),
        (
            profile(),
            {"COMPOSE_PROJECT_NAME": "two"},
            "type=volume,source=two_models,target=/models,readonly",
            "/models/Qwen/Qwen2.5-14B-Instruct",
        ),
        (
            profile(),
            {"TANDEM_MODELS": "/data/models"},
            "type=bind,source=/data/models,target=/models,readonly",
            "/models/Qwen/Qwen2.5-14B-Instruct",
        ),
    ],
)
def test_the_tokenizer_is_read_from_where_the_server_has_it(
    which: Profile, values: dict[str, str], mount: str, tokenizer: str
) -> None:
    assert running.mounts(project(which, values=values), which) == [mount]
    assert running.tokenizer(which) == ["--tokenizer", tokenizer]


def test_a_tokenizer_that_a_profile_chooses_is_the_benchmarks_too() -> None:
    chosen = profile(
        args={"tokenizer": "/models/a/b", "trust-remote-code": True, "tokenizer-mode": "mistral", "max-num-seqs": 4}
    )
    assert running.tokenizer(chosen) == [
        "--tokenizer", "/models/a/b", "--tokenizer-mode", "mistral", "--trust-remote-code",
    ]  # fmt: skip
    assert running.tokenizer(profile(args={"trust-remote-code": False})) == [
        "--tokenizer", "/models/Qwen/Qwen2.5-14B-Instruct",
    ]  # fmt: skip


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_in_a_file_of_its_own_and_found_by_its_name(tmp_path: Path) -> None:
    place = tmp_path / "results" / "bench"
    running.prepare(place)
    first = running.keep(place, result((1, [1])))
    second = running.keep(place, result((1, [2])))
    old = running.keep(place, result((1, [3]), date="2025-01-02T03:04:05Z", profile="a-b"))
    assert [path.name for path in (first, second, old)] == [
        "qwen-14b-20261122T030405.json",
        "qwen-14b-20261122T030405-2.json",
        "a-b-20250102T030405.json",
    ]
    assert running.find(place, "latest") == second
    assert running.find(place, "a-b-20250102T030405") == old
    assert running.find(place, "a-b-20250102T030405.json") == old
    assert running.find(place, str(first)) == first
    with pytest.raises(TandemError) as caught:
        running.find(place, "other")
    assert str(caught.value) == (
        f"other: no such result; in {place} there are: a-b-20250102T030405, qwen-14b-20261122T030405, "
        "qwen-14b-20261122T030405-2"
    )


@pytest.mark.parametrize("stopped", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_result_that_cannot_be_written_whole_is_not_there_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: BaseException
) -> None:
    def half(_: Any) -> str:
        raise stopped

    monkeypatch.setattr(running.results, "dump", half)
    with pytest.raises((TandemError, KeyboardInterrupt)):
        running.keep(tmp_path, result((1, [1])))
    assert not list(tmp_path.iterdir())


def test_where_no_result_is_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match=r"latest: no such result; .* none yet: 'python -m orchestrator bench NAME'"):
        running.find(tmp_path, "latest")


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(TandemError, match="results/bench: cannot be made: "):
        running.prepare(tmp_path / "results" / "bench")
