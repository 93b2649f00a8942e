"""Turns what a hub's client raises into one line: a fact, and what to do. Pure."""

import errno
import re
from collections.abc import Iterator

from weights.hubs import RefusedError

NAMES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
ENDPOINTS = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}
TOKENS = {
    "modelscope": "MODELSCOPE_API_TOKEN or TANDEM_MODELSCOPE_TOKEN_FILE",
    "huggingface": "HF_TOKEN or TANDEM_HF_TOKEN_FILE",
}
_DOCTOR = "'python -m orchestrator doctor network' shows what answers"
_AGAIN = "Run it again, and it goes on: what was fetched is kept"

_SECRETS = (
    (re.compile(r"\?[^\s'\"?]*=[^\s'\"]*"), "?***"),
    (re.compile(r"(://)[^\s/@]+@"), r"\1***@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\"]+"), r"\1 ***"),
)

# By the names of classes, as the clients of several versions have them and only one client is there.
_MISSING = {"NotExistError", "RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError"}
_CLOSED = {"AuthenticationError", "PermissionDeniedError", "GatedRepoError", "LocalTokenNotFoundError"}
_DAMAGED = {"FileIntegrityError", "FileSizeMismatchError"}
_LINE = {
    "NetworkError", "RequestTimeoutError", "ServerError", "RateLimitError", "ConnectionError", "ConnectTimeout",
    "ReadTimeout", "Timeout", "TimeoutException", "NetworkException", "TransportError", "ProtocolError", "SSLError",
    "ChunkedEncodingError", "IncompleteRead", "TimeoutError", "RemoteProtocolError",
}  # fmt: skip
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_A_HUB = {"JSONDecodeError", "AttributeError", "KeyError", "TypeError", "ValueError", "IndexError"}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it came of; of a fetch of many files, what each failed of."""
    for single in (getattr(error, "failed_files", None) or {}).values():
        yield from causes(single)
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}


def _status(error: BaseException) -> int | None:
    for cause in causes(error):
        found = getattr(cause, "status_code", None) or getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(found, int):
            return found
    return None


def _errno(error: BaseException) -> int | None:
    found = [cause.errno for cause in causes(error) if isinstance(cause, OSError) and cause.errno is not None]
    telling = [number for number in found if number in _OF_THE_DISK]
    return telling[0] if telling else None


def transient(error: BaseException) -> bool:
    """Whether the line broke, or the hub: what another try may mend."""
    if _errno(error) is not None or isinstance(error, RefusedError):
        return False
    kinds, status = _kinds(error), _status(error)
    if kinds & (_MISSING | _CLOSED | _DAMAGED) or status in (401, 403, 404):
        return False
    return bool(kinds & _LINE) or (status is not None and (status >= 500 or status == 429)) or _short(error)


def _short(error: BaseException) -> bool:
    # Hugging Face's client says so when a body ends early.
    return any("Consistency check failed" in str(cause) for cause in causes(error))


def explain(error: BaseException, source: str, model: str, revision: str) -> str:
    """Say what went wrong and what to do."""
    if isinstance(error, RefusedError):
        return str(error)
    hub, kinds, status, number = NAMES[source], _kinds(error), _status(error), _errno(error)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk with the weights is full. 'python -m orchestrator models' shows what is there. {_AGAIN}"
    if number is not None:
        return (
            f"the place of the weights cannot be written: {reason(error)}. User 1000 must be able to write to the "
            "folder of TANDEM_MODELS: sudo chown -R 1000:1000 FOLDER"
        )
    # Hugging Face answers 401 for what is not there at all, and says by its header which it is.
    if kinds & _CLOSED or (status in (401, 403) and not kinds & _MISSING):
        return (
            f"{hub} does not let {model} be read{' with this token' if status == 403 else ''}: it is private, or its "
            f"terms are not agreed to. Give a token that may read it: {TOKENS[source]} in .env"
        )
    if missing(error):
        return (
            f"{hub} has no model {model} at revision {revision}, or it is private. See `model` and `revision` in "
            f"models.toml; a private one needs {TOKENS[source]} in .env"
        )
    if kinds & _DAMAGED:
        return _changed(source, reason(error))
    if any("CERTIFICATE_VERIFY_FAILED" in str(cause) for cause in causes(error)):
        return f"{hub}'s certificate is not trusted here. For a network that opens TLS: TANDEM_CA_BUNDLE in .env"
    if transient(error):
        return (
            f"{hub} does not answer, or the line breaks: {reason(error)}. See {ENDPOINTS[source]} and HTTPS_PROXY in "
            f".env; {_DOCTOR}. {_AGAIN}"
        )
    if status is not None and 400 <= status < 500:
        return f"{hub} refuses it: {reason(error)}"
    if kinds & _NOT_A_HUB:
        return f"what answers there is no {hub}: {reason(error)}. See {ENDPOINTS[source]} in .env; {_DOCTOR}"
    return f"{type(error).__name__}: {reason(error)}. {_AGAIN}"


def damaged(name: str, source: str) -> RefusedError:
    """Make the error for a file that arrives changed each time."""
    return RefusedError(_changed(source, f"{name} has another hash each time"))


def _changed(source: str, fact: str) -> str:
    return (
        f"what arrives is not what {NAMES[source]} lists: {fact}. Something on the way changes it, or has another "
        f"version of it: try without HTTPS_PROXY, or another {ENDPOINTS[source]} in .env"
    )


def missing(error: BaseException) -> bool:
    """Whether the hub has no such model, revision or file."""
    return bool(_kinds(error) & _MISSING) or _status(error) == 404


def reason(error: BaseException) -> str:
    """Give the words of the first file's error, or of the whole, as one short line."""
    failed = list((getattr(error, "failed_files", None) or {}).items())
    if failed:
        name, first = failed[0]
        return f"{name}: {reason(first)}"
    return _open(" ".join(str(error).split()))[:300] or type(error).__name__


def _open(text: str) -> str:
    """Leave out what nobody may read: what signs an address, a password in one, a token in a header."""
    for secret, left in _SECRETS:
        text = secret.sub(left, text)
    return text
