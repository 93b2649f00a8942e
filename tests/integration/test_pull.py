"""Weights come from the hub once, by the real modelscope client. The hub is a stand-in, in a container of its own."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from tests.checkout import LONG_PATIENCE, PATIENCE, ROOT, eventually
from tests.integration.conftest import STARTED, Stack, stack
from tests.integration.hub import Hub, hub, prepare
from tests.integration.test_failures import fault

pytestmark = pytest.mark.docker

PROJECT = "tandem-test-pull"
MODELS = """
[defaults]
image = "cpu"

[models.small]
model = "Tandem/small"
max_model_len = 1024
enforce_eager = true
shm_size = "1gb"

[models.big]
model = "Tandem/big"

[models.two]
model = "Tandem/two"

[models.secret]
model = "Tandem/secret"

[models.absent]
model = "Tandem/absent"

[models.by-id]
model = "Tandem/small"
pull = false
max_model_len = 1024
enforce_eager = true
shm_size = "1gb"

[models.mine]
model = "./docker/demo/model"
"""
MEGABYTE = 10**6
# Where the hub stops sending a file, for a test that does something in the middle of a pull: it is not over meanwhile.
# The client asks for the rest after a minute, and is given as much again. A multiple of the pieces that it counts in.
STALL = 4 << 20
# Of what is sent in all, over what the model has: what is on its way when a process is killed comes again.
ALLOWED = 1.01


@pytest.fixture(scope="module")
def pulling(images: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose models are on a hub at http://hub:8080; its weights are in a folder, where a test can look."""
    for made in stack(tmp_path_factory.mktemp("pull"), PROJECT):
        prepare(made, MODELS, MODELSCOPE_ENDPOINT="http://hub:8080")
        yield made


@pytest.fixture(scope="module")
def good(pulling: Stack) -> Iterator[Hub]:
    """The hub; a test that has it misbehave sets it right again."""
    with hub(pulling) as made:
        shutil.copytree(ROOT / "docker/demo/model", made.folder / "Tandem/small")
        yield made


@pytest.fixture
def empty(pulling: Stack, good: Hub) -> Hub:
    """The hub, with nothing pulled and nothing asked for yet."""
    wipe = ["--entrypoint", "sh", "pull-small", "-c", "rm -rf /models/* /models/.tandem"]
    assert pulling.compose("--profile", "small", "run", "--rm", "-T", *wipe).returncode == 0
    for folder in (good.folder / "Tandem").iterdir():
        if folder.name != "small":
            shutil.rmtree(folder)
    good.start_over()
    return good


def right(stack: Stack, model: str, files: dict[str, bytes]) -> None:
    """Check that a model is there whole, every byte of it, under its name and nowhere else."""
    weights = stack.folder / "weights"
    for name, content in files.items():
        assert sha256((weights / model / name).read_bytes()).digest() == sha256(content).digest(), name
    manifest = json.loads((weights / model / ".tandem-manifest.json").read_text())
    assert manifest["checked"] == {name: sha256(content).hexdigest() for name, content in files.items()}
    assert {name: file["size"] for name, file in manifest["files"].items()} == {n: len(c) for n, c in files.items()}
    assert not list((weights / ".tandem/pulling").rglob("*.safetensors*"))


def under_way(stack: Stack, name: str, *, least: int, **more: str) -> "subprocess.Popen[str]":
    """Start a pull; return when so many bytes of it are there, or it has ended. The hub is to stop it in the middle."""
    started = stack.start(stack.argv("pull", name, "--json"), **more)
    STARTED.append(started)
    assert started.stdout is not None
    for line in started.stdout:
        if json.loads(line).get("bytes", 0) >= least:
            break
    return started


def containers(stack: Stack, service: str) -> list[str]:
    """The ids of the running containers of a service."""
    labels = [f"com.docker.compose.project={PROJECT}", f"com.docker.compose.service={service}"]
    filters = [word for label in labels for word in ("--filter", f"label={label}")]
    return stack.run(["docker", "ps", "-q", *filters]).stdout.split()


