"""A model has its name only when it is whole: after an end at any step the next run finds its way."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from weights import manifest
from weights.store import Store, bytes_in, partial

from tests.checkout import eventually
from tests.unit.models import COMMIT, CONTENT, NAME, NEXT, digest, listing, read, whole, write
from tests.unit.values import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(NAME, tmp_path)


def checked() -> dict[str, str]:
    return {name: digest(data) for name, data in CONTENT.items()}


class Killed(BaseException):
    """What a test ends a process with, between two of its steps."""


def test_nothing_is_there_at_first(store: Store) -> None:
    assert (store.whole(), store.state(), store.finished(), store.used()) == (None, None, False, None)


# Adopting


def test_a_folder_that_nobody_pulled_is_moved_aside_with_all_that_is_in_it(store: Store) -> None:
    write(store.final, {**CONTENT, "notes/mine.txt": b"mine"})
    store.adopt(listing())
    assert not store.final.exists()
    assert read(store.aside) == {**CONTENT, "notes/mine.txt": b"mine"}
    assert (store.whole(), store.finished()) == (None, False)


def test_a_model_with_a_manifest_of_before_is_moved_aside_without_it(store: Store) -> None:
    write(store.final)
    (store.final / manifest.NAME).write_text('{"revision": "master", "files": {"config.json": 2}}', encoding="utf-8")
    store.adopt(listing())
    assert read(store.aside) == CONTENT
    assert not (store.aside / manifest.NAME).exists()


def test_users_files_in_a_folder_that_was_adopted_are_there_when_it_has_its_name_again(store: Store) -> None:
    write(store.final, {**CONTENT, "notes/mine.txt": b"mine"})
    store.adopt(listing())
    store.save(listing())
    store.publish(listing(checked=checked()))
    assert read(store.final) == {**CONTENT, "notes/mine.txt": b"mine"}


def test_of_another_revision_the_files_that_agree_are_adopted_and_it_stays_whole(store: Store) -> None:
    before = whole(store.final)
    other = {**CONTENT, "config.json": b"{ }", "new.txt": b"new"}
    store.adopt(listing(other, resolved=NEXT))
    assert read(store.aside) == {name: data for name, data in CONTENT.items() if name != "config.json"}
    assert store.whole() == before
    assert (store.aside / "model.safetensors").samefile(store.final / "model.safetensors")


def test_a_file_without_a_hash_of_the_hub_is_not_adopted_of_another_revision(store: Store) -> None:
    whole(store.final)
    files = {name: replace(file, sha256="") for name, file in listing().files.items()}
    store.adopt(listing(files=files))
    assert read(store.aside) == {}


def test_what_an_interrupted_adoption_left_out_is_adopted_the_next_time(store: Store) -> None:
    whole(store.final)
    store.aside.mkdir(parents=True)
    store.adopt(listing({**CONTENT, "config.json": b"{ }"}))
    assert set(read(store.aside)) == set(CONTENT) - {"config.json"}


def test_what_was_fetched_of_the_other_revision_is_left_alone(store: Store) -> None:
    whole(store.final)
    write(store.aside, {"config.json": b"{ }", "model.safetensors.incomplete": b"new"})
    other = {**CONTENT, "config.json": b"{ }", "model.safetensors": b"newer"}
    store.adopt(listing(other))
    assert read(store.aside)["config.json"] == b"{ }"
    assert "model.safetensors" not in read(store.aside)


def test_a_pull_that_goes_on_adopts_no_folder_over_its_own(store: Store) -> None:
    write(store.final, {"config.json": b"of someone"})
    write(store.aside, {"config.json": b"fetched"})
    store.adopt(listing())
    assert read(store.aside) == {"config.json": b"fetched"}
    assert read(store.final) == {"config.json": b"of someone"}


def test_a_disk_that_knows_no_second_name_for_a_file_has_it_fetched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    # What exFAT and many network shares answer; the kernel here does not.
    monkeypatch.setattr(os, "link", refuse)
    whole(store.final)
    store.adopt(listing({**CONTENT, "new.txt": b""}))
    assert read(store.aside) == {}


# Publishing


def unfinished(store: Store) -> manifest.Model:
    """Every file is there and was checked; only the name is missing."""
    model = listing(checked=checked())
    write(store.aside)
    store.save(model)
    return model


def test_a_published_model_is_whole_and_nothing_else_is_left(store: Store, tmp_path: Path) -> None:
    model = unfinished(store)
    partial(store.aside / "config.json").write_bytes(b"left over")
    store.publish(model)
    assert store.whole() == model
    assert read(tmp_path) == {f"{NAME}/{name}": data for name, data in CONTENT.items()}
    assert not (store.final / manifest.STATE).exists()
    assert not store.aside.exists()


def test_the_model_before_is_gone_when_the_new_one_has_its_name(store: Store) -> None:
    whole(store.final, {"old.bin": b"old"})
    store.publish(unfinished(store))
    assert read(store.final) == CONTENT
    assert not store.old.exists()


CALLS = ("unlink", "rename", "replace", "rmdir", "mkdir")


def dies(steps: int, run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run with an end before the change of the disk that comes after so many; whether it came to that."""
    left = [steps]

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def either(*arguments: object, **said: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*arguments, **said)

        return either

    with monkeypatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            run()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("before", [None, {"old.bin": b"old", "deep/old.bin": b"old"}])
