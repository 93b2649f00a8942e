"""What a report says: which lines of logs, in which words. Values in, text out."""

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import failures
from orchestrator.doctor.smi import Card, Seen
from orchestrator.errors import TandemError
from orchestrator.load import run as loading
from orchestrator.proof import result as proofs
from orchestrator.proof.checks import Check
from orchestrator.telling import lines, words
from orchestrator.telling.known import Known
from orchestrator.telling.redaction import Redaction
from tests.unit.values import container

BLANK = Redaction(Known())


@pytest.mark.parametrize(
    "line",
    [
        "ERROR 11-23 00:41:55 [core.py:133] no", "WARNING 11-23 x", "2026/11/23 [warn] 12#12: x", "Traceback (",
        "connect: Connection refused", "it failed", "ValueError: x", "torch.OutOfMemoryError: CUDA out of memory",
        "upstream timed out", "weights missing: /models/x", "Killed", "[rank0]:[E1125 10:32:27.646 x.cpp:523] no",
    ],
)  # fmt: skip
def test_a_line_that_tells_of_a_failure_matters(line: str) -> None:
    assert lines.matters(line)


@pytest.mark.parametrize("line", ["INFO 11-23 00:41:55 [core.py:133] up", "GET /v1/models 200", "loaded in 41 s", ""])
def test_any_other_line_does_not(line: str) -> None:
    assert not lines.matters(line)


def test_a_known_line_tells_by_itself() -> None:
    assert failures.telling("(EngineCore pid=1) ERROR 11-23 00:41:55 [a.py:1] max seq len 9 is larger than the maximum "
                            "number of tokens")  # fmt: skip
    assert not failures.telling("INFO up")


def test_of_short_logs_all_is_told_and_of_a_long_one_what_is_left() -> None:
    found = lines.chosen({"a": ["1", "2"], "b": [], "c": [f"line {number}" for number in range(500)]}, total=10)
    assert found["a"] == ["1", "2"]
    assert found["b"] == []
    assert found["c"] == ["[… 492 left out]", *(f"line {number}" for number in range(492, 500))]


def test_the_first_failures_the_last_ones_and_the_end_are_told_in_order() -> None:
    log = [f"ERROR {number}" if number % 10 == 0 else f"line {number}" for number in range(1000)]
    found = lines.chosen({"a": log}, total=12)["a"]
    assert [line for line in found if "left out" not in line] == [
        "ERROR 0", "ERROR 10", "ERROR 20", "ERROR 30", "ERROR 960", "ERROR 970", "ERROR 980", "ERROR 990",
        "line 996", "line 997", "line 998", "line 999",
    ]  # fmt: skip
    assert found[1] == "[… 9 left out]"


@pytest.mark.parametrize("total", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("lengths", [(0,), (1, 1), (300, 2, 0), (50, 60, 70), (99, 1)])
@pytest.mark.parametrize("word", ["INFO", "ERROR"])
def test_never_more_lines_than_asked_for_and_as_many_as_there_are(
    total: int, lengths: tuple[int, ...], word: str
) -> None:
    logs = {str(place): [f"{word} {number}" for number in range(length)] for place, length in enumerate(lengths)}
    found = [line for log in lines.chosen(logs, total).values() for line in log if "left out" not in line]
    assert len(found) == min(total, sum(lengths))


def test_a_long_line_is_cut() -> None:
    assert lines.chosen({"a": ["x" * 1000]})["a"] == ["x" * lines.WIDTH + "…"]


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    text = words.document("now", [("A", "one\n```\ntwo\n"), ("B", "three")], ["/x/keys"])
    assert "## A\n\n````text\none\n```\ntwo\n````\n" in text
    assert "## B\n\n```text\nthree\n```\n" in text
    assert "by their look alone: /x/keys**" in text
    assert "look alone" not in words.document("now", [])


def test_the_server_that_tells_most_is_that_of_the_switch_else_of_the_last_else_the_youngest() -> None:
    there = {
        name: container(name, started_at=f"2026-01-0{day}T00:00:00Z")
        for day, name in enumerate(("a", "b", "router"), 1)
    } | {"c": container("c")}
    profiles = ["a", "b", "c"]
    assert words.last_server({"switch": {"target": "a"}, "last": {"target": "b"}}, there, profiles) == "a"
    assert words.last_server({"switch": None, "last": {"target": "a"}}, there, profiles) == "a"
    assert words.last_server({"last": {"target": "c"}}, there, profiles) == "b"
    assert words.last_server(None, there, profiles) == "b"
    assert words.last_server(None, {}, profiles) is None


def test_settings_say_what_they_are_where_from_and_no_secret() -> None:
    values = {
        "TANDEM_PORT": "8000",
        "HF_TOKEN": "x" * 20,
        "HTTPS_PROXY": "http://me:pw@h:1",
        "TANDEM_HF_TOKEN_FILE": "/a",
        "TANDEM_ADMIN_KEY_FILE": "a-key-where-a-file-belongs",
    }
    shown = words.settings(values, {"TANDEM_PORT": "8000"}, {"TANDEM_PORT": "the shell"}, BLANK)
    assert [line.split(maxsplit=1) for line in shown.splitlines()] == [
        ["HF_TOKEN", "is set  from the env file"],
        ["HTTPS_PROXY", "http://***@h:1  from the env file"],
        ["TANDEM_ADMIN_KEY_FILE", "is set, to no whole path  from the env file"],
        ["TANDEM_HF_TOKEN_FILE", "/a  from the env file"],
        ["TANDEM_PORT", "8000 (as without it)  from the shell"],
    ]
    assert words.settings({}, {}, {}, BLANK) == "none is set"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('# c\n\n[models.a] # b\n  model = "x"\n', '[models.a]\n  model = "x"'),
        ("a = \"x # y\" # c\nb = 'x # y' # c", "a = \"x # y\"\nb = 'x # y'"),
        ('a = "say \\"x # y\\" # z" # c', 'a = "say \\"x # y\\" # z"'),
        ('a = "x\\\\" # c "', 'a = "x\\\\"'),
        ("a = 'x\\' # c '", "a = 'x\\'"),
        ('a = """one # 1\n# two\n\n""three""" # c\nb = 1', 'a = """one # 1\n# two\n\n""three"""\nb = 1'),
        ("a = '''it's # 1\n  # two'''' # c", "a = '''it's # 1\n  # two''''"),
        ('a = """x\\""" # y""" # c', 'a = """x\\""" # y"""'),
        ('a = [ # c\n  "#1", # d "\n  # e\n]', 'a = [\n  "#1",\n]'),
        ('"a # b" = 1 # c\r\nb = 2 # d\r\n', '"a # b" = 1\nb = 2'),
        ('a = "" # c', 'a = ""'),
        ("# only a comment", "it is empty"),
        ("", "it is empty"),
    ],
)
def test_models_toml_is_told_without_comments(text: str, told: str) -> None:
    assert words.models(text) == told


