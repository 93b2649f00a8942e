"""Whether the router did right by a request."""

import json
import zlib
from collections.abc import Collection

from tests.routing.bed import NAMES
from tests.routing.reference import Case, Reading, reading
from tests.routing.wire import Answer


def judge(case: Case, answer: Answer, ready: Collection[str]) -> str:
    """What is wrong with an answer while these services are ready; nothing if it is as it should be."""
    meant = reading(case)
    by = answer.headers.get("x-standin")
    socket = case.path.partition("?")[0] == "/v1/realtime"
    if by is None:
        return (no_socket if socket and answer.status == 503 else by_the_router)(meant, answer, ready)
    if socket and by == "activator":
        return "a WebSocket was held for a model that is not up"
    said = json.loads(answer.body)
    if answer.status != 200:
        if meant.kind in ("names", "own") and meant.plain:
            return f"{by} could not read what the router sent it: {said}"
        return "" if 400 <= answer.status < 500 else f"{by} said {answer.status}: {said}"
    if (said["crc"], said["bytes"]) != (zlib.crc32(case.body), len(case.body)):
        return f"{by} got other bytes than were sent: {said}"
    if meant.kind not in ("form", "query") and (said["read"] or None) != meant.model:
        return f"the reference read {meant.model!r} ({meant}), {by} read {said['read']!r}"
    return rightly_chosen(said["for"] if by == "activator" else by, by, said["read"], ready)


def rightly_chosen(service: str, by: str, read: str | None, ready: Collection[str]) -> str:
    """Judge whose server got a request, by the model that was read there."""
    if not read:
        return (
            "" if [service] == list(ready) else f"it names no model, {sorted(ready)} are ready, and {service} was asked"
        )
    if NAMES.get(read) != service:
        return f"the router chose {service}, which read {read!r}"
    if (by == "activator") == (service in ready):
        return f"{service} is {'ready' if service in ready else 'not ready'}, and {by} was asked"
    return ""


def by_the_router(meant: Reading, answer: Answer, ready: Collection[str]) -> str:
    """Judge an answer that no server gave: of what is not plain, any refusal will do."""
    if not 400 <= answer.status < 500:
        return f"the router's own answer is {answer.status}: {answer.body[:300]!r}"
    code = error_code(answer)
    if code is None:
        return f"not OpenAI's error shape: {answer.body[:300]!r}"
    if not meant.plain:
        return ""
    if meant.kind == "names":
        unknown = meant.model not in NAMES and (answer.status, code) == (404, "model_not_found")
        return "" if unknown else f"it names {meant.model!r}, and was refused: {answer.status} {code}"
    if meant.kind == "own" and (len(ready) == 1 or code != "model_required"):
        return f"it names no model, {sorted(ready)} are ready, and was refused: {answer.status} {code}"
    return "" if answer.status == 400 else f"its model is no name: {answer.status} {code}"


def no_socket(meant: Reading, answer: Answer, ready: Collection[str]) -> str:
    """Judge the answer to a WebSocket whose model is not up: it is not held."""
    if error_code(answer) != "model_not_ready":
        return f"not what is said of a model that is not up: {answer.body[:300]!r}"
    if meant.plain and (meant.model not in NAMES or NAMES[meant.model] in ready):
        return f"it names {meant.model!r}, {sorted(ready)} are ready, and was refused as not up"
    return ""


def error_code(answer: Answer) -> str | None:
    """The code in OpenAI's error shape, if it is that."""
    try:
        error = json.loads(answer.body)["error"]
        whole = set(error) == {"message", "type", "param", "code"} and error["message"] and error["type"]
        return str(error["code"]) if whole and error["code"] else None
    except (ValueError, LookupError, TypeError):
        return None