def test_killed_anywhere_while_it_publishes_a_model_is_the_old_or_the_new_and_the_next_run_ends_it(
    tmp_path: Path, before: dict[str, bytes] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in range(100):
        store = Store(NAME, tmp_path / str(steps))
        old = whole(store.final, before, resolved=NEXT) if before else None
        model = unfinished(store)
        killed = dies(steps, lambda store=store, model=model: store.publish(model), monkeypatch)
        # Nothing half is ever served, and nothing asks a hub again for what was there.
        assert store.whole() in (None, old, model)
        assert store.finished() or store.state() == model or store.whole() == model
        if store.finished():
            store.swap()
        elif store.whole() != model:
            store.publish(model)
        store.sweep()
        assert store.whole() == model
        assert read(store.root) == {f"{NAME}/{name}": data for name, data in CONTENT.items()}
        assert not store.old.exists()
        if not killed:
            assert steps > 4
            return
    pytest.fail("it never came to its end")


def test_killed_anywhere_while_it_adopts_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in range(100):
        store = Store(NAME, tmp_path / str(steps))
        write(store.final, {**CONTENT, "notes.txt": b"mine"})
        (store.final / manifest.NAME).write_text("{}", encoding="utf-8")
        killed = dies(steps, lambda store=store: store.adopt(listing()), monkeypatch)
        store.adopt(listing())
        assert read(store.aside) == {**CONTENT, "notes.txt": b"mine"}
        assert not store.finished()
        if not killed:
            assert steps > 2
            return
    pytest.fail("it never came to its end")


def test_killed_anywhere_while_a_damaged_model_is_set_aside_it_is_never_served_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in range(100):
        store = Store(NAME, tmp_path / str(steps))
        whole(store.final)
        killed = dies(steps, store.set_aside, monkeypatch)
        # Its sizes are right: nothing but the manifest's absence says that it is damaged.
        assert not store.finished()
        if not killed:
            assert store.whole() is None
            assert steps > 1
            return
    pytest.fail("it never came to its end")


def test_killed_anywhere_while_it_is_removed_a_model_is_whole_or_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for steps in range(100):
        store = Store(NAME, tmp_path / str(steps))
        model = whole(store.final)
        killed = dies(steps, store.remove, monkeypatch)
        assert store.whole() is None or (store.whole() == model and steps == 0)
        store.remove()
        assert read(store.root) == {}
        if not killed:
            assert steps > 2
            return
    pytest.fail("it never came to its end")


# Forgetting, removing, sizes


def test_forgotten_files_are_gone_with_what_was_fetched_of_them(store: Store) -> None:
    write(store.aside, {"a": b"1", "deep/b.incomplete": b"2", "c": b"3"})
    store.forget(["a", "deep/b", "not-there"])
    assert read(store.aside) == {"c": b"3"}


def test_a_removed_model_is_gone_and_its_neighbours_stay(store: Store, tmp_path: Path) -> None:
    whole(store.final)
    write(store.aside, {"a.incomplete": b"12345"})
    write(store.old, {"b": b"123"})
    whole(tmp_path / "org/other")
    store.touch()
    kept = bytes_in(tmp_path / "org/other")
    assert store.remove() == kept + 5 + 3
    assert (store.whole(), store.used()) == (None, None)
    assert set(read(tmp_path)) == {f"org/other/{name}" for name in CONTENT}


def test_an_organisation_without_a_model_is_gone_as_well(store: Store, tmp_path: Path) -> None:
    whole(store.final)
    store.remove()
    assert not (tmp_path / "org").exists()


def test_a_link_to_elsewhere_is_removed_and_not_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"mine.bin": b"mine"})
    whole(store.final)
    (store.final / "link").symlink_to(tmp_path / "elsewhere")
    store.remove()
    assert read(tmp_path / "elsewhere") == {"mine.bin": b"mine"}