@pytest.mark.parametrize(
    "text", ['a = "x # my secret\nb = 1', 'a = """x\n# my secret\n', "a = # my secret\nb = '", "= 1 # my secret"]
)
def test_of_a_models_toml_that_is_none_no_comment_is_told(text: str) -> None:
    told = words.models(text)
    assert "secret" not in told
    assert told.splitlines()[0] == "[it is no TOML: each line is told as far as its first #]"


def test_a_long_models_toml_is_cut() -> None:
    assert words.models("".join(f"a{number} = 1\n" for number in range(400))).splitlines()[-1] == "[100 more lines]"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    values=st.lists(
        st.tuples(st.text(st.sampled_from("#'\"\\ab \n"), max_size=8), st.sampled_from(["basic", "long"])), max_size=4
    ),
    comments=st.lists(st.text(st.sampled_from("#'\"\\ab "), max_size=8), min_size=4, max_size=4),
)
def test_whatever_is_in_strings_and_comments_values_stay_and_comments_go(
    values: list[tuple[str, str]], comments: list[str]
) -> None:
    def written(value: str, kind: str) -> str:
        if kind == "basic":
            return json.dumps(value)
        return '"""\n' + value.replace("\\", "\\\\").replace('"""', '""\\"').replace(" \n", "\\u0020\n") + ' ."""'

    text = "".join(
        f"a{place} = {written(*value)} # SECRET{comment}\n"
        for place, (value, comment) in enumerate(zip(values, comments, strict=False))
    )
    told = words.models(text)
    assert "SECRET" not in told
    assert tomllib.loads(told if values else "") == tomllib.loads(text)


def test_gpus_are_told_with_what_is_known_of_them() -> None:
    card = Card(0, "RTX 4090", 24 << 30, 1 << 30, 0, 23 << 30, capability=(8, 9), power=450, power_usual=450, width=16)
    seen = Seen(wsl=False, driver="580.95.05", cards=(card,), links=((0, 1, "GNS"),))
    assert words.gpus(seen) == [
        ("gpu 0", "RTX 4090; 24576 MiB, 23552 free, 1024 the driver's; compute 8.9; 450 W of 450; PCIe ? x16"),
        ("peer to peer", "0-1 GNS"),
    ]
    assert words.gpus(Seen(wsl=False, fault="there is no nvidia-smi")) == [("gpus", "there is no nvidia-smi")]


def test_a_kept_verify_is_read_as_it_was_and_refused_when_it_is_none() -> None:
    kept = proofs.Result("demo", "demo", "http://h/v1", "2026-01-02T03:04:05Z", 61.0, False, (Check("a", "ok", "b"),))
    assert proofs.read(proofs.values(kept), "demo.json") == kept
    broken: list[object] = [{}, [], None, {**proofs.values(kept), "checks": [{"name": "a", "state": "?", "fact": "b"}]}]
    for each in broken:
        with pytest.raises(TandemError, match=r"^demo.json: is no result of verify: "):
            proofs.read(each, "demo.json")


def test_the_last_bench_is_that_of_the_profile_and_none_of_a_longer_name(tmp_path: Path) -> None:
    for name in ("qwen-20260102T030405", "qwen-20260103T030405", "qwen-20260103T030405-2", "qwen-14b-20260104T030405"):
        (tmp_path / f"{name}.json").touch()
    last = loading.last(tmp_path, "qwen")
    assert last is not None
    assert last.stem == "qwen-20260103T030405-2"
    assert loading.last(tmp_path, "none") is None
    assert loading.last(tmp_path / "nowhere", "qwen") is None
