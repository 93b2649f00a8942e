"""A pull of a hub that behaves as it is told: what came is kept, and nothing half-fetched has the model's name."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from weights import manifest
from weights.checking import FETCHES
from weights.hubs import RefusedError
from weights.manifest import File, Model
from weights.meter import Limit, Teller
from weights.pulling import PAUSES, Pull, Wish
from weights.store import Store, partial

from tests.checkout import PATIENCE, eventually
from tests.unit.models import COMMIT, CONTENT, NAME, NEXT, Hub, read, whole, write
from tests.unit.values import ROOT


class Killed(BaseException):
    """What ends the process of a pull in the middle."""


class NetworkError(ConnectionError):
    """A line that breaks, as ModelScope's client calls it."""


class NotExistError(Exception):
    """What the hub does not have, as ModelScope's client calls it."""


class Told(Teller):
    """Keeps what a pull says."""

    def __init__(self) -> None:
        super().__init__(events=True)
        self.said: list[tuple[str, str]] = []

    def say(self, event: str, text: str, **more: Any) -> None:
        json.dumps(more)
        self.said.append((event, text))

    def of(self, kind: str) -> list[str]:
        return [text for event, text in self.said if event == kind]


class Done(NamedTuple):
    """What came of a pull."""

    told: Told
    error: BaseException | None

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told.said if kind != "progress"]


def pull(store: Store, hub: Hub | None, **said: Any) -> Done:
    """Pull a model; without a hub none may be asked."""

    def connect() -> Hub:
        assert hub is not None, "no hub was to be asked"
        return hub

    told = Told()
    wish = Wish(**({"source": "modelscope", "model": NAME, "revision": "master"} | said))
    try:
        Pull(wish, store, told, connect, Limit(0), pause=lambda _: None).run(lambda: "2026-11-25T00:00:00+00:00")
    except (Exception, Killed) as error:  # noqa: BLE001 (a client may raise anything)
        return Done(told, error)
    return Done(told, None)


def interrupted(store: Store, hub: Hub, name: str = "model.safetensors", at: int = 1024, **said: Any) -> None:
    """A pull that was killed in the middle of a file."""

    def end(hub: Hub, of: str, now: int) -> None:
        if (of, now) == (name, at):
            raise Killed

    hub.before = end
    assert isinstance(pull(store, hub, **said).error, Killed)
    hub.before = lambda hub, name, at: None
    hub.did.clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(NAME, tmp_path)


@pytest.fixture
def hub() -> Hub:
    return Hub()


def found(store: Store) -> Model:
    model = store.whole()
    assert model is not None
    assert read(store.final) == CONTENT
    assert not store.aside.exists()
    return model


# From nothing, and with all of it there


def test_a_model_is_pulled_and_its_commit_written_down(store: Store, hub: Hub) -> None:
    done = pull(store, hub)
    model = found(store)
    assert (done.error, model.revision, model.resolved, model.pulled[:4]) == (None, "master", COMMIT, "2026")
    assert hub.did == ["list org/name master", *(f"fetch {name} from 0" for name in CONTENT)]
    assert done.kinds == ["listing", "begin", *["file"] * len(CONTENT), "complete"]
    assert done.told.of("complete") == [f"org/name is complete: 2.1 kB, master, commit {COMMIT[:12]}"]


def test_a_model_of_one_file_in_a_folder_is_pulled(store: Store) -> None:
    assert pull(store, Hub({"deep/er/x": b"x"})).error is None
    assert read(store.final) == {"deep/er/x": b"x"}


def test_a_model_of_one_empty_file_is_pulled(store: Store) -> None:
    assert pull(store, Hub({"empty": b""})).error is None
    assert read(store.final) == {"empty": b""}


def test_a_start_with_a_whole_model_asks_no_hub(store: Store) -> None:
    whole(store.final)
    done = pull(store, None, for_start=True)
    assert (done.error, done.kinds) == (None, ["complete"])


def test_a_whole_model_of_a_commit_asks_no_hub(store: Store) -> None:
    whole(store.final)
    assert pull(store, None, revision=COMMIT).error is None


def test_a_whole_model_is_compared_with_the_hub_and_nothing_is_fetched(store: Store, hub: Hub) -> None:
    whole(store.final)
    done = pull(store, hub)
    assert (done.error, hub.did, done.kinds) == (None, ["list org/name master"], ["complete"])


