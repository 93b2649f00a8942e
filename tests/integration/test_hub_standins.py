"""The real clients pull from the stand-ins of their hubs, and of each misbehaviour they make what is written here.

So the stand-ins are as good as the hubs for tests of what pulls weights; and a client that behaves otherwise one day is
found here. One container a client tries everything; see hub_driver.py for what of a try can be said.
"""

import json
import subprocess
from typing import Any

import pytest

from tests.checkout import ROOT, Checkout
from tests.integration.conftest import SERVER_IMAGE

pytestmark = pytest.mark.docker

SECONDS = 1500
WEIGHTS = 12_000_000
NAME = "model.safetensors"
DIES = {"die_after": 11_000_000}
PRIVATE = {"private": ["org/name"], "token": "good"}
WHOLE = {"config.json": 2, NAME: WEIGHTS, "sub/notes.txt": 1}

Tries = Found = dict[str, dict[str, Any]]

TRIES: Tries = {
    "plain": {},
    "again": {"folder": "plain"},
    "dies once": {"with": {**DIES, "die_times": 1}},
    "ends early once": {"with": {**DIES, "die_times": 1, "die_gently": True}},
    "ends early once without ranges": {"with": {**DIES, "die_times": 1, "die_gently": True, "no_range": True}},
    "dies": {"with": {"die_after": 5_000_000}},
    "after it died": {"folder": "dies"},
    "corrupt once": {"with": {"corrupt_once": [NAME]}},
    "corrupt": {"with": {"corrupt": [NAME]}},
    "corrupt without hashes": {"with": {"corrupt": [NAME], "no_hashes": "missing"}},
    "larger than listed": {"with": {"wrong_size": {NAME: WEIGHTS - 1}}},
    "smaller than listed": {"with": {"wrong_size": {NAME: WEIGHTS + 1}}},
    "down": {"with": {"down": True}},
    "unavailable": {"with": {"unavailable": True}},
    "too many requests": {"with": {"unavailable": 429}},
    "rubbish": {"with": {"rubbish": True}},
    "hangs": {"ask": True, "with": {"hang": True}},
    "lists slowly": {"ask": True, "with": {"slow_listing": 600}},
    "absent": {"model": "org/none"},
    "no such branch": {"revision": "v9"},
    "no such commit": {"revision": "0" * 40},
    "private": {"with": PRIVATE},
    "private, 403": {"with": {**PRIVATE, "private_status": 403}},
    "private with the token": {"with": PRIVATE, "token": "good"},
    "private with another token": {"with": PRIVATE, "token": "bad"},
    "the branch went on": {"changed": {"config.json": "{ }"}},
    "the first commit": {"revision": "first"},
}
MODELSCOPE: Tries = {"stalls": {"with": {"stall_after": 4_000_000}}}
HUGGINGFACE: Tries = {
    "gated": {"with": {"gated": ["org/name"], "token": "good"}},
    "gated with the token": {"with": {"gated": ["org/name"], "token": "good"}, "token": "good"},
    "asked": {"ask": True},
    "asked without hashes": {"ask": True, "with": {"no_hashes": "missing"}},
}
# Limits are low: what is tested is how it ends, not how patient it is. A good answer takes a fraction of a second.
PATIENT = "5"
LIMITS = {
    "MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS": "1", "MODELSCOPE_REPO_TREE_PAGE_TIMEOUT_SECONDS": PATIENT,
    "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1", "MODELSCOPE_DOWNLOAD_TIMEOUT": PATIENT, "HF_HUB_DOWNLOAD_TIMEOUT": PATIENT,
    "HF_HUB_ETAG_TIMEOUT": PATIENT, "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Our images have it on.
    "HF_HUB_OFFLINE": "0",
}  # fmt: skip


def drive(client: str, tries: Tries) -> Found:
    """Try all in one container that no network reaches."""
    name = f"tandem-test-stub-{client}"
    mounts = {ROOT / "tests/standins": "/standins", ROOT / "tests/integration/hub_driver.py": "/hub_driver.py"}
    # One that an interrupted run left would be in the way.
    subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=True)
    try:
        done = subprocess.run(
            ["docker", "run", "--rm", "--interactive", "--name", name, "--network", "none",
             *(word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}:ro")),
             *(word for limit in LIMITS.items() for word in ("--env", "=".join(limit))),
             "--entrypoint", "/opt/vllm/bin/python", SERVER_IMAGE, "/hub_driver.py", "/standins", client],
            input=json.dumps(tries), capture_output=True, text=True, check=False, timeout=SECONDS,
        )  # fmt: skip
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def modelscope(images: Checkout) -> Found:
    return drive("modelscope", TRIES | MODELSCOPE)