def kill(stack: Stack, started: "subprocess.Popen[str]", service: str) -> None:
    """Kill a pull's container as the kernel or the power would, and see its command end."""
    idents = containers(stack, service)
    assert len(idents) == 1
    killed = stack.run(["docker", "kill", "--signal", "KILL", *idents])
    assert killed.returncode == 0, killed.stderr
    _, said = started.communicate(timeout=PATIENCE)
    assert started.returncode == 1
    assert "its container was ended from outside (exit code 137). Run it again, and it goes on" in said
    eventually(lambda: not containers(stack, service), what="the end of the container")


def pulled(stack: Stack, *arguments: str, **more: str) -> list[dict[str, Any]]:
    """Pull to the end; the events."""
    done = stack.tandem("pull", *arguments, "--json", **more)
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_up_pulls_the_weights_and_then_serves_them_to_be_read_alone(pulling: Stack, empty: Hub) -> None:
    done = pulling.tandem("up", "small")
    assert done.returncode == 0, done.stderr
    assert pulling.complete("small", "Who are you?", max_tokens=40) == "I am demo, a tiny model of Tandem for any CPU."
    assert empty.by_file()["model.safetensors"] == (empty.folder / "Tandem/small/model.safetensors").stat().st_size
    tried = pulling.compose("--profile", "small", "exec", "small", "touch", "/models/Tandem/small/new")
    assert tried.returncode != 0
    assert "Read-only file system" in tried.stderr
    # What a server has is not removed; its use is known.
    assert fault(pulling.tandem("models", "remove", "small"), 1).startswith("Tandem/small is served by small: ")
    rows = {row["profile"]: row for row in json.loads(pulling.tandem("models", "--json").stdout)["models"]}
    assert (rows["small"]["state"], rows["small"]["serving"]) == ("complete", True)
    # A pull runs beside it; what serves goes on.
    empty.make("Tandem/two", model=MEGABYTE)
    pulled(pulling, "two")
    assert pulling.complete("small", "Who are you?", max_tokens=40) == "I am demo, a tiny model of Tandem for any CPU."
    assert pulling.tandem("down", "small").returncode == 0


def test_a_server_needs_no_hub_and_no_network(pulling: Stack, empty: Hub) -> None:
    pulled(pulling, "small")
    run = ["run", "--rm", "-d", "--no-deps", "--name", f"{PROJECT}-cut", "small"]
    # Compose has no option for it: the same service, on no network.
    pulling.write("cut.yaml", "services:\n  small:\n    network_mode: none\n    networks: !reset null\n")
    files = ["-f", "compose.yaml", "-f", "cut.yaml", "--profile", "small"]
    started = pulling.compose(*files, *run)
    assert started.returncode == 0, started.stderr
    probe = ["docker", "exec", f"{PROJECT}-cut", "python3", "/opt/tandem/healthcheck.py", "small"]
    try:
        eventually(lambda: pulling.run(probe).returncode == 0, seconds=LONG_PATIENCE, what="a server with no network")
        seen = pulling.run(["docker", "exec", f"{PROJECT}-cut", "printenv", "HF_HUB_OFFLINE"]).stdout
        assert seen == "1\n"
    finally:
        pulling.run(["docker", "rm", "-f", f"{PROJECT}-cut"])


@pytest.mark.slow
def test_a_server_that_is_given_an_id_fetches_the_model_itself_as_in_the_tutorial(pulling: Stack, empty: Hub) -> None:
    done = pulling.tandem("up", "by-id")
    assert done.returncode == 0, done.stderr
    assert pulling.complete("by-id", "Who are you?", max_tokens=40) == "I am demo, a tiny model of Tandem for any CPU."
    variables = pulling.inspect("by-id")["Config"]["Env"]
    assert "VLLM_USE_MODELSCOPE=true" in variables
    assert "Tandem/small" in pulling.inspect("by-id")["Config"]["Cmd"]
    size = (empty.folder / "Tandem/small/model.safetensors").stat().st_size
    assert empty.by_file()["model.safetensors"] == size
    # What it fetched stays when its container goes.
    find = ["exec", "by-id", "find", "/cache", "-name", "model.safetensors", "-size", f"{size}c"]
    assert pulling.compose("--profile", "by-id", *find).stdout.startswith("/cache/modelscope/")
    assert pulling.tandem("down", "by-id").returncode == 0


