"""Flags to try: what is read, what is refused, and that a profile's own come back whatever happens."""

import json
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.load import flags
from orchestrator.load.results import Result
from orchestrator.load.trial import Trial
from orchestrator.plan import Operation
from orchestrator.states import Container
from tests.unit.loads import OPTIONS, result
from tests.unit.values import container, profile, project

COMMAND = ("vllm", "serve", "/models/q", "--max-model-len", "16384")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--enforce-eager", ["--enforce-eager"]),
        ("--enforce-eager --max-num-seqs 64", ["--enforce-eager", "--max-num-seqs", "64"]),
        ("  --max_num_seqs=64 ", ["--max_num_seqs=64"]),
        ("""--compilation-config '{"level": 0}'""", ["--compilation-config", '{"level": 0}']),
        ("--seed -1 --no-enable-prefix-caching", ["--seed", "-1", "--no-enable-prefix-caching"]),
        ("--cuda-graph-sizes 1 2 4", ["--cuda-graph-sizes", "1", "2", "4"]),
        ("--speculative-config.method ngram", ["--speculative-config.method", "ngram"]),
    ],
)
def test_flags_are_split_as_a_shell_does(text: str, words: list[str]) -> None:
    assert flags.read(text) == words


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", 'should be flags of vllm serve, such as "--enforce-eager --max-num-seqs 64"'),
        ("  ", "should be flags of vllm serve"),
        ("'--a", "cannot be split into words: No closing quotation"),
        ("enforce-eager", 'each flag should begin with two hyphens, got "enforce-eager"'),
        ("--a -b", 'each flag should begin with two hyphens, got "-b"'),
        ("--", '"--" is no flag'),
        ("--=4", '"--=4" is no flag'),
        ("'--a b'", '"--a b" is no flag'),
        ("--a 1 --port 9000", "--port is fixed: "),
        ("--served_model_name=x", "--served_model_name=x is fixed: "),
        ("--no-host", "--no-host is fixed: "),
        ("--config x.yaml", "--config is fixed: "),
    ],
)
def test_what_is_no_flag_or_must_stay_is_refused(text: str, fact: str) -> None:
    with pytest.raises(TandemError) as caught:
        flags.read(text)
    assert str(caught.value).startswith(f"--against: {fact}")


def test_the_compose_file_says_the_whole_command_and_no_variables() -> None:
    text = flags.override("qwen-14b", COMMAND, ["--x", "a$b"])
    assert json.loads(text) == {"services": {"qwen-14b": {"command": [*COMMAND, "--x", "a$$b"]}}}


@pytest.mark.parametrize(
    ("named", "present", "read"),
    [
        ("", ["compose.yaml", "compose.models.yaml"], ["compose.yaml"]),
        ("", ["compose.yaml", "compose.override.yml"], ["compose.yaml", "compose.override.yml"]),
        (
            "",
            ["compose.override.yml", "compose.yaml", "compose.override.yaml"],
            ["compose.yaml", "compose.override.yaml"],
        ),
        ("compose.yaml:mine.yaml", ["compose.override.yaml"], ["compose.yaml", "mine.yaml"]),
    ],
)
def test_the_users_own_compose_files_are_read_too(named: str, present: list[str], read: list[str]) -> None:
    assert flags.files(named, ":", present) == read


def test_rounds_are_put_together_run_by_run() -> None:
    both = flags.joined([result((1, [100, 90]), (16, [900, 901])), result((1, [80, 70]), (16, [902, 903]))])
    assert [[run.metrics["output_tokens"] for run in case.runs] for case in both.cases] == [
        [100, 90, 80, 70],
        [900, 901, 902, 903],
    ]
    assert (both.cases[0].spread["output_tokens"].low, both.options.runs) == (70, 2 * OPTIONS.runs)


# --- a trial ----------------------------------------------------------------------------------------------------------


