"""The stand-ins of the hubs misbehave exactly as told, and their logs say how many bytes they sent."""

import hashlib
import http.client
import json
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest

from tests.checkout import PATIENCE, eventually
from tests.standins.hub_client import DIRECT, HERE, Hub, running

BIG = bytes(range(256)) * 4096
FILES = {"config.json": b"{}", "model.safetensors": BIG, "original/params.json": b"[1]"}
HUBS = {
    "stub_hub.py": ("/api/v1/models/org/name/repo?FilePath={}", "/api/v1/models/org/name/repo/files?Recursive=true"),
    "hf_hub.py": ("/org/name/resolve/main/{}", "/api/models/org/name/tree/main?recursive=true"),
}


def write(root: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / "org/name" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class Asked(Hub):
    """One of the two stand-ins, asked without its client."""

    def __init__(self, address: str, script: str) -> None:
        super().__init__(address)
        self.file, self.listing = HUBS[script]

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body; a connection that dies is an error."""
        try:
            with DIRECT.open(Request(self.address + path, headers=headers), timeout=PATIENCE) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def fetch(self, name: str = "model.safetensors", **headers: str) -> tuple[int, bytes]:
        status, _, body = self.get(self.file.format(name), **headers)
        return status, body

    def ask(self, path: str, **headers: str) -> Any:
        return json.loads(self.get(path, **headers)[2])

    def until_it_dies(self, name: str = "model.safetensors") -> tuple[bytes, type[Exception] | None]:
        """What came of a file, and what ended it."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=PATIENCE)
        came = b""
        try:
            connection.request("GET", self.file.format(name))
            answer = connection.getresponse()
            while piece := answer.read1(65536):
                came += piece
        except OSError as error:
            return came, type(error)
        finally:
            connection.close()
        return came, None

    def until_done(self, name: str | None = "model.safetensors") -> list[dict[str, Any]]:
        """The requests for a file, or all, when none is under way any more: a client has its answer a moment before."""
        eventually(lambda: all(entry["done"] for entry in self.requests(name)), what="requests that ended")
        return self.requests(name)

    def start_over(self, **switches: Any) -> None:
        # What is under way stays in the log.
        self.control(reset=True)
        self.until_done(None)
        super().start_over(**switches)


@pytest.fixture(scope="module", params=HUBS)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    root = tmp_path_factory.mktemp("hub")
    write(root, FILES)
    with running(request.param, root) as hub:
        yield Asked(hub.address, request.param)


@pytest.fixture
def hub(started: Asked) -> Asked:
    started.start_over()
    return started


@pytest.fixture
def modelscope(tmp_path: Path) -> Iterator[Asked]:
    """ModelScope's, with a folder of its own that the test may change, and history."""
    write(tmp_path, FILES)
    with running("stub_hub.py", tmp_path, "--history") as hub:
        yield Asked(hub.address, "stub_hub.py")


def test_files_come_whole_or_from_where_they_are_asked_for(hub: Asked) -> None:
    assert hub.fetch() == (200, BIG)
    assert hub.fetch(Range="bytes=1000000-") == (206, BIG[1000000:])
    assert hub.fetch(Range="bytes=10-19") == (206, BIG[10:20])
    assert hub.fetch(Range=f"bytes={len(BIG)}-")[0] == 416
    assert hub.fetch("none.json")[0] == 404


def test_the_log_says_who_asked_for_what_and_how_much_was_sent(hub: Asked) -> None:
    hub.control(token="secret")
    hub.fetch(Range="bytes=1000000-", Authorization="Bearer secret")
    hub.fetch("original/params.json")
    first, second = hub.requests()
    assert {key: first[key] for key in ("method", "FilePath", "repository", "status", "range", "sent", "cut")} == {
        "method": "GET", "FilePath": "model.safetensors", "repository": "org/name", "status": 206,
        "range": "bytes=1000000-", "sent": len(BIG) - 1000000, "cut": False,
    }  # fmt: skip
    assert [(entry["auth"], entry["authorized"]) for entry in (first, second)] == [(True, True), (False, False)]
    assert hub.sent() == {"model.safetensors": len(BIG) - 1000000, "original/params.json": 3}
    assert "secret" not in json.dumps([hub.requests(), hub.control()])
    hub.until_done(None)
    hub.control(reset_log=True)
    assert (hub.requests(), hub.sent()) == ([], {})


def test_a_listing_counts_as_no_file(hub: Asked) -> None:
    hub.get(hub.listing)
    assert hub.requests()[0]["sent"] > 0
    assert hub.sent() == {}


def test_the_bytes_of_many_threads_add_up(hub: Asked) -> None:
    threads = [threading.Thread(target=hub.fetch) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.sent() == {"model.safetensors": 16 * len(BIG)}


def test_an_answer_that_dies_brings_as_many_bytes_as_the_log_says_and_then_a_reset(hub: Asked) -> None:
    hub.control(die_after=700_001, die_times=2)
    for _ in range(2):
        assert hub.until_it_dies() == (BIG[:700_001], ConnectionResetError)
    assert hub.until_it_dies() == (BIG, None)
    assert hub.fetch("config.json") == (200, b"{}")
    assert [(entry["sent"], entry["cut"]) for entry in hub.until_done()] == [(700_001, True)] * 2 + [(len(BIG), False)]
    assert hub.control()["die_after"] is None


def test_an_answer_may_also_end_early(hub: Asked) -> None:
    hub.control(die_after=700_001, die_gently=True)
    with pytest.raises(http.client.IncompleteRead) as caught:
        hub.fetch()
    assert caught.value.partial == BIG[:700_001]


def test_a_stalled_answer_goes_on_when_that_is_lifted(hub: Asked) -> None:
    hub.control(stall_after=500_000)
    came: list[bytes] = []
    thread = threading.Thread(target=lambda: came.append(hub.fetch()[1]))
    thread.start()
    eventually(lambda: hub.sent().get("model.safetensors") == 500_000, what="a stall after so many bytes")
    assert came == []
    hub.control(stall_after=None)
    thread.join()
    assert came == [BIG]


def test_files_on_their_way_are_cut_when_the_hub_goes_down(hub: Asked) -> None:
    hub.control(stall_after=500_000)
    ended: list[tuple[bytes, type[Exception] | None]] = []
    thread = threading.Thread(target=lambda: ended.append(hub.until_it_dies()))
    thread.start()
    eventually(lambda: hub.sent().get("model.safetensors") == 500_000, what="a stall after so many bytes")
    hub.control(down=True)
    thread.join()
    assert ended == [(BIG[:500_000], ConnectionResetError)]
    with pytest.raises(OSError, match="Remote end closed connection without response"):
        hub.get(hub.listing)


def test_one_byte_is_flipped_each_time_or_once(hub: Asked) -> None:
    flipped = bytearray(BIG)
    flipped[len(BIG) // 2] ^= 255
    hub.control(corrupt=["model.safetensors"])
    assert [hub.fetch()[1], hub.fetch()[1]] == [flipped, flipped]
    hub.start_over(corrupt_once="org/name/model.safetensors")
    # Not yet the byte in question.
    assert hub.fetch(Range="bytes=0-99")[1] == BIG[:100]
    assert [hub.fetch()[1], hub.fetch()[1]] == [flipped, BIG]


def test_range_may_be_ignored(hub: Asked) -> None:
    hub.control(no_range=True)
    assert hub.fetch(Range="bytes=1000000-") == (200, BIG)


@pytest.mark.parametrize(("switch", "status"), [(True, 503), (429, 429), (500, 500)])
def test_everything_may_have_one_status(hub: Asked, switch: bool | int, status: int) -> None:
    hub.control(unavailable=switch)
    assert [hub.get(hub.listing)[0], hub.fetch()[0]] == [status, status]


def test_a_network_that_wants_a_login_answers_html(hub: Asked) -> None:
    hub.control(rubbish=True)
    for path in (hub.listing, hub.file.format("config.json")):
        status, headers, body = hub.get(path)
        assert (status, headers["Content-Type"], body[:6]) == (200, "text/html", b"<html>")


def test_a_hub_that_hangs_answers_nothing_until_that_is_lifted(hub: Asked) -> None:
    hub.control(hang=True)
    connection = http.client.HTTPConnection(hub.address.removeprefix("http://"), timeout=0.3)
    connection.request("GET", hub.listing)
    eventually(hub.requests, what="a request that it has")
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()
    # It notices that nobody waits any more.
    eventually(lambda: hub.requests()[0]["cut"], what="a request that is given up")
    hub.control(hang=False)
    assert hub.get(hub.listing)[0] == 200


def test_a_private_model_needs_the_token(hub: Asked) -> None:
    hub.control(private=["org/name"], token="secret")
    # The hubs tell of private models as they tell of none.
    none = hub.get(hub.listing.replace("name", "none"))[0]
    assert none in {401, 404}
    assert [hub.get(hub.listing)[0], hub.fetch()[0]] == [none, none]
    assert hub.fetch(Authorization="Bearer other")[0] in {401, 404}
    assert hub.fetch(Authorization="Bearer secret") == (200, BIG)
    hub.control(private_status=403)
    assert hub.fetch()[0] == 403


def test_a_session_of_modelscope_is_a_token_too(modelscope: Asked) -> None:
    modelscope.control(private=["org/name"], token="secret")
    assert modelscope.fetch(Cookie="a=b; m_session_id=secret") == (200, BIG)
    assert modelscope.fetch(Cookie="a=b; m_session_id=other")[0] == 404
    assert [(entry["auth"], entry["authorized"]) for entry in modelscope.requests()] == [(True, True), (True, False)]


def test_unknown_switches_and_wrong_values_change_nothing(hub: Asked) -> None:
    before = hub.control()
    for wanted, fault in {
        '{"down": true, "rat": 1}': "no switch rat; there are corrupt, corrupt_once, ",
        '{"down": true, "rate": "1"}': "rate: should be a number from 0 on, got '1'",
        '{"down": true, "die_after": 1.5}': "die_after: should be a whole number from 0 on or null, got 1.5",
        '{"down": 1}': "down: should be true or false, got 1",
        '{"unavailable": 200}': "unavailable: should be true, false or a status from 400 to 599, got 200",
        "[]": "should be a JSON object",
    }.items():
        request = Request(hub.address + "/control", wanted.encode())
        with pytest.raises(urllib.error.HTTPError) as caught:
            DIRECT.open(request, timeout=PATIENCE)
        with caught.value as answer:
            assert answer.code == 400
            assert json.load(answer)["error"].startswith(fault)
    assert hub.control() == before
    assert before["down"] is False


def test_a_rate_holds_for_each_connection_or_for_all_together(hub: Asked) -> None:
    for switches in ({"rate": 4 * len(BIG)}, {"rate_total": 8 * len(BIG)}):
        hub.start_over(**switches)
        began = time.monotonic()
        threads = [threading.Thread(target=hub.fetch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # No less; more it may be on a busy machine.
        assert time.monotonic() - began >= 0.24


def entries(hub: Asked, **query: str) -> dict[str, dict[str, Any]]:
    """ModelScope's listing by path."""
    more = "".join(f"&{key}={value}" for key, value in query.items())
    return {entry["Path"]: entry for entry in hub.ask(hub.listing + more)["Data"]["Files"]}


def head(hub: Asked) -> str:
    newest = max(entries(hub).values(), key=lambda entry: entry["CommittedDate"])
    return str(newest["Revision"])


def test_a_listing_of_modelscope_names_sizes_hashes_and_commits(modelscope: Asked) -> None:
    listed = entries(modelscope)
    assert {path: entry["Type"] for path, entry in listed.items()} == {
        "config.json": "blob", "model.safetensors": "blob", "original": "tree", "original/params.json": "blob",
    }  # fmt: skip
    assert {path: (entry["Size"], entry["Sha256"]) for path, entry in listed.items() if entry["Type"] == "blob"} == {
        path: (len(content), hashlib.sha256(content).hexdigest()) for path, content in FILES.items()
    }
    assert len({entry["Revision"] for entry in listed.values()}) == 3
    assert all(len(entry["Revision"]) == 40 for entry in listed.values())
    committer = modelscope.ask(modelscope.listing)["Data"]["LatestCommitter"]
    assert (committer["Id"], committer["ShortId"]) == ("", head(modelscope)[:8])
    assert committer["CommittedDate"] == max(entry["CommittedDate"] for entry in listed.values())
    assert list(entries(modelscope, Root="original")) == ["original/params.json"]
    flat = modelscope.ask(modelscope.listing.replace("true", "false"))["Data"]["Files"]
    assert [entry["Path"] for entry in flat] == ["config.json", "model.safetensors", "original"]


def test_a_listing_may_lack_hashes_or_name_a_wrong_size(modelscope: Asked) -> None:
    modelscope.control(no_hashes=True, wrong_size={"config.json": 7})
    assert "Sha256" not in entries(modelscope)["config.json"]
    assert entries(modelscope)["config.json"]["Size"] == 7
    modelscope.control(no_hashes="empty")
    assert entries(modelscope)["config.json"]["Sha256"] == ""


def test_an_earlier_commit_is_served_as_it_was(modelscope: Asked, tmp_path: Path) -> None:
    first = head(modelscope)
    file = modelscope.file.format("config.json")
    assert modelscope.get(f"{file}&Revision={first}")[2] == b"{}"
    (tmp_path / "org/name/config.json").write_bytes(b"{ }")
    (tmp_path / "org/name/new.json").write_bytes(b"1")
    second = head(modelscope)
    assert first != second
    assert [modelscope.get(f"{file}&Revision={name}")[2] for name in ("master", second, first)] == [
        b"{ }", b"{ }", b"{}",
    ]  # fmt: skip
    assert "new.json" not in entries(modelscope, Revision=first)
    assert modelscope.get(f"{modelscope.file.format('new.json')}&Revision={first}")[0] == 404
    assert modelscope.get(f"{file}&Revision={'0' * 40}")[0] == 404


def test_without_history_an_earlier_commit_is_gone(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    with running("stub_hub.py", tmp_path) as plain:
        hub = Asked(plain.address, "stub_hub.py")
        first = head(hub)
        assert hub.get(f"{hub.listing}&Revision={first}")[0] == 200
        (tmp_path / "org/name/config.json").write_bytes(b"{ }")
        assert hub.get(f"{hub.listing}&Revision={first}")[0] == 404


def test_the_same_files_have_the_same_commit_elsewhere(modelscope: Asked, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", FILES)
    with running("stub_hub.py", tmp_path / "elsewhere") as other:
        assert head(Asked(other.address, "stub_hub.py")) == head(modelscope)


def test_hugging_face_names_files_as_git_does(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    with running("hf_hub.py", tmp_path) as plain:
        hub = Asked(plain.address, "hf_hub.py")
        listed = {entry["path"]: entry for entry in hub.ask(hub.listing)}
        git = subprocess.run(["git", "hash-object", "--stdin"], input=b"{}", capture_output=True, check=True)
        assert listed["config.json"]["oid"] == git.stdout.decode().strip()
        sha256 = hashlib.sha256(BIG).hexdigest()
        assert listed["model.safetensors"]["lfs"]["oid"] == sha256
        headers = hub.get(hub.file.format("model.safetensors"))[1]
        assert headers["X-Linked-Etag"] == headers["ETag"] == f'"{sha256}"'
        assert hub.ask("/api/models/org/name")["sha"] == headers["X-Repo-Commit"]


def test_a_switch_may_be_given_at_the_start(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    options = ("--die-after", "5", "--corrupt", "a", "--corrupt", "b", "--unavailable", "--wrong-size", "a=b=3",
               "--no-hashes", "empty", "--token", "secret", "--rate", "1e6")  # fmt: skip
    with running("stub_hub.py", tmp_path, *options) as hub:
        state = hub.control()
    assert {name: value for name, value in state.items() if value} == {
        "die_after": 5, "corrupt": ["a", "b"], "unavailable": 503, "wrong_size": {"a=b": 3}, "no_hashes": "empty",
        "token": True, "rate": 1e6,
    }  # fmt: skip


def test_a_wrong_switch_at_the_start_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "stub_hub.py", tmp_path, "--no-hashes", "none"], capture_output=True, text=True,
        check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("no_hashes: should be missing, empty, true or false, got 'none'")