def test_weights_that_are_complete_need_no_hub_for_a_start(pulling: Stack, empty: Hub) -> None:
    pulled(pulling, "small")
    before = len(empty.requests())
    again = pulling.compose("--profile", "small", "run", "--rm", "pull-small", MODELSCOPE_ENDPOINT="http://nowhere:1")
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("tandem: Tandem/small is complete: ")
    assert len(empty.requests()) == before


@pytest.mark.slow
def test_killed_at_twenty_points_it_fetches_what_is_missing_and_no_more(pulling: Stack, empty: Hub) -> None:
    # What is lost each time is what comes in the milliseconds that a process takes to die, some 0.2 MB at this rate: of
    # the 28 GB of a real model it would be a fiftieth of this share.
    files = empty.make("Tandem/big", a=400 * MEGABYTE, b=160 * MEGABYTE, sub__c=40 * MEGABYTE)
    total = sum(map(len, files.values()))
    chance = random.Random(4)
    # The last tenth comes in less time than it may take to kill.
    points = sorted(chance.randrange(total * 9 // 10) for _ in range(20))
    with empty.behaving(rate_total=40 * MEGABYTE):
        for least in points:
            started = under_way(pulling, "big", least=least)
            kill(pulling, started, "pull-big")
            assert not (pulling.folder / "weights/Tandem/big").exists()
        assert pulled(pulling, "big")[-1]["event"] == "complete"
        sent = empty.total()
    right(pulling, "Tandem/big", files)
    assert total <= sent < total * ALLOWED, f"{sent} bytes for {total}"


def test_two_at_once_fetch_once(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", model=24 * MEGABYTE)
    with empty.behaving(stall_after=STALL):
        first = under_way(pulling, "two", least=MEGABYTE)
        second = pulling.start(pulling.argv("pull", "two", "--json"))
        STARTED.append(second)
        assert second.stdout is not None
        assert any("waiting for Tandem/two: " in line for line in second.stdout)
        empty.control(stall_after=None)
        for started in (first, second):
            started.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (0, 0)
    assert empty.total() == sum(map(len, files.values()))
    right(pulling, "Tandem/two", files)


def test_a_lock_of_a_dead_process_does_not_block(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", model=20 * MEGABYTE)
    with empty.behaving(stall_after=STALL):
        kill(pulling, under_way(pulling, "two", least=MEGABYTE), "pull-two")
    assert list((pulling.folder / "weights/.tandem/locks").iterdir())
    assert "waiting" not in {event["event"] for event in pulled(pulling, "two")}
    right(pulling, "Tandem/two", files)


def test_ctrl_c_leaves_no_container_and_keeps_what_was_fetched(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", model=20 * MEGABYTE)
    with empty.behaving(stall_after=STALL):
        started = under_way(pulling, "two", least=3 * MEGABYTE)
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=PATIENCE)
        assert started.returncode == 130
        assert said == "interrupted: what was fetched is kept, and the next pull goes on from there\n"
        assert containers(pulling, "pull-two") == []
        rows = {row["profile"]: row for row in json.loads(pulling.tandem("models", "--json").stdout)["models"]}
        assert rows["two"]["state"] == "partial"
        assert 3 * MEGABYTE <= rows["two"]["bytes"] < 20 * MEGABYTE == rows["two"]["total"] - len(files["config.json"])
    pulled(pulling, "two")
    assert empty.total() < 21 * MEGABYTE
    right(pulling, "Tandem/two", files)


def test_a_flipped_bit_on_the_wire_is_fetched_again(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=3 * MEGABYTE, b=5 * MEGABYTE)
    with empty.behaving(corrupt_once=["b.safetensors"]):
        pulled(pulling, "two")
    assert empty.by_file() == {"config.json": 3, "a.safetensors": 3 * MEGABYTE, "b.safetensors": 10 * MEGABYTE}
    right(pulling, "Tandem/two", files)


def test_bits_that_flip_each_time_end_it_with_one_line(pulling: Stack, empty: Hub) -> None:
    empty.make("Tandem/two", a=3 * MEGABYTE, b=5 * MEGABYTE)
    with empty.behaving(corrupt=["b.safetensors"]):
        said = fault(pulling.tandem("pull", "two"), 1)
    assert said.startswith("two: could not pull Tandem/two (master): what arrives is not what ModelScope lists: b.safe")
    assert "another MODELSCOPE_ENDPOINT in .env" in said
    assert not (pulling.folder / "weights/Tandem/two").exists()
    empty.start_over()
    pulled(pulling, "two")
    assert empty.by_file() == {"b.safetensors": 5 * MEGABYTE}


def test_a_flipped_bit_in_a_partial_file_is_found_and_that_file_fetched_again(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, b=20 * MEGABYTE)
    with empty.behaving(stall_after=STALL):
        kill(pulling, under_way(pulling, "two", least=2 * MEGABYTE + STALL), "pull-two")
    flip(pulling, ".tandem/pulling/Tandem/two/b.safetensors.incomplete")
    empty.start_over()
    pulled(pulling, "two")
    sent = empty.by_file()
    assert sorted(sent) == ["b.safetensors"]
    assert 20 * MEGABYTE < sent["b.safetensors"] < 40 * MEGABYTE
    right(pulling, "Tandem/two", files)


def flip(stack: Stack, name: str) -> None:
    """Flip a bit in a file of the weights."""
    with (stack.folder / "weights" / name).open("r+b") as stream:
        stream.seek(1000)
        byte = stream.read(1)[0]
        stream.seek(1000)
        stream.write(bytes([byte ^ 1]))


def test_verify_finds_a_flipped_bit_and_the_next_pull_fetches_that_file_alone(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, sub__b=3 * MEGABYTE)
    pulled(pulling, "two")
    good = pulling.tandem("verify", "two", "--weights")
    assert good.returncode == 0, good.stderr
    assert "Tandem/two is as it was pulled: 3 files, 5.0 MB" in good.stderr
    flip(pulling, "Tandem/two/sub/b.safetensors")
    said = fault(pulling.tandem("verify", "two", "--weights"), 1)
    assert said.startswith("Tandem/two is damaged: sub/b.safetensors. It is not served any more; ")
    # Whoever starts a server by hand gets none either.
    served = pulling.compose("--profile", "two", "run", "--rm", "--no-deps", "-T", "two")
    assert served.returncode == 1
    assert "weights missing: /models/Tandem/two is not there, not whole, or was found damaged" in served.stderr
    empty.start_over()
    pulled(pulling, "two")
    assert empty.by_file() == {"sub/b.safetensors": 3 * MEGABYTE}
    right(pulling, "Tandem/two", files)


def test_a_line_that_breaks_again_and_again_costs_nothing(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", model=20 * MEGABYTE)
    with empty.behaving(die_after=6 * MEGABYTE):
        pulled(pulling, "two")
    assert empty.total() < 20 * MEGABYTE * ALLOWED
    right(pulling, "Tandem/two", files)


def test_a_hub_without_ranges_sends_a_file_whole_again(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, b=20 * MEGABYTE)
    with empty.behaving(no_range=True, stall_after=STALL):
        kill(pulling, under_way(pulling, "two", least=2 * MEGABYTE + STALL), "pull-two")
        empty.start_over(no_range=True)
        pulled(pulling, "two")
    assert empty.by_file() == {"b.safetensors": 20 * MEGABYTE}
    right(pulling, "Tandem/two", files)


def test_a_limit_of_the_rate_is_kept(pulling: Stack, empty: Hub) -> None:
    empty.make("Tandem/two", a=10 * MEGABYTE, b=10 * MEGABYTE)
    began = time.monotonic()
    events = pulled(pulling, "two", "--limit-rate", "4M")
    # The first pieces, of up to 1 MB for each file, come before there is anything to wait for.
    assert time.monotonic() - began > (20 - 2) / 4
    told = [event for event in events if event["event"] == "progress" and event["bytes"] < event["total"]]
    assert told
    # Once those first pieces are but a little of it; who was kept from telling for a while says nothing of then.
    assert told[-1]["bytes"] <= 15 * MEGABYTE or told[-1]["rate"] < 4.5 * MEGABYTE
    said = fault(pulling.tandem("pull", "two", "--limit-rate", "fast"), 1)
    assert said == '--limit-rate: should be bytes a second such as 5M or 800k, got "fast"'


def test_what_changes_upstream_is_told_and_taken_when_asked(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, b=3 * MEGABYTE)
    pulled(pulling, "two")
    commit = json.loads((pulling.folder / "weights/Tandem/two/.tandem-manifest.json").read_text())["resolved"]
    assert len(commit) == 40
    files["a.safetensors"] = b"new"
    (empty.folder / "Tandem/two/a.safetensors").write_bytes(b"new")
    (empty.folder / "Tandem/two/b.safetensors").rename(empty.folder / "Tandem/two/c.safetensors")
    empty.start_over()
    told = {event["event"]: event["text"] for event in pulled(pulling, "two")}
    assert "has changed on ModelScope" in told["changed"]
    assert f"commit {commit[:12]}" in told["complete"]
    assert empty.by_file() == {}
    # A start does not even ask.
    assert pulling.compose("--profile", "two", "run", "--rm", "pull-two").returncode == 0
    pulled(pulling, "two", "--update")
    # The third file has another name and the same bytes; whole files of the old revision are not fetched again.
    files["c.safetensors"] = files.pop("b.safetensors")
    assert "config.json" not in empty.by_file()
    right(pulling, "Tandem/two", files)
    assert not (pulling.folder / "weights/Tandem/two/b.safetensors").exists()


def test_a_hub_that_changes_under_a_pull_is_no_mixture(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, b=20 * MEGABYTE)
    with empty.behaving(stall_after=STALL):
        kill(pulling, under_way(pulling, "two", least=2 * MEGABYTE + STALL), "pull-two")
    files["b.safetensors"] = files["b.safetensors"][::-1]
    (empty.folder / "Tandem/two/b.safetensors").write_bytes(files["b.safetensors"])
    said = fault(pulling.tandem("pull", "two"), 1)
    assert "ModelScope no longer has what this pull of Tandem/two began with, commit " in said
    assert "--update" in said
    empty.start_over()
    pulled(pulling, "two", "--update")
    assert empty.by_file() == {"b.safetensors": 20 * MEGABYTE}
    right(pulling, "Tandem/two", files)


def test_a_model_that_needs_a_token(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/secret", model=20 * MEGABYTE)
    token = f"ms-{random.Random(5).randbytes(16).hex()}"
    with empty.behaving(private=["Tandem/secret"], token=token, stall_after=STALL):
        said = fault(pulling.tandem("pull", "secret"), 1)
        assert "ModelScope has no model Tandem/secret at revision master, or it is private" in said
        assert "MODELSCOPE_API_TOKEN or TANDEM_MODELSCOPE_TOKEN_FILE" in said
        started = under_way(pulling, "secret", least=MEGABYTE, MODELSCOPE_API_TOKEN=token)
        idents = containers(pulling, "pull-secret")
        assert len(idents) == 1
        seen = pulling.run(["docker", "inspect", *idents]).stdout
        seen += pulling.run(["docker", "top", idents[0], "-eo", "args"]).stdout
        seen += pulling.run(["ps", "-eo", "args"]).stdout
        seen += pulling.run(["docker", "logs", idents[0]]).stdout
        seen += pulling.compose("--profile", "*", "config", MODELSCOPE_API_TOKEN=token).stdout
        assert "pull.py" in seen
        assert token not in seen
        empty.control(stall_after=None)
        out, said = started.communicate(timeout=PATIENCE)
        assert started.returncode == 0
        assert token not in out + said
    right(pulling, "Tandem/secret", files)
    assert pulling.tandem("models", "remove", "secret").returncode == 0
    held = pulling.folder / "token"
    held.write_text(token + "\n")
    held.chmod(0o644)
    with empty.behaving(private=["Tandem/secret"], token=token):
        # With a file, `docker compose` alone can do it too.
        alone = pulling.compose(
            "--profile", "secret", "run", "--rm", "pull-secret", TANDEM_MODELSCOPE_TOKEN_FILE=str(held)
        )
        assert alone.returncode == 0, alone.stderr
    right(pulling, "Tandem/secret", files)


def test_what_the_hub_does_not_have_is_one_line(pulling: Stack, empty: Hub) -> None:
    said = fault(pulling.tandem("up", "absent"), 1)
    assert said.startswith(
        "absent has no weights: could not pull Tandem/absent (master): "
        "ModelScope has no model Tandem/absent at revision master, or it is private. See `model` and `revision` in"
    )


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"down": True}, "ModelScope does not answer, or the line breaks: "),
        ({"unavailable": 503}, "ModelScope does not answer, or the line breaks: "),
        ({"rubbish": True}, "what answers there is no ModelScope: "),
        ({"no_hashes": "missing"}, "the hub gives no hash for 2 of 2 files of Tandem/two (config.json): "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_hub_that_is_none_is_one_line(pulling: Stack, empty: Hub, switches: dict[str, Any], words: str) -> None:
    empty.make("Tandem/two", model=MEGABYTE)
    with empty.behaving(**switches):
        said = fault(pulling.tandem("pull", "two"), 1)
    assert said.startswith((f"two: could not pull Tandem/two (master): {words}", f"two: {words}"))
    assert not (pulling.folder / "weights/Tandem/two").exists()


def test_a_listing_without_hashes_is_taken_when_asked(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", model=MEGABYTE)
    with empty.behaving(no_hashes="missing"):
        pulled(pulling, "two", "--unhashed")
    right(pulling, "Tandem/two", files)


def test_models_are_listed_and_removed(pulling: Stack, empty: Hub) -> None:
    empty.make("Tandem/two", model=MEGABYTE)
    pulled(pulling, "two", "small")
    shown = pulling.tandem("models")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].split() == ["PROFILE", "SIZE", "STATE", "REVISION", "LAST", "USED"]
    assert all(len(line) <= 80 for line in lines)
    cells = {line.split()[0]: line.split() for line in lines[1:] if line}
    assert cells["two"][1:4] == ["1.0", "MB", "complete"]
    assert cells["absent"][1:3] == ["-", "missing"]
    assert cells["mine"][3] == "folder"
    removed = pulling.tandem("models", "remove", "two")
    assert (removed.returncode, removed.stdout) == (0, "removed Tandem/two: 1.0 MB are free again\n")
    assert not (pulling.folder / "weights/Tandem/two").exists()
    assert fault(pulling.tandem("models", "remove", "two"), 1) == "Tandem/two is not there"
    assert fault(pulling.tandem("models", "remove", "mine"), 1) == (
        "mine: ./docker/demo/model is a folder of yours; nothing of it is removed"
    )
    assert (pulling.folder / "docker/demo/model/config.json").is_file()


def test_a_volume_that_is_not_there_yet_is_made_and_filled(pulling: Stack, empty: Hub) -> None:
    empty.make("Tandem/two", model=MEGABYTE)
    volume = {"TANDEM_MODELS": "models"}
    pulled(pulling, "two", **volume)
    assert pulling.tandem("verify", "two", "--weights", **volume).returncode == 0
    rows = {r["profile"]: r["state"] for r in json.loads(pulling.tandem("models", "--json", **volume).stdout)["models"]}
    assert (rows["two"], rows["small"]) == ("complete", "missing")
    assert pulling.tandem("models", "remove", "two", **volume).returncode == 0


def test_a_folder_that_the_user_has_already_is_taken_after_a_check(pulling: Stack, empty: Hub) -> None:
    files = empty.make("Tandem/two", a=2 * MEGABYTE, b=3 * MEGABYTE)
    own = pulling.folder / "weights/Tandem/two"
    own.mkdir(parents=True)
    (own / "a.safetensors").write_bytes(files["a.safetensors"])
    (own / "b.safetensors").write_bytes(b"x" * 3 * MEGABYTE)
    (own / "notes.txt").write_text("mine")
    for path in (own.parent, own, *own.iterdir()):
        os.chown(path, 1000, 1000)
    pulled(pulling, "two")
    assert empty.by_file() == {"config.json": 3, "b.safetensors": 3 * MEGABYTE}
    right(pulling, "Tandem/two", files)
    assert (own / "notes.txt").read_text() == "mine"
