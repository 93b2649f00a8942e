"""What tests/gpu/flags.py measures, in which batches and how it goes on: on stand-ins for vLLM that are up at once."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import TandemError
from orchestrator.load.results import Run
from tests.gpu import fit, flags, serving, tables
from tests.gpu.asking import Answer, LateError
from tests.gpu.batches import Known, Limits, Load, Plan, Turn
from tests.gpu.kept import Kept, Made, Start
from tests.gpu.variants import AS_ON_24_GIB, GIB, OURS, SHAPES, TUTORIAL, VARIANTS, Catalogue, Spec, Variant, named
from tests.unit.loads import MACHINE, run

LOAD = Load(input=512, output=128)
EVERY = (1, 16, 64)
LARGE = Limits(room=137, servers=6, seconds=575, start=150)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "models", {}, tokens=64 * 640)


def plan(catalogue: Catalogue, variants: Sequence[str] = (TUTORIAL, OURS), *, rounds: int = 3, **said: Any) -> Plan:
    wanted = catalogue.wanted(said.pop("profiles", list(SHAPES)), variants)
    return Plan(wanted, catalogue.against, catalogue.claim, LOAD, said.pop("at_once", EVERY), rounds)


def words(*specs: str) -> list[Spec]:
    return [Spec(*spec.split()) for spec in specs]


# --- command lines ----------------------------------------------------------------------------------------------------


def test_what_vllm_chooses_by_the_size_of_a_card_is_said_or_left_to_it(catalogue: Catalogue, tmp_path: Path) -> None:
    left = Catalogue(tmp_path / "models", {}, tokens=64 * 640, as_is=True)
    spec = Spec("qwen-14b", OURS)
    said, free = catalogue.argv(spec, ["vllm"], 1), left.argv(spec, ["vllm"], 1)
    assert [word for word in said if word not in free] == [word for pair in AS_ON_24_GIB.items() for word in pair]
    assert [word for word in free if word not in said] == []
    # It may then take more, for what it does in one step.
    assert left.claim(spec) == catalogue.claim(spec) + 1


def test_a_models_words_say_where_reasoning_begins(tmp_path: Path) -> None:
    fit.folder(tmp_path / "model", SHAPES["deepseek-14b"])
    words = json.loads((tmp_path / "model/tokenizer.json").read_text())["model"]["vocab"]
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert len(words) == config["vocab_size"] == max(words.values()) + 1
    assert {"<think>", "</think>"} < words.keys()
    named = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    assert words[named["eos_token"]] == config["eos_token_id"]
    assert words[named["pad_token"]] == config["bos_token_id"]


def test_ours_are_what_the_profile_gets_and_the_tutorials_what_it_says(catalogue: Catalogue, tmp_path: Path) -> None:
    parted = ["--host", "127.0.0.1", "--port", "21000", "--load-format", "dummy"]
    ours = catalogue.argv(Spec("qwen-32b-awq", OURS), ["vllm"], 21000)
    assert ours[: ours.index("--host")] == [
        "vllm", "serve", f"{tmp_path}/models/qwen-32b-awq", "--served-model-name", "qwen-32b-awq",
        "Qwen/Qwen2.5-32B-Instruct-AWQ", "--tensor-parallel-size", "2", "--max-model-len", "16384", "--dtype", "half",
        "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    ]  # fmt: skip
    tutorial = catalogue.argv(Spec("qwen-32b-awq", TUTORIAL), ["vllm"], 21000)
    assert tutorial[: tutorial.index("--host")] == [
        "vllm", "serve", f"{tmp_path}/models/qwen-32b-awq", "--served-model-name", "qwen-32b-awq",
        "--tensor-parallel-size", "2", "--max-model-len", "16384", "--dtype", "half", "--quantization", "awq",
        "--enforce-eager",
    ]  # fmt: skip
    # All else is the same for both.
    assert ours[ours.index("--host") :] == tutorial[tutorial.index("--host") :]
    assert ours[ours.index("--host") :][: len(parted)] == parted


@pytest.mark.parametrize("profile", SHAPES)
def test_a_variants_words_come_last_and_none_twice(catalogue: Catalogue, profile: str) -> None:
    for name, variant in VARIANTS.items():
        more = [word.replace("{draft}", str(catalogue.folder / "draft")) for word in variant.words]
        argv = catalogue.argv(Spec(profile, name), ["vllm"], 21000)
        assert argv[len(argv) - len(more) :] == more
        said = [word for word in argv if word.startswith("--")]
        assert len(said) == len(set(said)), name
        for word in more:
            if word.startswith("{"):
                json.loads(word)
    assert "--max-num-batched-tokens 2048" in " ".join(catalogue.argv(Spec(profile, OURS), ["vllm"], 21000))


def test_a_server_of_the_demo_has_its_own_folder_and_no_word_about_gpus(catalogue: Catalogue) -> None:
    argv = catalogue.argv(Spec("demo", OURS), ["vllm"], 21000)
    assert argv[2].endswith("/docker/demo/model")
    assert "--kv-cache-memory-bytes" not in argv
    assert "--load-format" not in argv


@pytest.mark.parametrize("profile", SHAPES)
def test_the_cache_holds_the_longest_request_and_all_that_are_asked(catalogue: Catalogue, profile: str) -> None:
    spec = Spec(profile, OURS)
    heads, size, layers = 8 // 2, 128, SHAPES[profile]["num_hidden_layers"]
    token = 2 * heads * size * 2 * layers
    longest = catalogue.profile(spec).max_model_len or 0
    assert catalogue.cache_bytes(spec) > max(longest, 64 * 640) * token
    # Weights of 13.9 and 9.1 GiB; of what is beside them, vLLM says in its log.
    weights = 13.93 if "14b" in profile else 9.1
    assert catalogue.claim(spec) == pytest.approx(weights + catalogue.cache_bytes(spec) / GIB + 3.5, abs=0.05)


def test_which_servers_there_are(catalogue: Catalogue) -> None:
    assert list(map(str, catalogue.wanted(["qwen-14b", "qwq-32b-awq", "demo"], ["ours", "marlin", "tutorial"]))) == [
        "qwen-14b tutorial", "qwq-32b-awq tutorial", "qwq-32b-awq marlin", "qwen-14b ours", "qwq-32b-awq ours",
        "demo ours",
    ]  # fmt: skip
    some = catalogue.wanted(["qwen-14b", "deepseek-14b"], ["tutorial", "qwen-14b:eager", "eager", "qwen-14b:nccl"])
    assert list(map(str, some)) == [
        "qwen-14b tutorial", "deepseek-14b tutorial", "qwen-14b eager", "qwen-14b nccl", "deepseek-14b eager",
    ]  # fmt: skip
    assert catalogue.against(Spec("qwen-14b", "tutorial-no-p2p")) == Spec("qwen-14b", "no-p2p")


@pytest.mark.parametrize(
    ("profiles", "variants", "fault"),
    [
        (["qwen"], ["ours"], "--profiles: qwen is none of qwen-14b, deepseek-14b"),
        (["qwen-14b"], ["our"], "--variants: our is none of ours, tutorial"),
        (["qwen-14b"], ["demo:ours"], "--variants: demo is none of qwen-14b"),
    ],
)
def test_an_unknown_name_is_told(catalogue: Catalogue, profiles: list[str], variants: list[str], fault: str) -> None:
    with pytest.raises(TandemError, match=fault):
        catalogue.wanted(profiles, variants)


def test_a_variant_of_ones_own_is_read() -> None:
    assert named('two=--a "b c" --d 1') == ("two", Variant(("--a", "b c", "--d", "1")))
    for text, fault in (("two", "should be NAME=FLAGS"), ("ours=--a", "is known already"), ("x='", "cannot be split")):
        with pytest.raises(TandemError, match=fault):
            named(text)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_as_many_pairs_lie_on_the_gpus_as_their_memory_holds(catalogue: Catalogue) -> None:
    wanted = plan(catalogue)
    assert wanted.batch(Known(), LARGE) == words(
        "qwen-14b ours", "qwen-14b tutorial", "deepseek-14b ours", "deepseek-14b tutorial",
        "qwen-32b-awq ours", "qwen-32b-awq tutorial",
    )  # fmt: skip
    # On 80 GB there is room for a third server, which would be without what it is held against.
    small = Limits(room=77, servers=6, seconds=575, start=150)
    assert wanted.batch(Known(), small) == words("qwen-14b ours", "qwen-14b tutorial")
    assert wanted.batch(Known(), Limits(137, 3, 575, 150)) == words("qwen-14b ours", "qwen-14b tutorial")
    assert wanted.too_large(Known(), small) == []
    assert wanted.too_large(Known(), Limits(40, 6, 575, 150)) == words(
        "qwen-14b tutorial", "deepseek-14b tutorial"
    )  # fmt: skip


def test_nothing_is_begun_that_cannot_end(catalogue: Catalogue) -> None:
    wanted = plan(catalogue)
    once = dict.fromkeys(EVERY, 1)
    pair = words("qwen-14b ours", "qwen-14b tutorial")
    needed = wanted.seconds(pair, once, Known(), 150)
    assert (
        wanted.batch(Known(), Limits(137, 6, needed - 1, 150)) == []
        or wanted.batch(Known(), Limits(137, 6, needed - 1, 150)) != pair
    )
    assert wanted.batch(Known(), Limits(137, 6, needed, 150))[:2] == pair
    assert wanted.batch(Known(), Limits(137, 6, 100, 150)) == []
    # A start that was seen counts in place of one that was thought of.
    quick = Known(started=[20.0, 30.0])
    assert wanted.batch(quick, Limits(137, 6, needed - 100, 150))


def test_a_run_is_taken_to_last_as_long_as_the_last_of_its_like(catalogue: Catalogue) -> None:
    wanted = plan(catalogue)
    spec = Spec("qwen-14b", TUTORIAL)
    assert wanted.run_seconds(spec, 64, Known()) == pytest.approx(64 * 128 / 2125 * 1.15 + 1.5)
    assert wanted.run_seconds(spec, 8, Known()) == pytest.approx(8 * 128 / 31 * 1.15 + 1.5)
    assert wanted.run_seconds(spec, 64, Known(lasted={(spec, 64): 10.0})) == pytest.approx(13)


def test_each_server_is_asked_once_before_any_is_asked_again(catalogue: Catalogue) -> None:
    wanted = plan(catalogue, rounds=2, at_once=(1, 64))
    one, other = words("qwen-14b ours", "qwen-14b tutorial")
    assert list(wanted.turns([one, other], Known())) == [
        Turn(1, 1, one), Turn(1, 1, other), Turn(1, 64, one), Turn(1, 64, other),
        Turn(2, 1, one), Turn(2, 1, other), Turn(2, 64, one), Turn(2, 64, other),
    ]  # fmt: skip


def test_what_is_done_is_not_done_again_and_what_it_is_held_against_is(catalogue: Catalogue) -> None:
    wanted = plan(catalogue, profiles=["qwen-14b"], rounds=2, at_once=(1, 64))
    one, other = words("qwen-14b ours", "qwen-14b tutorial")
    known = Known(made={(one, 1): 2, (one, 64): 2, (other, 1): 2, (other, 64): 1})
    assert wanted.batch(known, LARGE) == [one, other]
    assert list(wanted.turns([one, other], known)) == [Turn(1, 64, one), Turn(1, 64, other)]
    known.made[other, 64] = 2
    assert wanted.batch(known, LARGE) == []
    # More than was asked for is no debt.
    known.made |= {(one, 1): 9, (other, 64): 1}
    assert list(wanted.turns([one, other], known)) == [Turn(1, 64, one), Turn(1, 64, other)]


def test_what_failed_is_left_out_with_all_that_is_held_against_it(catalogue: Catalogue) -> None:
    wanted = plan(catalogue, [TUTORIAL, OURS, "eager"], profiles=["qwen-14b", "qwq-32b-awq"])
    failed = Known(failed=set(words("qwen-14b ours", "qwq-32b-awq eager")))
    assert wanted.open(failed) == words("qwq-32b-awq tutorial", "qwq-32b-awq ours")
    assert wanted.batch(failed, LARGE) == words("qwq-32b-awq ours", "qwq-32b-awq tutorial")


# --- what is kept -----------------------------------------------------------------------------------------------------


def start(spec: str = "qwen-14b ours", state: str = "ready", *, batch: int = 1, **said: Any) -> Start:
    profile, variant = spec.split()
    usual = {"seconds": 100.0, "argv": ["python3", "-m", "x", "serve", f"/w/{profile}", "--host", "h", "--port", "1"],
             "env": {}, "date": "2026-11-22T03:04:05Z"}  # fmt: skip
    return Start(batch=batch, profile=profile, variant=variant, state=state, **(usual | said))


def made(spec: str, tokens: float, *, batch: int = 1, number: int = 1, at_once: int = 1, **said: Any) -> Made:
    profile, variant = spec.split()
    return Made(batch, number, profile, variant, at_once, said.pop("load", LOAD.key), run(tokens, **said))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    found = Kept(tmp_path)
    found.same(MACHINE, "0.24.0", as_is=False)
    return found


def test_starts_and_runs_are_read_as_they_were_written(kept: Kept) -> None:
    first, second = start(held=[1.5, 2.0], said={"tokens": "1"}), start(state="died", reason="ValueError: x")
    one = made("qwen-14b ours", 100)
    kept.started(first)
    kept.started(second)
    kept.made(one)
    assert kept.starts() == [first, second]
    assert kept.runs() == [one]


def test_half_a_line_of_a_call_that_was_killed_is_no_run_and_spoils_none(kept: Kept) -> None:
    kept.made(made("qwen-14b ours", 100))
    with kept.runs_file.open("a") as file:
        file.write('{"batch": 1, "round": 2, "profi')
    kept.made(made("qwen-14b ours", 200))
    assert [one.run.metrics["output_tokens"] for one in kept.runs()] == [100, 200]
    with kept.runs_file.open("a") as file:
        file.write("{nonsense}\n")
    with pytest.raises(TandemError, match=r"runs\.jsonl: line 4 is not JSON"):
        kept.runs()


def test_a_folder_is_of_one_machine_and_one_vllm(kept: Kept) -> None:
    kept.same(MACHINE, "0.24.0", as_is=False)
    other = MACHINE.model_copy(update={"driver": "1.2"})
    with pytest.raises(TandemError, match=r"was measured on NVIDIA GeForce RTX 4090, driver 580.*name another folder"):
        kept.same(other, "0.24.0", as_is=False)
    with pytest.raises(TandemError, match=r"vLLM 0\.24\.0; here it is .* vLLM 0\.32\.0"):
        kept.same(MACHINE, "0.32.0", as_is=False)
    with pytest.raises(TandemError, match="was measured without --as-is: name another folder"):
        kept.same(MACHINE, "0.24.0", as_is=True)


def test_what_was_measured_before_cards_could_stay_as_they_are_was_as_on_24_gib(kept: Kept) -> None:
    said = json.loads(kept.machine_file.read_text())
    del said["as_is"]
    kept.machine_file.write_text(json.dumps(said))
    assert not kept.machine()[2]
    kept.same(MACHINE, "0.24.0", as_is=False)


def test_only_runs_of_the_same_lengths_count(kept: Kept) -> None:
    kept.made(made("qwen-14b ours", 100, seconds=4.0))
    kept.made(made("qwen-14b ours", 100, seconds=3.0, number=2))
    kept.made(made("qwen-14b ours", 100, load=(2048, 128, 1, 2)))
    known = kept.known(LOAD, again=False)
    spec = Spec("qwen-14b", OURS)
    assert known.made == {(spec, 1): 2}
    assert known.lasted == {(spec, 1): 4.0}


def test_a_server_that_failed_is_tried_again_when_asked_and_one_that_ran_out_of_time_anyway(kept: Kept) -> None:
    kept.started(start("qwen-14b eager", "died", reason="ValueError: x"))
    kept.started(start("qwen-14b ours", "late", seconds=300.0))
    kept.started(start("qwen-14b nccl", "late", seconds=400.0, reason="not ready within 400 s"))
    assert kept.known(LOAD, again=False).failed == set(words("qwen-14b eager", "qwen-14b nccl"))
    assert kept.known(LOAD, again=True).failed == set()
    kept.started(start("qwen-14b eager", batch=2, seconds=70.0))
    assert kept.known(LOAD, again=False).failed == set(words("qwen-14b nccl"))
    assert kept.known(LOAD, again=False).started == [70.0]
    assert kept.batch() == 3


# --- tables -----------------------------------------------------------------------------------------------------------


def test_figures_are_held_against_those_of_the_same_round(kept: Kept) -> None:
    for number, ours, tutorial in ((1, 160, 30), (2, 170, 32), (3, 165, 31)):
        kept.made(made("qwen-14b ours", ours, number=number))
        kept.made(made("qwen-14b tutorial", tutorial, number=number))
        kept.made(made("qwen-14b ours", 5500, number=number, at_once=64))
        kept.made(made("qwen-14b tutorial", 2200, number=number, at_once=64))
    # Later, on a machine that had become slower, and with nothing else in that batch.
    kept.made(made("qwen-14b ours", 40, batch=2))
    kept.started(start(said={"tokens": "60,000", "graphs, as captured": "0.79"}, held=[21.5, 21.4]))
    said = tables.markdown(kept).splitlines()
    assert said[0].startswith("On NVIDIA GeForce RTX 4090, driver 580.95.05")
    assert "| ours | 162.5 (40.00 to 170.0) |  | 5500 (5500 to 5500) |  |" in said
    assert "| tutorial | 31.00 (30.00 to 32.00) | 0.19 | 2200 (2200 to 2200) | 0.40 |" in said
    assert "| qwen-14b | 1 | 31.00 | 165.0 | 5.32 | 5.0 | met |" in said
    assert "| qwen-14b | 64 | 2200 | 5500 | 2.50 | 2.7 | **missed** |" in said
    assert "| qwen-14b ours | 100 | 60,000 | 21.5, 21.4 | 0.79 |  |" in said
    assert "# qwen-14b ours: serve qwen-14b" in said


def test_what_wins_is_beyond_the_spread(kept: Kept) -> None:
    figures = {"ours": (100, 102), "fp8-cache": (103, 110), "eager": (30, 31), "capture-32": (101, 104), "nccl": (90,)}
    for variant, each in figures.items():
        for number, tokens in enumerate(each, start=1):
            kept.made(made(f"qwen-14b {variant}", tokens, number=number, at_once=16))
    said = tables.markdown(kept)
    assert (
        "- qwen-14b, 16 at once: faster than ours beyond the spread: fp8-cache 1.05; slower than ours beyond the "
        "spread: eager 0.30." in said
    )
    assert "| capture-32 | 102.5 (101.0 to 104.0) | 1.01, the same |" in said
    assert "| nccl | 90.00 (90.00 to 90.00) | 0.90, one run |" in said


def test_a_run_with_a_fault_is_not_counted_and_a_server_that_failed_is_told(kept: Kept) -> None:
    kept.made(made("qwen-14b ours", 100))
    kept.made(made("qwen-14b ours", 1, number=2, failed=3, faults=("3 failed: x",)))
    kept.made(made("qwen-14b eager", 1, failed=3, faults=("3 failed: x",)))
    kept.started(start("qwen-14b flashinfer", "died", reason="ImportError: no nvcc"))
    said = tables.markdown(kept).splitlines()
    assert "| ours | 100.0 (100.0 to 100.0) |  |" in said
    assert "| eager | - |  |" in said
    assert "- failed: qwen-14b flashinfer, after 100 s: ImportError: no nvcc" in said


def test_what_was_drafted_is_told(kept: Kept) -> None:
    for number in (1, 2):
        one = made("qwen-14b draft-2", 100, number=number)
        drafts = {"drafts": 50.0, "draft_tokens": 200.0, "accepted_tokens": 50.0}
        kept.made(Made(**{**one.__dict__, "drafts": drafts}))
    assert "| qwen-14b draft-2 | 1 | 400 | 100 | 2.00 |" in tables.markdown(kept)


def test_an_empty_folder_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(TandemError, match="holds no measurement"):
        tables.markdown(Kept(tmp_path))


# --- servers ----------------------------------------------------------------------------------------------------------

# Servers take each hundredth port from here on: those of tests that run beside these are others.
PORT = 23000 + os.getpid() % 100
# What stands for vLLM: up at once, or as its flags say; with a worker.
STAND_IN = """
import http.server, subprocess, sys, time
words = sys.argv
if "--no-such-flag" in words:
    sys.exit("main.py: error: unrecognized arguments: --no-such-flag")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[0]])
