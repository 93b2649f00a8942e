"""What a hub's client raises becomes one line: a fact, and what to do."""

import errno
import json
import os

import pytest
from weights.explain import damaged, explain, missing, reason, transient
from weights.hubs import RefusedError

from tests.unit.models import NAME


def kind(name: str, *bases: type[BaseException]) -> type[Exception]:
    """A class of errors as a client has it: errors are known by the names of their classes."""
    return type(name, bases or (Exception,), {})


class Response:
    """An answer, which is false when it is an error, as that of `requests`."""

    def __init__(self, status_code: int) -> None:
        self.status_code = status_code

    def __bool__(self) -> bool:
        return self.status_code < 400


def made(name: str, text: str = "said by the hub", *bases: type[BaseException], **said: object) -> Exception:
    error = kind(name, *bases)(text)
    for key, value in said.items():
        setattr(error, key, value)
    return error


def http(name: str, status: int, text: str = "said by the hub") -> Exception:
    """An error of Hugging Face's client, which holds the answer."""
    return made(name, text, OSError, response=Response(status))


def api(name: str, status: int, text: str = "[E9001] said by the hub") -> Exception:
    """An error of ModelScope's client, which holds the status."""
    return made(name, text, status_code=status)


def of(cause: BaseException, error: Exception) -> Exception:
    error.__cause__ = cause
    return error


def several(**failed: Exception) -> Exception:
    names = {name.replace("_", "."): error for name, error in failed.items()}
    lines = "\n".join(f"  - {name}: {error}" for name, error in names.items())
    return made("FileDownloadError", f"{len(names)} file(s) failed\n{lines}", failed_files=names)


REFUSED = "does not let org/name be read"
NOT_THERE = "has no model org/name at revision master, or it is private"
DOWN = "does not answer, or the line breaks"
NO_HUB = "what answers there is no"
CHANGED = "what arrives is not what"
DISK = "the place of the weights cannot be written"
CERTIFICATE = "certificate is not trusted here"
SSL = made("SSLError", "certificate verify failed: [SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

ERRORS = [
    (api("NotExistError", 404), NOT_THERE, False),
    (api("AuthenticationError", 401), REFUSED, False),
    (api("PermissionDeniedError", 403), REFUSED + " with this token", False),
    (api("RateLimitError", 429), DOWN, True),
    (api("ServerError", 502), DOWN, True),
    (api("APIError", 503), DOWN, True),
    (made("NetworkError", "connection failed", ConnectionError), DOWN, True),
    (made("RequestTimeoutError", "timed out", TimeoutError), DOWN, True),
    (made("FileIntegrityError", "Hash mismatch for a.bin"), CHANGED, False),
    (made("FileSizeMismatchError", "Server returned 3 of 5 bytes"), CHANGED, False),
    (several(a_bin=made("NetworkError", "reset", ConnectionError)), DOWN, True),
    (several(a_bin=api("NotExistError", 404)), NOT_THERE, False),
    (several(a_bin=made("FileIntegrityError", "Hash mismatch for a.bin")), CHANGED, False),
    (
        several(a_bin=made("NetworkError", "reset", ConnectionError), b_bin=api("PermissionDeniedError", 403)),
        REFUSED, False,
    ),
    (several(a_bin=OSError(errno.ENOSPC, "No space left on device")), "the disk with the weights is full", False),
    (http("RepositoryNotFoundError", 404), NOT_THERE, False),
    (http("RepositoryNotFoundError", 401), NOT_THERE, False),
    (http("RevisionNotFoundError", 404), NOT_THERE, False),
    (http("EntryNotFoundError", 404), NOT_THERE, False),
    (http("GatedRepoError", 403), REFUSED, False),
    (http("GatedRepoError", 401), REFUSED, False),
    (http("HfHubHTTPError", 401), REFUSED, False),
    (http("HfHubHTTPError", 403), REFUSED, False),
    (http("HfHubHTTPError", 404), NOT_THERE, False),
    (http("HfHubHTTPError", 429), DOWN, True),
    (http("HfHubHTTPError", 500), DOWN, True),
    (http("HfHubHTTPError", 503), DOWN, True),
    (made("ConnectTimeout", "timed out", OSError), DOWN, True),
    (made("ChunkedEncodingError", "Connection broken: IncompleteRead(5 bytes read)", OSError), DOWN, True),
    (OSError("Consistency check failed: file should be of size 5 but has size 3 (a.bin)."), DOWN, True),
    (made("RemoteProtocolError", "peer closed connection"), DOWN, True),
    (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), DOWN, True),
    (TimeoutError("timed out"), DOWN, True),
    (json.JSONDecodeError("Expecting value", "<html>", 0), NO_HUB, False),
    (AttributeError("'list' object has no attribute 'get'"), NO_HUB, False),
    (KeyError("Data"), NO_HUB, False),
    (TypeError("string indices must be integers"), NO_HUB, False),
    (OSError(errno.ENOSPC, "No space left on device"), "the disk with the weights is full", False),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk with the weights is full", False),
    (PermissionError(errno.EACCES, "Permission denied", "/models/org"), DISK, False),
    (OSError(errno.EROFS, "Read-only file system", "/models/org"), DISK, False),
    (of(SSL, made("NetworkError", "failed", ConnectionError)), CERTIFICATE, True),
    (RuntimeError("something else"), "RuntimeError: something else", False),
    (Exception(), "Exception: Exception", False),
]  # fmt: skip


