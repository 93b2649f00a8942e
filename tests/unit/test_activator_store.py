"""What outlives the activator: whole or not at all, and a broken file ends nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.routes import Routes, address
from orchestrator.activator.store import Memory, Store
from orchestrator.switch.world import Footprint


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(Store(tmp_path))


def test_what_is_kept_is_found_by_the_next_activator(tmp_path: Path, memory: Memory) -> None:
    memory.want(["a", "c"])
    memory.begin("b")
    memory.saw_run("a", "2026-11-25T00:00:00Z")
    memory.measured("a", "image-1", Footprint(3, 4))
    memory.stand({"a": ("2026-11-25T00:00:00Z", "ready", 1.5)})
    memory.keep_history({"a": {}})
    again = Memory(Store(tmp_path))
    assert (again.wanted(), again.under_way(), again.run_of("a")) == (["a", "c"], "b", "2026-11-25T00:00:00Z")
    assert (again.footprint("a", "image-1"), again.history()) == (Footprint(3, 4), {"a": {}})
    assert again.stood("a", "2026-11-25T00:00:00Z", "ready") == 1.5
    # In another run, in another state, or another model.
    assert [again.stood("a", "2026-11-26T00:00:00Z", "ready"), again.stood("a", "2026-11-25T00:00:00Z", "asleep")] == [
        None
    ] * 2
    assert again.stood("b", "2026-11-25T00:00:00Z", "ready") is None
    again.begin(None)
    assert memory.under_way() is None


@pytest.mark.parametrize("kept", [[], {"a": 3}, {"a": ["run", "ready"]}, {"a": ["run", "ready", "soon"]}])
def test_a_moment_that_makes_no_sense_is_none(tmp_path: Path, memory: Memory, kept: Any) -> None:
    Store(tmp_path).write("since", kept)
    assert memory.stood("a", "run", "ready") is None


@pytest.mark.parametrize("text", ["{", "", "\x00\x00", "[" * 100_000, '"words"'])
def test_a_broken_file_is_set_aside_with_a_word(
    tmp_path: Path, memory: Memory, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("wish", "switch"):
        (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
    assert (memory.wanted(), memory.under_way()) == ([], None)
    assert (tmp_path / "wish.json.broken").read_text(encoding="utf-8") == text
    assert "set aside" in caplog.text
    memory.want(["a"])
    assert memory.wanted() == ["a"]


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    Memory(Store(tmp_path / "file")).want(["a"])
    assert "cannot be written" in caplog.text


def test_the_wish_that_is_kept_already_costs_no_look_at_the_disk(tmp_path: Path) -> None:
    class Counting(Store):
        looks = 0

        def read(self, name: str) -> Any:
            self.looks += 1
            return super().read(name)

    store = Counting(tmp_path)
    memory = Memory(store)
    for models in (["a"], ["a"], ["a"], ["b"], ["b"]):
        memory.want(models)
    assert store.looks == 2
    assert memory.wanted() == ["b"]


def test_a_wish_that_could_not_be_kept_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = Memory(Store(tmp_path / "file"))
    memory.want(["a"])
    (tmp_path / "file").unlink()
    memory.want(["a"])
    assert memory.wanted() == ["a"]


def test_sleep_results_are_those_of_an_image(memory: Memory) -> None:
    memory.measured("a", "image-1", Footprint(3, 4))
    memory.refuse_sleep("a", "image-1", "it did not wake")
    assert memory.sleep_refused("a", "image-1") == "it did not wake"
    assert memory.footprint("a", "image-1") == Footprint(3, 4)
    assert (memory.sleep_refused("a", "image-2"), memory.footprint("a", "image-2")) == ("", None)


def test_what_a_server_holds_awake_is_that_of_an_image_and_a_claim(tmp_path: Path, memory: Memory) -> None:
    assert memory.awake("a", "image-1", 0.8) == (0, False)
    memory.measured("a", "image-1", Footprint(3, 4))
    memory.held("a", "image-1", 0.8, 5)
    memory.starts_alone("a", "image-1", 0.8)
    memory.held("a", "image-1", 0.8, 6)
    again = Memory(Store(tmp_path))
    assert again.awake("a", "image-1", 0.8) == (6, True)
    assert again.footprint("a", "image-1") == Footprint(3, 4)
    assert (again.awake("a", "image-1", 0.7), again.awake("a", "image-2", 0.8)) == ((0, False), (0, False))
    again.held("a", "image-1", 0.7, 7)
    assert again.awake("a", "image-1", 0.7) == (7, False)


def test_a_passed_sleep_test_clears_what_stood_against_sleep_with_this_image(memory: Memory) -> None:
    memory.measured("a", "image-1", Footprint(3, 4))
    memory.refuse_sleep("a", "image-1", "it did not wake")
    memory.allow_sleep("a", "image-1", 3)
    assert (memory.sleep_refused("a", "image-1"), memory.sleep_passed("a", "image-1")) == ("", 3)
    assert memory.footprint("a", "image-1") == Footprint(3, 4)
    assert memory.sleep_passed("a", "image-2") == 0
    memory.refuse_sleep("a", "image-1", "it did not wake")
    assert (memory.sleep_refused("a", "image-1"), memory.sleep_passed("a", "image-1")) == ("it did not wake", 0)


def test_a_start_is_new_once(memory: Memory) -> None:
    assert [memory.new_start(start) for start in ("1", "1", "2")] == [True, False, True]


def test_routes_are_links_to_where_servers_are(tmp_path: Path) -> None:
    addresses = {"a": "10.0.0.1:8000", "b": "10.0.0.2:8000"}
    routes = Routes(tmp_path, addresses.__getitem__)
    for model in ("a", "b", "a"):
        routes.open(model)
    assert {path.name: str(path.readlink()) for path in (tmp_path / "open").iterdir()} == addresses
    routes.close("b")
    routes.close("b")
    assert routes.opened() == {"a"}
    addresses["a"] = "10.0.0.3:8000"
    routes.only(frozenset("a"))
    assert str((tmp_path / "open" / "a").readlink()) == "10.0.0.3:8000"
    routes.only(frozenset())
    assert routes.opened() == frozenset()
    assert list(tmp_path.iterdir()) == [tmp_path / "open"]


def test_a_server_whose_name_is_not_known_is_nowhere() -> None:
    assert address("no-such-name.invalid") == "nowhere"


def test_states_are_told_as_they_change(tmp_path: Path) -> None:
    routes = Routes(tmp_path, str)
    routes.tell({"a": "ready"})
    assert json.loads((tmp_path / "states.json").read_text()) == {"a": "ready"}
    (tmp_path / "states.json").unlink()
    routes.tell({"a": "ready"})
    assert not (tmp_path / "states.json").exists()
    routes.tell({"a": "asleep"})
    assert json.loads((tmp_path / "states.json").read_text()) == {"a": "asleep"}