def test_what_is_present_of_a_file_counts_once_and_never_more_than_it_has(store: Store) -> None:
    file = listing().files["model.safetensors"]
    assert store.present("model.safetensors", file) == 0
    write(store.aside, {"model.safetensors.incomplete": b"12345"})
    assert store.present("model.safetensors", file) == 5
    write(store.aside, {"model.safetensors.incomplete": b"1" * (file.size + 1)})
    assert store.present("model.safetensors", file) == file.size
    write(store.aside, {"model.safetensors": b"123"})
    assert store.present("model.safetensors", file) == 3


def test_a_folder_that_is_not_there_takes_no_bytes_and_a_link_leads_nowhere(store: Store, tmp_path: Path) -> None:
    assert bytes_in(tmp_path / "nowhere") == 0
    write(tmp_path / "large", {"x": b"1" * 5000})
    write(store.final, {"a": b"12", "deep/b": b"345"})
    (store.final / "link").symlink_to(tmp_path / "large")
    assert bytes_in(store.final) < 5000


def test_when_a_server_was_started_last_is_known(store: Store) -> None:
    before = time.time()
    store.touch()
    used = store.used()
    assert used is not None
    assert before - 5 < used < time.time() + 5
    os.utime(store._used, (1, 1))
    store.touch()
    assert store.used() != 1


# The lock


HOLDER = """
import sys
from pathlib import Path
from weights.store import Store
with Store(sys.argv[2], Path(sys.argv[1])).lock() as held:
    print(held, flush=True)
    sys.stdin.read()
"""


def holder(store: Store) -> "subprocess.Popen[str]":
    """Another process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root), store.model], env={"PYTHONPATH": str(ROOT / "docker/vllm")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_the_lock_of_another_process_holds_until_it_is_killed(store: Store) -> None:
    with holder(store) as process:
        with store.lock() as held:
            assert not held
        with Store("org/other", store.root).lock() as held:
            assert held
        process.send_signal(signal.SIGKILL)
        process.wait()
        with store.lock() as held:
            assert held


def test_a_wait_for_the_lock_ends_with_the_process_that_has_it(store: Store) -> None:
    with holder(store) as process, holder_waits(store) as waiting, ExitStack() as stack:
        stack.callback(waiting.kill)
        eventually(lambda: asleep_in_a_lock(waiting.pid), what="another process that waits for the lock")
        process.kill()
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "True\n"


def holder_waits(store: Store) -> "subprocess.Popen[str]":
    program = HOLDER.replace(".lock()", ".lock(wait=True)")
    return subprocess.Popen(
        [sys.executable, "-c", program, str(store.root), store.model], env={"PYTHONPATH": str(ROOT / "docker/vllm")},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def asleep_in_a_lock(process: int) -> bool:
    """The kernel lists who waits for a lock behind an arrow."""
    lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    return any("->" in line and f" {process} " in line for line in lines)


def test_a_lock_is_let_go_of_with_its_block(store: Store) -> None:
    for _ in range(2):
        with store.lock() as held:
            assert held


def test_the_commit_stays_with_a_state_that_is_saved(store: Store) -> None:
    store.save(listing())
    state = store.state()
    assert state is not None
    assert state.resolved == COMMIT