@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
@pytest.mark.parametrize(
    ("error", "fact", "again"),
    ERRORS,
    ids=[f"{number}-{type(error).__name__}" for number, (error, *_) in enumerate(ERRORS)],
)
def test_each_error_is_one_line_with_its_fact(error: Exception, fact: str, again: bool, source: str) -> None:
    line = explain(error, source, NAME, "master")
    assert fact in line
    assert len(line.splitlines()) == 1
    assert len(line) < 800
    assert transient(error) is again


@pytest.mark.parametrize(
    ("source", "hub", "token", "endpoint"),
    [
        ("modelscope", "ModelScope", "MODELSCOPE_API_TOKEN", "MODELSCOPE_ENDPOINT"),
        ("huggingface", "Hugging Face", "HF_TOKEN", "HF_ENDPOINT"),
    ],
)
def test_what_to_do_is_said_in_the_settings_of_the_hub(source: str, hub: str, token: str, endpoint: str) -> None:
    other = {"MODELSCOPE_ENDPOINT", "HF_ENDPOINT"} - {endpoint}
    for status, words in ((401, token), (404, token), (503, endpoint)):
        line = explain(api("APIError", status), source, NAME, "master")
        assert hub in line
        assert words in line
        assert not any(name in line for name in other)


def test_a_commit_that_is_not_there_is_named() -> None:
    line = explain(api("NotExistError", 404), "modelscope", NAME, "v9")
    assert "has no model org/name at revision v9" in line
    assert "`revision` in models.toml" in line


def test_our_own_words_are_said_as_they_are() -> None:
    error = RefusedError("the hub lists no file of org/name")
    assert explain(error, "modelscope", NAME, "master") == "the hub lists no file of org/name"
    assert not transient(error)


def test_a_file_that_arrives_changed_each_time_is_named() -> None:
    line = str(damaged("model.safetensors", "modelscope"))
    assert line.startswith("what arrives is not what ModelScope lists: model.safetensors has another hash each time.")


SIGNED = (
    "HTTPSConnectionPool(host='cdn.example.org', port=443): Max retries exceeded with url: "
    "/models/a.bin?X-Amz-Signature=s3cret&Expires=1&token=s3cret (Caused by NewConnectionError('refused'))"
)


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        "404 Client Error: Not Found for url: https://cdn.example.org/a.bin?Signature=s3cret",
        "[E1020] failed\n  Request: GET https://hub/api?AccessKeyId=1&OSSAccessKey=s3cret#x",
        "Cannot connect to proxy http://me:s3cret@proxy.example.org:3128",
        "https://s3cret@hub.example.org/x is not a good address",
        "Illegal header value: 'Authorization: Bearer s3cret'",
        "Invalid header value b'Bearer s3cret\\n'",
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_no_secret_and_no_signed_address_is_repeated(text: str, wrapped: bool) -> None:
    plain = made("NetworkError", text, ConnectionError)
    error = several(a_bin=plain) if wrapped else plain
    for line in (explain(error, "modelscope", NAME, "master"), reason(error)):
        assert "s3cret" not in line
        assert "cdn.example.org" in line or "cdn.example.org" not in text


def test_a_question_mark_that_begins_no_query_stays() -> None:
    assert reason(ValueError("is that so? yes")) == "is that so? yes"


def test_a_long_reason_is_cut() -> None:
    assert len(reason(ValueError("x" * 5000))) == 300


@pytest.mark.parametrize(
    ("error", "yes"),
    [
        (api("NotExistError", 404), True),
        (http("HfHubHTTPError", 404), True),
        (several(a_bin=api("NotExistError", 404)), True),
        (api("ServerError", 500), False),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), False),
    ],
)
def test_what_the_hub_does_not_have_is_missing(error: Exception, yes: bool) -> None:
    assert missing(error) is yes


def test_errors_that_come_of_one_another_end() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert explain(first, "modelscope", NAME, "master").startswith(NO_HUB)