class Machine:
    """Keeps what was done, and fails where a test says so; a measurement finds the flags that the server has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "compose.yaml").write_text("")
        self.did: list[str] = []
        self.server: Container | None = container("qwen-14b", config_hash="1", command=COMMAND)
        self.has: list[str] = list(COMMAND)
        self.files: list[Path] = []
        self.fails: dict[str, BaseException] = {}
        # What else happens at a step: signals that come, models that somebody else wants.
        self.meets: dict[str, Callable[[], object]] = {}
        self.others: list[str] = []
        # Whether the terminal's signals pass by what Docker's CLI does, and at which steps they did.
        self.group: int | None = None
        self.were_apart: list[str] = []

    def container(self, service: str) -> Container | None:
        return self.server

    def wanted_hashes(self, argv: list[str]) -> dict[str, str]:
        return {"qwen-14b": "1"}

    def measure(self, _: Any) -> Result:
        extra = " ".join(self.has[len(COMMAND) :])
        self._do(f"measure {extra}".rstrip())
        return result((1, [200.0, 190.0] if extra else [100.0, 90.0]))

    def run(self, operations: Sequence[Operation], files: Sequence[str]) -> None:
        for operation in operations:
            if operation.kind == "create":
                self.has = list(COMMAND)
                if files:
                    assert files[:-1] == [str(self.folder / "compose.yaml")]
                    self.files.append(Path(files[-1]))
                    said = json.loads(self.files[-1].read_text(encoding="utf-8"))
                    self.has = said["services"]["qwen-14b"]["command"]
            self._do(f"{operation.kind}{' B' if files else ''}")

    def _do(self, what: str) -> None:
        self.did.append(what)
        if self.group == 0:
            self.were_apart.append(what)
        self.meets.get(what, lambda: None)()
        if what in self.fails:
            raise self.fails.pop(what)

    def trial(self, said: list[str] | None = None) -> Trial:
        which = profile()
        return Trial(
            project(which, folder=self.folder), cast(Engine, self), which,
            (said if said is not None else []).append, measure=self.measure, run=self.run, taken=lambda: self.others,
        )  # fmt: skip


CHANGE, BACK = ["stop B", "create B", "switch B"], ["stop", "create", "switch"]


def test_the_others_are_measured_first_and_its_own_after_them_both_on_a_new_server(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    own, other = machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    once = [*CHANGE, "measure --enforce-eager", *BACK, "measure"]
    assert machine.did == once * 2
    assert [run.metrics["output_tokens"] for run in own.cases[0].runs] == [100, 90, 100, 90]
    assert [run.metrics["output_tokens"] for run in other.cases[0].runs] == [200, 190, 200, 190]


@pytest.mark.parametrize("error", [TandemError("no"), KeyboardInterrupt(), ValueError("a bug")])
@pytest.mark.parametrize("when", [*CHANGE, "measure --enforce-eager"])
def test_its_own_flags_come_back_whatever_happens(tmp_path: Path, when: str, error: BaseException) -> None:
    machine = Machine(tmp_path)
    machine.fails[when] = error
    with pytest.raises(type(error)):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did[-4:] == [when, *BACK]
    assert machine.has == list(COMMAND)


def test_its_own_flags_come_back_also_where_a_request_keeps_the_model_from_being_drained(tmp_path: Path) -> None:
    machine, said = Machine(tmp_path), list[str]()
    machine.fails |= {"measure --enforce-eager": TandemError("first"), "stop": TandemError("a request wants it")}
    with pytest.raises(TandemError, match=r"^first$"):
        machine.trial(said).turns(OPTIONS, ["--enforce-eager"], 1)
    assert machine.did[-3:] == BACK
    assert machine.has == list(COMMAND)
    assert said[-2] == "qwen-14b is not drained, and is stopped all the same: a request wants it"


LEFT = "qwen-14b is left down, with its own flags"
UP = "python -m orchestrator up qwen-14b"


@pytest.mark.parametrize("when", ["stop", "create"])
def test_where_they_cannot_come_back_it_is_said_what_to_do(tmp_path: Path, when: str) -> None:
    machine, said = Machine(tmp_path), list[str]()
    machine.fails[when] = ValueError("a bug")
    with pytest.raises(ValueError, match=r"^a bug$"):
        machine.trial(said).turns(OPTIONS, ["--enforce-eager"], 1)
    assert said[-1] == f"qwen-14b may still have the other flags, or be down: {UP}"


def test_where_it_does_not_come_up_again_that_is_the_fault_and_its_own_flags_are_back(tmp_path: Path) -> None:
    machine, said = Machine(tmp_path), list[str]()
    machine.fails["switch"] = TandemError("qwen-14b is not ready: no memory")
    with pytest.raises(TandemError, match=f"^{LEFT}: qwen-14b is not ready: no memory$"):
        machine.trial(said).turns(OPTIONS, ["--enforce-eager"], 1)
    assert machine.did[-3:] == BACK
    assert said[-1] == f"{LEFT}: qwen-14b is not ready: no memory"


def test_what_failed_first_is_the_fault_also_where_it_does_not_come_up_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.fails |= {"switch B": TandemError("first"), "switch": TandemError("second")}
    with pytest.raises(TandemError, match=r"^first$"):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 1)


def test_from_another_model_that_came_up_meanwhile_nothing_is_taken(tmp_path: Path) -> None:
    machine, said = Machine(tmp_path), list[str]()
    machine.meets["measure --enforce-eager"] = lambda: machine.others.append("qwq")
    machine.fails["measure --enforce-eager"] = TandemError("somebody switched models")
    with pytest.raises(TandemError, match=r"^somebody switched models$"):
        machine.trial(said).turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did == [*CHANGE, "measure --enforce-eager", "stop", "create"]
    assert machine.has == list(COMMAND)
    assert said[-1] == f"qwq is up, or wanted, on GPUs of qwen-14b, so {LEFT}: {UP}"


def test_its_own_flags_are_not_measured_where_another_model_came_up_after_the_others_were(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.meets["create"] = lambda: machine.others.extend(["qwq", "r1"])
    with pytest.raises(TandemError, match=f"^qwq, r1 are up, or wanted, on GPUs of qwen-14b, so {LEFT}: {UP}$"):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did == [*CHANGE, "measure --enforce-eager", "stop", "create"]


def test_the_others_are_not_brought_up_where_another_model_came_up_before(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.meets["create B"] = lambda: machine.others.append("qwq")
    with pytest.raises(TandemError, match=r"^qwq is up, or wanted, on GPUs of qwen-14b; nothing is measured$"):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did == ["stop B", "create B", "stop", "create"]
    assert machine.has == list(COMMAND)


# --- signals ----------------------------------------------------------------------------------------------------------


HANDLED = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("second", HANDLED)
@pytest.mark.parametrize("first", HANDLED)
def test_a_second_signal_does_not_break_off_what_puts_its_own_flags_back(
    tmp_path: Path, first: int, second: int
) -> None:
    machine, before = Machine(tmp_path), [signal.getsignal(number) for number in HANDLED]
    again = partial(signal.raise_signal, second)
    machine.meets = {
        "measure --enforce-eager": partial(signal.raise_signal, first), "stop": again, "create": again,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did == [*CHANGE, "measure --enforce-eager", *BACK]
    assert machine.has == list(COMMAND)
    # Of what the terminal sends to whatever runs in it nothing reaches Docker's CLI meanwhile.
    assert machine.were_apart == ["stop", "create"]
    assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.mark.parametrize("number", HANDLED)
def test_a_signal_while_its_own_flags_are_put_back_ends_it_after_that(tmp_path: Path, number: int) -> None:
    machine = Machine(tmp_path)
    machine.meets["create"] = partial(signal.raise_signal, number)
    with pytest.raises(KeyboardInterrupt):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert machine.did == [*CHANGE, "measure --enforce-eager", *BACK]


def test_a_stop_from_outside_does_not_break_off_that_it_comes_up_again(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.meets["switch"] = partial(signal.raise_signal, signal.SIGTERM)
    machine.fails["measure --enforce-eager"] = TandemError("first")
    with pytest.raises(TandemError, match=r"^first$"):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 1)
    assert machine.did[-3:] == BACK


def test_ctrl_c_while_it_comes_up_again_leaves_it_down_with_its_own_flags(tmp_path: Path) -> None:
    machine, said = Machine(tmp_path), list[str]()
    machine.meets = {
        "measure --enforce-eager": partial(signal.raise_signal, signal.SIGINT),
        "switch": partial(signal.raise_signal, signal.SIGINT),
    }
    with pytest.raises(KeyboardInterrupt):
        machine.trial(said).turns(OPTIONS, ["--enforce-eager"], 1)
    assert machine.did[-3:] == BACK
    assert said[-2:] == [
        "bringing qwen-14b up again (Ctrl-C leaves it down, with its own flags)",
        f"{LEFT}: {UP}",
    ]


# --- what is not begun ------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_as_models_toml_says_is_left_alone(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.server = container("qwen-14b", config_hash="0", command=COMMAND)
    with pytest.raises(TandemError, match=r"^qwen-14b runs with other settings than models\.toml and \.env say now: "):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 1)
    machine.server = None
    with pytest.raises(TandemError, match=r"^qwen-14b is not up; bring it up first: "):
        machine.trial().turns(OPTIONS, ["--enforce-eager"], 1)
    assert machine.did == []


def test_no_file_is_left_behind(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.trial().turns(OPTIONS, ["--enforce-eager"], 2)
    assert len(machine.files) == 2
    assert not any(path.exists() or path.parent.exists() for path in machine.files)