if "--never-ready" in words:
    time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *said): pass
print("GPU KV cache size: 60,000 tokens", flush=True)
http.server.HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.fixture
def vllm(tmp_path: Path) -> list[str]:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return [sys.executable, str(path)]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[serving.Servers]:
    found = serving.Servers(tmp_path / "servers.json", PORT, lambda _: None)
    yield found
    found.stop()


def test_a_server_is_ready_died_or_late_and_none_is_left_behind(
    servers: serving.Servers, vllm: list[str], tmp_path: Path
) -> None:
    def begin(name: str, *more: str) -> serving.Server:
        return servers.start(name, lambda port: [*vllm, "--port", str(port), *more], {}, tmp_path / f"{name}.log")

    good, bad = begin("good"), begin("bad", "--no-such-flag")
    servers.wait(time.monotonic() + 600, limit=600)
    slow = begin("slow", "--never-ready")
    servers.wait(time.monotonic() + 600, limit=0)
    assert (good.state, bad.state, slow.state) == ("ready", "died", "late")
    assert servers.up == [good]
    assert serving.sessions().get(slow.process.pid) is None
    assert serving.reason(bad.said())[0] == "main.py: error: unrecognized arguments: --no-such-flag"
    assert serving.reported(good.said())["tokens"] == "60,000"
    assert set(json.loads((tmp_path / "servers.json").read_text())) >= {str(good.process.pid)}
    servers.stop()
    assert serving.sessions().get(good.process.pid) is None
    assert not (tmp_path / "servers.json").exists()