@pytest.fixture(scope="module")
def huggingface(images: Checkout) -> Found:
    return drive("huggingface", TRIES | HUGGINGFACE)


def whole(found: dict[str, Any]) -> bool:
    return found["error"] is None and all(found["whole"].values())


def test_modelscope_pulls_a_model_once(modelscope: Found) -> None:
    assert whole(modelscope["plain"])
    assert modelscope["plain"]["sent"] == WHOLE
    assert whole(modelscope["again"])
    assert modelscope["again"]["sent"] == {}


@pytest.mark.parametrize("name", ["dies once", "ends early once"])
def test_modelscope_goes_on_where_a_connection_died(modelscope: Found, name: str) -> None:
    assert whole(modelscope[name])
    assert modelscope[name]["ranges"] == [None, "bytes=11000000-"]
    assert modelscope[name]["sent"] == WHOLE


def test_modelscope_starts_a_file_over_where_ranges_are_ignored(modelscope: Found) -> None:
    found = modelscope["ends early once without ranges"]
    assert whole(found)
    assert found["sent"][NAME] == 11_000_000 + WEIGHTS


@pytest.mark.parametrize(("name", "kept"), [("dies", 10_000_000), ("stalls", 8_000_000)])
def test_modelscope_gives_up_a_line_that_keeps_dying_and_keeps_what_came(
    modelscope: Found, name: str, kept: int
) -> None:
    found = modelscope[name]
    assert (found["error"], found["failed"]) == ("FileDownloadError", {NAME: "NetworkError"})
    assert f"- {NAME}: [E1020] 下载 {NAME} 在 1 次重试后失败：ConnectionError" in found["text"]
    assert (found["sent"][NAME], found["partial"]) == (kept, [f"{NAME}.incomplete"])


def test_modelscope_goes_on_in_the_next_run(modelscope: Found) -> None:
    found = modelscope["after it died"]
    assert whole(found)
    assert (found["ranges"], found["sent"]) == (["bytes=10000000-"], {NAME: 2_000_000})


def test_modelscope_fetches_what_is_corrupt_three_times_and_leaves_nothing_of_it(modelscope: Found) -> None:
    assert whole(modelscope["corrupt once"])
    assert modelscope["corrupt once"]["sent"][NAME] == 2 * WEIGHTS
    found = modelscope["corrupt"]
    assert (found["error"], found["failed"]) == ("FileDownloadError", {NAME: "FileIntegrityError"})
    assert "[E2020] Hash mismatch for model.safetensors: expected 05a3910833213c4b..., got " in found["text"]
    assert (found["sent"][NAME], found["partial"]) == (3 * WEIGHTS, [])


def test_modelscope_believes_what_comes_where_the_hub_names_no_hash(modelscope: Found) -> None:
    found = modelscope["corrupt without hashes"]
    assert (found["error"], found["whole"][NAME]) == (None, False)


@pytest.mark.parametrize(
    ("name", "listed"), [("larger than listed", WEIGHTS - 1), ("smaller than listed", WEIGHTS + 1)]
)
def test_modelscope_refuses_a_file_of_another_size(modelscope: Found, name: str, listed: int) -> None:
    found = modelscope[name]
    assert (found["error"], found["failed"]) == ("FileDownloadError", {NAME: "FileSizeMismatchError"})
    assert f"Server announced 12000000 bytes for {NAME} but the repository lists {listed} bytes" in found["text"]
    assert found["partial"] == []


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("down", "NetworkError", "[E1020] Connection failed: ('Connection aborted.', RemoteDisconnected('Remote end "),
        ("unavailable", "ServerError", "[E1002] [503] Service Unavailable (request_id=stub)"),
        ("too many requests", "RateLimitError", "[E1021] [429] Too Many Requests (request_id=stub)"),
        ("rubbish", "JSONDecodeError", "Expecting value: line 1 column 1 (char 0)"),
        ("hangs", "RequestTimeoutError", "[E1001] Request timed out: "),
        ("lists slowly", "RequestTimeoutError", "[E1001] Request timed out: "),
        ("absent", "HTTPError", "[E3020] [404] no repo org/none "),
        ("no such branch", "HTTPError", "[E3020] [404] no revision v9 "),
        ("no such commit", "HTTPError", f"[E3020] [404] no revision {'0' * 40} "),
        ("private", "HTTPError", "[E3020] [404] no repo org/name "),
        ("private, 403", "HTTPError", "[E3002] [403] no repo org/name "),
        ("private with another token", "HTTPError", "[E3020] [404] no repo org/name "),
    ],
)
def test_modelscope_says_why_nothing_came(modelscope: Found, name: str, error: str, text: str) -> None:
    found = modelscope[name]
    assert (found["error"], found["text"][: len(text)]) == (error, text)
    assert found["sent"] == {}