def test_a_whole_model_whose_hub_is_down_is_complete_with_a_warning(store: Store, hub: Hub) -> None:
    model = whole(store.final)

    def down(listed: Model) -> Model:
        raise NetworkError("refused")

    hub.listed = down
    done = pull(store, hub)
    assert (done.error, done.kinds, store.whole()) == (None, ["warning", "complete"], model)
    assert done.told.said[0][1] == "whether org/name has changed on ModelScope is not known: refused"


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_what_is_no_folder_in_the_model_s_place_is_left_alone_and_named(store: Store, hub: Hub, kind: str) -> None:
    store.final.parent.mkdir(parents=True)
    if kind == "file":
        store.final.write_text("mine", encoding="utf-8")
    else:
        target = store.root / "elsewhere"
        if kind == "link":
            target.mkdir()
        store.final.symlink_to(target)
    for _ in range(2):
        error = pull(store, hub).error
        assert isinstance(error, RefusedError)
        word = "a file" if kind == "file" else "a link"
        assert str(error).startswith(f"{word} is where org/name belongs, in the place of the weights (TANDEM_MODELS)")
    assert hub.did == []
    assert os.path.lexists(store.final)
    assert not store.aside.exists()


def test_a_file_that_this_user_may_not_read_is_not_fetched_again(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, *_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    write(store.final, CONTENT)
    monkeypatch.setattr("weights.hashes.sha256", closed)
    assert isinstance(pull(store, hub).error, PermissionError)
    assert [line for line in hub.did if line.startswith("fetch")] == []


def test_a_file_of_another_user_s_comes_along_where_it_can_have_no_second_name(
    store: Store, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    whole(store.final, revision="v0")
    (store.final / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr(os, "link", refused)
    assert pull(store, hub).error is None
    assert (store.final / "notes.txt").read_text(encoding="utf-8") == "mine"


# Going on


def test_a_pull_that_was_killed_goes_on_and_fetches_nothing_again(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    assert store.whole() is None
    assert not store.final.exists()
    assert pull(store, hub).error is None
    # The commit is known: not even the listing is asked for again.
    assert hub.did == ["fetch model.safetensors from 1024"]
    found(store)


def test_killed_at_any_piece_of_any_file_it_goes_on_from_there(tmp_path: Path) -> None:
    pieces = [(name, at) for name, data in CONTENT.items() for at in range(0, len(data), 512)]
    assert len(pieces) > 5
    for name, at in pieces:
        store, hub = Store(NAME, tmp_path / f"{name.replace('/', '-')}-{at}"), Hub()
        store.root.mkdir()
        interrupted(store, hub, name, at)
        assert store.whole() is None
        assert pull(store, hub).error is None
        assert next(line for line in hub.did if line.startswith("fetch")) == f"fetch {name} from {at}"
        found(store)


def test_a_start_goes_on_with_a_pull_too(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    assert pull(store, hub, for_start=True).error is None
    assert hub.did == ["fetch model.safetensors from 1024"]


def test_what_was_killed_before_its_name_was_there_asks_no_hub(store: Store) -> None:
    model = whole(store.aside)
    done = pull(store, None, for_start=True)
    assert (done.error, store.whole()) == (None, model)


def test_the_old_folder_of_a_publishing_that_was_killed_goes(store: Store, hub: Hub) -> None:
    whole(store.final)
    write(store.old, {"old.bin": b"old"})
    assert pull(store, hub).error is None
    assert not store.old.exists()


def test_a_start_of_what_is_whole_waits_for_no_update_of_it(store: Store) -> None:
    whole(store.final)
    with Store(store.model, store.root).lock() as mine:
        assert mine
        assert store.busy
        assert pull(store, None, for_start=True).error is None
    assert not store.busy


def test_an_update_is_no_success_while_the_hub_is_down(store: Store, hub: Hub) -> None:
    def down(found: Model) -> Model:
        raise ConnectionError(f"nobody there who knows {found.model}")

    whole(store.final)
    hub.listed = down
    assert pull(store, hub).error is None
    assert isinstance(pull(store, hub, update=True).error, ConnectionError)


def test_what_a_user_put_beside_a_model_comes_along_to_its_next_revision(store: Store, hub: Hub) -> None:
    whole(store.final, revision="v0")
    (store.final / "notes.txt").write_text("mine", encoding="utf-8")
    assert pull(store, hub).error is None
    assert (store.final / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_state_that_cannot_be_read_is_no_reason_to_fetch_again(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    (store.aside / manifest.STATE).write_text('{"form', encoding="utf-8")
    assert pull(store, hub).error is None
    assert hub.did == ["list org/name master", "fetch model.safetensors from 1024"]


def test_what_was_checked_and_is_gone_is_fetched_again(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    state = store.state()
    assert state is not None
    assert "config.json" in state.checked
    (store.aside / "config.json").unlink()
    assert pull(store, hub).error is None
    assert hub.did == ["fetch config.json from 0", "fetch model.safetensors from 1024"]
    found(store)


def test_files_that_a_killed_pull_had_not_checked_are_checked_and_not_fetched(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    state = store.state()
    assert state is not None
    store.save(replace(state, checked={}))
    (store.aside / "config.json").write_bytes(b"{ ")
    done = pull(store, hub)
    assert done.error is None
    assert hub.did == ["fetch config.json from 0", "fetch model.safetensors from 1024"]
    assert done.told.of("damaged") == ["config.json is not what the hub lists: it is fetched again"]
    found(store)


@pytest.mark.parametrize("content", [b"", b"{", b"{ } more"])
def test_a_file_of_another_size_is_fetched_again(store: Store, hub: Hub, content: bytes) -> None:
    write(store.final, {**CONTENT, "config.json": content})
    assert pull(store, hub).error is None
    assert hub.did == ["list org/name master", "fetch config.json from 0"]
    found(store)


def test_a_folder_that_nobody_pulled_is_checked_and_taken_with_what_else_is_in_it(store: Store, hub: Hub) -> None:
    write(store.final, {**CONTENT, "model.safetensors": bytes(2048), "notes/mine.txt": b"mine"})
    assert pull(store, hub).error is None
    assert hub.did == ["list org/name master", "fetch model.safetensors from 0"]
    assert read(store.final) == {**CONTENT, "notes/mine.txt": b"mine"}
    assert store.whole() is not None


def test_a_model_that_was_found_damaged_has_that_file_fetched_alone(store: Store, hub: Hub) -> None:
    model = whole(store.final)
    write(store.final, {"model.safetensors": bytes(2048)})
    store.set_aside()
    store.save(replace(model, checked={k: v for k, v in model.checked.items() if k != "model.safetensors"}))
    assert pull(store, hub).error is None
    assert hub.did == ["fetch model.safetensors from 0"]
    found(store)


def test_a_file_that_the_disk_cannot_read_is_fetched_again(store: Store, hub: Hub) -> None:
    write(store.final, {name: data for name, data in CONTENT.items() if name != "figures/a.png"})
    # A file of no bytes, of which each read is an error of the disk.
    (store.final / "figures").mkdir()
    (store.final / "figures/a.png").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error"):
        (store.final / "figures/a.png").read_bytes()
    assert pull(store, hub).error is None
    assert hub.did == ["list org/name master", "fetch figures/a.png from 0"]
    found(store)


# Two at once


def test_two_pulls_at_once_do_the_work_once(store: Store, hub: Hub) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(hub: Hub, name: str, at: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    hub.before = wait
    results: list[Done] = []
    first = threading.Thread(target=lambda: results.append(pull(store, hub)))
    first.start()
    assert begun.wait(PATIENCE)
    told = Told()
    wish = Wish("modelscope", NAME, "master", for_start=True)
    second = Pull(wish, store, told, lambda: pytest.fail("the hub was asked twice"), Limit(0))
    other = threading.Thread(target=second.run, args=(lambda: "",))
    other.start()
    eventually(lambda: told.of("waiting"), what="the second pull waits")
    go_on.set()
    first.join(PATIENCE)
    other.join(PATIENCE)
    assert [done.error for done in results] == [None]
    assert told.of("complete") != []
    assert len([line for line in hub.did if line.startswith("fetch")]) == len(CONTENT)
    found(store)


KILLED = """
import sys
from pathlib import Path
from tests.unit.models import NAME, Hub
from weights.meter import Limit, Teller
from weights.pulling import Pull, Wish
from weights.store import Store

def stop(hub, name, at):
    if (name, at) == ("model.safetensors", 1024):
        print("there", flush=True)
        sys.stdin.read()

store = Store(NAME, Path(sys.argv[1]))
Pull(Wish("modelscope", NAME, "master"), store, Teller(events=True), lambda: Hub(before=stop), Limit(0)).run(str)
"""


def test_a_process_that_is_killed_blocks_nobody_and_what_it_fetched_is_kept(store: Store, hub: Hub) -> None:
    path = os.pathsep.join((str(ROOT), str(ROOT / "docker/vllm")))
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(store.root)], env={"PYTHONPATH": path},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert any(line == "there\n" for line in process.stdout)
        process.kill()
        process.wait()
        assert pull(store, hub).error is None
    assert hub.did == ["fetch model.safetensors from 1024"]
    found(store)


def test_no_thread_of_a_pull_is_at_work_any_more_when_another_may_begin(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A check that is under way when the pull ends must not take a file away from the next pull.
    begun, let_go, ended = threading.Event(), threading.Event(), threading.Event()
    seen = []

    class Watched(Store):
        @contextmanager
        def lock(self, *, wait: bool = False) -> Iterator[bool]:
            with super().lock(wait=wait) as held:
                try:
                    yield held
                finally:
                    seen.append(ended.is_set())
                    let_go.set()

    def slow(*_: Any) -> None:
        begun.set()
        let_go.wait(0.3)
        ended.set()

    def end(hub: Hub, name: str, at: int) -> None:
        if name == "model.safetensors":
            assert begun.wait(PATIENCE)
            raise Killed

    hub.before = end
    monkeypatch.setattr("weights.hashes.sha256", slow)
    assert isinstance(pull(Watched(NAME, tmp_path), hub).error, Killed)
    assert seen == [True]


# The hub changes


CHANGED = {**CONTENT, "config.json": b"{ }"}


def changed(hub: Hub) -> None:
    hub.content, hub.resolved = dict(CHANGED), NEXT


def test_a_later_change_upstream_is_told_and_not_taken(store: Store, hub: Hub) -> None:
    model = whole(store.final)
    changed(hub)
    done = pull(store, hub)
    assert (done.error, done.kinds, store.whole()) == (None, ["changed", "complete"], model)
    assert done.told.of("changed") == [
        "org/name has changed on ModelScope since 2026-11-23 (config.json); what is here stays, --update takes the new"
    ]
    found(store)


def test_an_update_takes_what_changed_and_keeps_what_did_not(store: Store, hub: Hub) -> None:
    whole(store.final)
    changed(hub)
    assert pull(store, hub, update=True).error is None
    assert [line for line in hub.did if line.startswith("fetch")] == ["fetch config.json from 0"]
    assert read(store.final) == CHANGED
    model = store.whole()
    assert model is not None
    assert model.resolved == NEXT


def test_an_update_that_was_killed_leaves_the_model_before_and_goes_on(store: Store, hub: Hub) -> None:
    model = whole(store.final)
    hub.content, hub.resolved = {**CONTENT, "model.safetensors": b"1" * 2048}, NEXT
    interrupted(store, hub, update=True)
    assert store.whole() == model
    assert pull(store, None, for_start=True).error is None
    assert pull(store, hub, update=True).error is None
    assert [line for line in hub.did if line.startswith("fetch")] == ["fetch model.safetensors from 1024"]
    assert read(store.final)["model.safetensors"] == b"1" * 2048


def test_an_update_of_what_did_not_change_fetches_nothing(store: Store, hub: Hub) -> None:
    whole(store.final)
    done = pull(store, hub, update=True)
    assert (done.error, hub.did, done.kinds) == (None, ["list org/name master"], ["complete"])


def test_a_file_that_is_gone_upstream_is_gone_after_an_update(store: Store, hub: Hub) -> None:
    whole(store.final, {**CONTENT, "old.bin": b"old"})
    assert pull(store, hub, update=True).error is None
    assert read(store.final) == CONTENT


def test_with_its_commit_known_a_pull_goes_on_with_what_it_began_with(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    hub.resolved = NEXT
    assert pull(store, hub).error is None
    assert found(store).resolved == COMMIT


def test_a_commit_that_the_hub_no_longer_has_is_one_line_and_an_update_takes_what_is_there(
    store: Store, hub: Hub
) -> None:
    interrupted(store, hub)

    def gone(hub: Hub, name: str, at: int) -> None:
        raise NotExistError("404")

    hub.before = gone
    error = pull(store, hub).error
    assert isinstance(error, RefusedError)
    assert str(error) == (
        f"ModelScope no longer has what this pull of org/name began with, commit {COMMIT[:12]} of master. "
        "Take what is there now with --update; files that are the same are kept"
    )
    hub.before = lambda hub, name, at: None
    changed(hub)
    hub.did.clear()
    assert pull(store, hub, update=True).error is None
    fetched = [line for line in hub.did if line.startswith("fetch")]
    assert fetched == ["fetch config.json from 0", "fetch model.safetensors from 1024"]


def test_with_no_commit_known_a_change_during_a_pull_is_refused_until_an_update(store: Store, hub: Hub) -> None:
    hub.resolved = ""
    interrupted(store, hub)
    hub.content = {**CONTENT, "model.safetensors": b"1" * 2048}
    error = pull(store, hub).error
    assert isinstance(error, RefusedError)
    assert str(error).startswith("org/name changed on ModelScope while it was being pulled (model.safetensors). Take ")
    assert pull(store, hub, update=True).error is None
    # Half of the file as it was is no half of what it is now.
    assert hub.did[-1] == "fetch model.safetensors from 0"
    assert read(store.final)["model.safetensors"] == b"1" * 2048


def test_with_no_commit_known_and_no_change_a_pull_goes_on(store: Store, hub: Hub) -> None:
    hub.resolved = ""
    interrupted(store, hub)
    assert pull(store, hub).error is None
    assert hub.did == ["list org/name master", "fetch model.safetensors from 1024"]


def test_another_revision_takes_the_place_and_fetches_what_differs(store: Store, hub: Hub) -> None:
    whole(store.final)
    changed(hub)
    assert pull(store, hub, revision="v2", for_start=True).error is None
    assert [line for line in hub.did if line.startswith("fetch")] == ["fetch config.json from 0"]
    model = store.whole()
    assert model is not None
    assert (model.revision, model.resolved) == ("v2", NEXT)


def test_half_of_one_revision_is_no_half_of_another(store: Store, hub: Hub) -> None:
    interrupted(store, hub)
    hub.content, hub.resolved = {**CONTENT, "model.safetensors": b"1" * 2048}, NEXT
    assert pull(store, hub, revision="v2").error is None
    assert hub.did[-1] == "fetch model.safetensors from 0"
    assert read(store.final) == hub.content


# What is refused


def test_a_listing_without_hashes_is_refused_unless_sizes_are_enough(store: Store, hub: Hub) -> None:
    def bare(listed: Model) -> Model:
        return replace(listed, files=listed.files | {"config.json": File(2)})

    hub.listed = bare
    error = pull(store, hub).error
    assert isinstance(error, RefusedError)
    assert str(error) == (
        "the hub gives no hash for 1 of 4 files of org/name (config.json): what arrives could not be checked. "
        "Take it by its sizes alone with --unhashed"
    )
    assert not any(line.startswith("fetch") for line in hub.did)
    assert pull(store, hub, unhashed=True).error is None
    # What arrived has a hash of its own from now on.
    assert found(store).checked["config.json"] != ""


class Full(Store):
    """A disk with so many bytes free."""

    room = 0

    def free(self) -> int:
        return self.room


def test_no_room_is_said_before_anything_is_fetched(tmp_path: Path, hub: Hub) -> None:
    store = Full(NAME, tmp_path)
    store.room = sum(map(len, CONTENT.values())) - 1
    error = pull(store, hub).error
    assert isinstance(error, RefusedError)
    assert str(error).startswith("org/name takes 2.1 kB more, and 2.1 kB are free where the weights are. ")
    assert hub.did == ["list org/name master"]
    store.room += 1
    assert pull(store, hub).error is None


def test_what_is_there_already_needs_no_room(tmp_path: Path, hub: Hub) -> None:
    store = Full(NAME, tmp_path)
    store.room = 10**6
    interrupted(store, hub)
    store.room = 1024
    assert pull(store, hub).error is None


def test_a_disk_that_fills_up_ends_the_pull_and_what_was_fetched_is_kept(store: Store, hub: Hub) -> None:
    def full(hub: Hub, name: str, at: int) -> None:
        if at == 1024:
            raise OSError(errno.ENOSPC, "No space left on device")

    hub.before = full
    error = pull(store, hub).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    hub.before = lambda hub, name, at: None
    hub.did.clear()
    assert pull(store, hub).error is None
    assert hub.did == ["fetch model.safetensors from 1024"]


# Damage


def flips(hub: Hub, times: int) -> Callable[[Hub, str, int], None]:
    """The file arrives changed so often."""
    right, left = hub.content["model.safetensors"], [times]

    def before(hub: Hub, name: str, at: int) -> None:
        if (name, at) == ("model.safetensors", 0):
            hub.content["model.safetensors"] = bytes(2048) if left[0] > 0 else right
            left[0] -= 1

    return before


def test_a_file_that_arrives_damaged_is_fetched_again_and_it_alone(store: Store, hub: Hub) -> None:
    listed = hub.listing(NAME, "master")
    hub.listed = lambda found: replace(listed, revision=found.revision)
    hub.before = flips(hub, FETCHES - 1)
    done = pull(store, hub)
    assert done.error is None
    assert done.told.of("damaged") == ["model.safetensors arrived damaged: it is fetched again"] * (FETCHES - 1)
    assert len([line for line in hub.did if line.startswith("fetch config.json")]) == 1
    found(store)


def test_a_file_that_arrives_damaged_each_time_ends_the_pull_and_is_not_served(store: Store, hub: Hub) -> None:
    listed = hub.listing(NAME, "master")
    hub.listed = lambda found: listed
    hub.before = flips(hub, 10)
    done = pull(store, hub)
    assert isinstance(done.error, RefusedError)
    assert str(done.error).startswith("what arrives is not what ModelScope lists: model.safetensors has another hash ")
    assert len([line for line in hub.did if line.startswith("fetch model")]) == FETCHES
    assert store.whole() is None
    assert not (store.aside / "model.safetensors").exists()
    state = store.state()
    assert state is not None
    assert set(state.checked) == set(CONTENT) - {"model.safetensors"}


# Lines


def test_a_line_that_breaks_goes_on_where_it_broke(store: Store, hub: Hub) -> None:
    broken = []

    def breaks(hub: Hub, name: str, at: int) -> None:
        if name == "model.safetensors" and at not in broken:
            broken.append(at)
            raise NetworkError("reset by peer")

    hub.before = breaks
    done = pull(store, hub)
    assert done.error is None
    # As long as something comes, however often.
    assert len(broken) == 4
    assert [line for line in hub.did if "model" in line] == [
        f"fetch model.safetensors from {at}" for at in (0, 0, 512, 1024, 1536)
    ]
    assert done.told.of("retry")[-1].startswith("the line broke at 75% of org/name (reset by peer); going on")
    found(store)


def test_a_line_that_stays_down_ends_the_pull_after_some_tries(store: Store, hub: Hub) -> None:
    def down(hub: Hub, name: str, at: int) -> None:
        if name == "model.safetensors":
            raise NetworkError("refused")

    hub.before = down
    done = pull(store, hub)
    assert isinstance(done.error, NetworkError)
    # The first try fetched the other files.
    assert len([line for line in hub.did if "model.safetensors" in line]) == len(PAUSES) + 2
    assert store.whole() is None


def test_an_error_that_no_other_try_mends_ends_the_pull_at_once(store: Store, hub: Hub) -> None:
    def closed(hub: Hub, name: str, at: int) -> None:
        raise type("PermissionDeniedError", (Exception,), {})("403")

    hub.before = closed
    done = pull(store, hub)
    assert type(done.error).__name__ == "PermissionDeniedError"
    assert len([line for line in hub.did if line.startswith("fetch")]) == 1


def test_a_hub_that_returns_without_delivering_ends_the_pull(store: Store) -> None:
    class Empty(Hub):
        def fetch(self, listed: Model, names: list[str], folder: Path, meter: Any) -> None:
            self.did.append("fetch nothing")

    hub = Empty()
    error = pull(store, hub).error
    assert isinstance(error, RefusedError)
    assert str(error) == "config.json of org/name was fetched and is not there: see the log"
    assert hub.did[1:] == ["fetch nothing"]


def test_a_hub_that_delivers_a_file_a_time_is_asked_until_all_are_there(store: Store) -> None:
    class Slow(Hub):
        def fetch(self, listed: Model, names: list[str], folder: Path, meter: Any) -> None:
            super().fetch(listed, names[:1], folder, meter)

    assert pull(store, Slow()).error is None
    found(store)


def test_a_hub_that_tells_nothing_of_how_far_it_is_delivers_all_the_same(store: Store) -> None:
    class Silent(Hub):
        def fetch(self, listed: Model, names: list[str], folder: Path, meter: Any) -> None:
            for name in names:
                write(folder, {name: self.content[name]})

    assert pull(store, Silent()).error is None
    found(store)


def test_no_half_of_a_file_is_left_beside_a_whole_model(store: Store, hub: Hub) -> None:
    write(store.final, {"config.json": b"{}"})
    partial(store.final / "config.json").write_bytes(b"{")
    assert pull(store, hub).error is None
    found(store)


def test_a_place_that_cannot_be_written_is_an_error_of_the_disk(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / ".tandem").write_text("a file", encoding="utf-8")
    error = pull(Store(NAME, tmp_path), hub).error
    assert isinstance(error, OSError)