def test_what_a_killed_call_left_behind_is_ended_also_where_its_leader_is_dead(
    servers: serving.Servers, tmp_path: Path
) -> None:
    leader = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    process = subprocess.Popen([sys.executable, "-c", leader], start_new_session=True)
    born = serving.began(process.pid)
    process.wait()
    assert serving.members({process.pid: born})
    (tmp_path / "servers.json").write_text(json.dumps({str(process.pid): born}))
    servers.sweep()
    assert not serving.members({process.pid: born})


def test_a_number_that_is_another_process_now_is_left_alone(servers: serving.Servers, tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        (tmp_path / "servers.json").write_text(json.dumps({str(process.pid): "1"}))
        servers.sweep()
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_one_that_heeds_no_wish_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    serving.end({process.pid: serving.began(process.pid)}, patience=0.2)
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


def test_a_log_tells_memory_and_kernels() -> None:
    text = """
(Worker_TP0 pid=9) INFO 11-23 00:41:55 [gpu_model_runner.py:1] Model loading took 9.34 GiB memory and 3 seconds
(Worker_TP0 pid=9) INFO 11-23 00:41:55 [auto_awq.py:470] Using MacheteLinearKernel for AutoAWQMarlinLinearMethod
(Worker_TP0 pid=9) INFO 11-23 00:41:55 [cuda.py:1] Using FLASH_ATTN attention backend out of potential backends: [...]
(EngineCore pid=8) INFO 11-23 00:41:55 [kv_cache_utils.py:1] GPU KV cache size: 45,056 tokens
(Worker_TP0 pid=9) INFO 11-23 00:41:55 [gpu_model_runner.py:1] Graph capturing finished in 9 secs, took 0.79 GiB
"""
    assert serving.reported(text) == {
        "weights": "9.34", "tokens": "45,056", "graphs, as captured": "0.79", "attention": "FLASH_ATTN",
        "weights' kernel": "MacheteLinearKernel",
    }  # fmt: skip


# --- a whole call -----------------------------------------------------------------------------------------------------


class Asked:
    """Stands for vLLM's benchmark: answers at once, and notes what it was asked; what() may raise in its place."""

    def __init__(self, what: Any = lambda *_: None) -> None:
        self.runs: list[tuple[str, int, int, int]] = []
        self._what = what

    def prepare(self) -> None:
        pass

    def ask(self, address: str, model: str, tokenizer: Path, **said: Any) -> Answer:
        self.runs.append((model, said["at_once"], said["asked"], said["lengths"][1]))
        self._what(self, said)
        return Answer(Run(**{**run(100).model_dump(), "asked": said["asked"], "seed": said["seed"]}), {})


def session(
    folder: Path, vllm: list[str], client: Asked, *more: str, profiles: str = "demo"
) -> tuple[flags.Session, Plan, Catalogue, Kept]:
    options = flags.parser().parse_args(
        ["run", str(folder), "--profiles", profiles, "--variants", "ours", "--concurrency", "1,4", "--rounds", "2",
         "--output", "32", "--room", "100", "--port", str(PORT), *more]
    )  # fmt: skip
    own = dict(map(named, options.more))
    catalogue = Catalogue(folder / "models", own)
    wanted = catalogue.wanted([profiles], ["ours", *own])
    load = Load(options.input, options.output, options.per, options.least)
    found = Plan(wanted, catalogue.against, catalogue.claim, load, options.concurrency, options.rounds)
    kept = Kept(folder)
    kept.same(MACHINE, "0.24.0", as_is=False)
    made: Any = client
    whole = flags.Session(catalogue, found, kept, options, time.monotonic(), command=vllm, client=made)
    return whole, found, catalogue, kept


def left_over(folder: Path) -> list[str]:
    """The processes that were started for a folder and live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            found += [" ".join(words)] if str(folder / "stand_in.py") in words else []
    return found


def test_a_call_measures_what_comes_up_and_keeps_why_the_rest_does_not(tmp_path: Path, vllm: list[str]) -> None:
    client = Asked()
    more = ("--try", "small=--max-num-seqs 1", "--try", "wrong=--no-such-flag")
    whole, wanted, catalogue, kept = session(tmp_path, vllm, client, *more)
    whole.run()
    # A warm-up of each at each number at once, then the rounds.
    assert client.runs[:4] == [("demo", 1, 1, 16), ("demo", 4, 4, 16)] * 2
    assert client.runs[4:] == [("demo", 1, 2, 32)] * 2 + [("demo", 4, 4, 32)] * 2 + [
        ("demo", 1, 2, 32)] * 2 + [("demo", 4, 4, 32)] * 2  # fmt: skip
    assert [(one.variant, one.at_once, one.round) for one in kept.runs()][:3] == [
        ("ours", 1, 1), ("small", 1, 1), ("ours", 4, 1)]  # fmt: skip
    first, second = kept.runs()[:2]
    assert first.run.seed == second.run.seed
    assert len({one.run.seed for one in kept.runs()}) == 4
    assert [one.state for one in kept.starts()] == ["ready", "ready", "died"]
    assert flags.told(catalogue, wanted, kept, whole.known()) == 1
    assert left_over(tmp_path) == []
    # All is done: nothing is started again.
    again, wanted, catalogue, kept = session(tmp_path, vllm, Asked(), *more)
    again.run()
    assert len(kept.starts()) == 3


def test_a_call_whose_time_is_up_is_gone_on_with(tmp_path: Path, vllm: list[str]) -> None:
    def late(client: Asked, said: Any) -> None:
        if len(client.runs) == 5:
            raise LateError

    whole, wanted, catalogue, kept = session(tmp_path, vllm, Asked(late))
    whole.run()
    assert [(one.at_once, one.round) for one in kept.runs()] == [(1, 1), (4, 1)]
    assert flags.told(catalogue, wanted, kept, whole.known()) == 3
    assert left_over(tmp_path) == []
    whole, wanted, catalogue, kept = session(tmp_path, vllm, Asked())
    whole.run()
    assert [(one.batch, one.at_once, one.round) for one in kept.runs()][2:] == [(2, 1, 1), (2, 4, 1)]
    assert flags.told(catalogue, wanted, kept, whole.known()) == 0


def test_what_is_pressed_while_it_measures_leaves_no_server(tmp_path: Path, vllm: list[str]) -> None:
    def pressed(client: Asked, said: Any) -> None:
        if len(client.runs) == 4:
            raise KeyboardInterrupt

    whole, _, _, kept = session(tmp_path, vllm, Asked(pressed))
    with pytest.raises(KeyboardInterrupt):
        whole.run()
    assert len(kept.runs()) == 1
    assert left_over(tmp_path) == []


def test_a_server_that_dies_while_it_is_measured_has_failed_and_the_others_go_on(
    tmp_path: Path, vllm: list[str]
) -> None:
    def broken(client: Asked, said: Any) -> None:
        if len(client.runs) == 6:
            raise TandemError("vllm bench serve failed: x")

    whole, wanted, catalogue, kept = session(tmp_path, vllm, Asked(broken), "--try", "small=--max-num-seqs 1")
    whole.run()
    assert [one.state for one in kept.starts()] == ["ready", "ready", "died"]
    assert kept.starts()[-1].spec == Spec("demo", "small")
    assert "vllm bench serve failed: x" in kept.starts()[-1].reason
    assert [one.variant for one in kept.runs()] == ["ours"] * 4
    assert flags.told(catalogue, wanted, kept, whole.known()) == 1


def test_what_can_never_fit_is_told_before_anything_starts(tmp_path: Path, vllm: list[str]) -> None:
    whole, _, _, kept = session(tmp_path, vllm, Asked(), "--try", "small=--max-num-seqs 1", "--at-once", "1")
    with pytest.raises(TandemError, match=r"demo small: needs 3 GiB .* --at-once is 1"):
        whole.run()
    assert kept.starts() == []


def test_one_call_at_a_time_measures_into_a_folder(tmp_path: Path) -> None:
    with (
        flags.alone(tmp_path),
        pytest.raises(TandemError, match="another call measures into it"),
        flags.alone(tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--rounds", "0"], "--rounds: should be at least 1, got 0"),
        (["--output", "1"], "--output: should be at least 2, got 1"),
        (["--input", "16384"], "--input, --output: qwen-14b tutorial takes 16384 tokens, got 16384 + 128"),
        (["--variants", "marlin", "--profiles", "qwen-14b"], "--variants: marlin are for none of qwen-14b"),
    ],
)
def test_options_that_cannot_be_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], fault: str
) -> None:
    assert flags.main(["run", str(tmp_path / "f"), *more], time.monotonic()) == 2
    assert capsys.readouterr().err == f"error: {fault}\n"
    assert not (tmp_path / "f").exists()


def test_a_plan_is_shown_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flags.main(["plan", str(tmp_path / "f"), "--room", "139", "--seconds", "575"], time.monotonic()) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("batch 1: 3 rounds, ")
    assert said.count("    serve ") == 8
    assert said.splitlines()[-1].startswith("2 batches, ")
    assert not (tmp_path / "f").exists()
    assert flags.main(["plan", str(tmp_path / "f"), "--room", "30"], time.monotonic()) == 1
    assert "do not fit: qwen-14b tutorial" in capsys.readouterr().out


def test_numbers_are_read() -> None:
    assert flags.numbers("64,1,16,1") == (1, 16, 64)
    for text in ("", "0,1", "a"):
        with pytest.raises(ValueError, match=r".*"):
            flags.numbers(text)
    with pytest.raises(SystemExit):
        flags.parser().parse_args(["run", "x", "--concurrency", "0"])
    assert isinstance(flags.parser(), argparse.ArgumentParser)