def test_huggingface_pulls_a_model_once(huggingface: Found) -> None:
    assert whole(huggingface["plain"])
    assert huggingface["plain"]["sent"] == WHOLE
    assert whole(huggingface["again"])
    assert huggingface["again"]["sent"] == {}


def test_huggingface_goes_on_at_its_last_10_mib_where_an_answer_ended_early(huggingface: Found) -> None:
    found = huggingface["ends early once"]
    assert whole(found)
    assert found["ranges"] == [None, "bytes=10485760-"]
    assert found["sent"][NAME] == 11_000_000 + WEIGHTS - 10_485_760
    without = huggingface["ends early once without ranges"]
    assert whole(without)
    assert without["sent"][NAME] == 11_000_000 + WEIGHTS


@pytest.mark.parametrize("name", ["dies", "dies once"])
def test_huggingface_gives_up_at_a_reset_and_keeps_nothing(huggingface: Found, name: str) -> None:
    found = huggingface[name]
    assert (found["error"], found["text"]) == ("ReadError", "[Errno 104] Connection reset by peer")
    assert (found["ranges"], found["partial"]) == ([None], [])


def test_huggingface_starts_a_file_over_in_the_next_run(huggingface: Found) -> None:
    found = huggingface["after it died"]
    assert whole(found)
    assert (found["ranges"], found["sent"]) == ([None], {NAME: WEIGHTS})


@pytest.mark.parametrize("name", ["corrupt", "corrupt once", "corrupt without hashes"])
def test_huggingface_believes_what_comes(huggingface: Found, name: str) -> None:
    assert (huggingface[name]["error"], huggingface[name]["whole"][NAME]) == (None, False)


@pytest.mark.parametrize(
    ("name", "listed"), [("larger than listed", WEIGHTS - 1), ("smaller than listed", WEIGHTS + 1)]
)
def test_huggingface_refuses_a_file_of_another_size(huggingface: Found, name: str, listed: int) -> None:
    text = f"Consistency check failed: file should be of size {listed} but has size 12000000"
    assert (huggingface[name]["error"], huggingface[name]["text"][: len(text)]) == ("OSError", text)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("down", "RemoteProtocolError", "Server disconnected without sending a response."),
        ("unavailable", "LocalEntryNotFoundError", "Got: HfHubHTTPError: Server error '503 Service Unavailable' for "),
        ("too many requests", "LocalEntryNotFoundError", "Got: HfHubHTTPError: 429 Too Many Requests for url: "),
        ("rubbish", "JSONDecodeError", "Expecting value: line 1 column 1 (char 0)"),
        ("hangs", "ReadTimeout", "timed out"),
        ("lists slowly", "ReadTimeout", "timed out"),
        ("absent", "RepositoryNotFoundError", "401 Client Error.\n\nRepository Not Found for url: "),
        ("no such branch", "RevisionNotFoundError", "404 Client Error.\n\nRevision Not Found for url: "),
        ("no such commit", "RevisionNotFoundError", "404 Client Error.\n\nRevision Not Found for url: "),
        ("private", "RepositoryNotFoundError", "401 Client Error.\n\nRepository Not Found for url: "),
        ("private, 403", "RepositoryNotFoundError", "403 Client Error.\n\nRepository Not Found for url: "),
        ("private with another token", "HfHubHTTPError", "Client error '401 Unauthorized' for url "),
        ("gated", "GatedRepoError", "401 Client Error.\n\nCannot access gated repo for url "),
    ],
)
def test_huggingface_says_why_nothing_came(huggingface: Found, name: str, error: str, text: str) -> None:
    found = huggingface[name]
    assert (found["error"], found["text"][: len(text)]) == (error, text)
    assert found["sent"] == {}


@pytest.mark.parametrize("client", ["modelscope", "huggingface"])
def test_a_token_opens_a_private_model(client: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(client)["private with the token"]
    assert whole(found)
    assert set(found["authorized"]) == {True}


@pytest.mark.parametrize("client", ["modelscope", "huggingface"])
def test_a_commit_stays_what_it_was_while_the_branch_goes_on(client: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(client)
    assert found["the branch went on"]["config"] == "{ }"
    assert whole(found["the first commit"])


def test_huggingface_lists_the_hashes_of_what_is_in_lfs(huggingface: Found) -> None:
    listed = huggingface["asked"]["answer"]
    assert {name: value and value[:16] for name, value in listed.items()} == {
        "config.json": None, NAME: "05a3910833213c4b", "sub/notes.txt": None,
    }  # fmt: skip
    assert huggingface["asked without hashes"]["answer"] == dict.fromkeys(listed)


def test_huggingface_pulls_a_gated_model_with_the_token(huggingface: Found) -> None:
    assert huggingface["gated with the token"]["whole"][NAME]
