"""The one module that speaks HTTP: asks the router what a client would ask."""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

# The router is on this machine: a proxy from the environment must not get between.
_open = build_opener(ProxyHandler({})).open


def routes_digest(address: str) -> str | None:
    """Ask the router for the digest of its routes; None when it does not answer."""
    answer = _ask(f"{address}/-/routes")
    return answer.get("digest") if answer else None


def answers(address: str, model: str, *, seconds: float = 30) -> str | None:
    """Ask a model for one token through the router. None when it answers, else why not."""
    body = json.dumps({"model": model, "prompt": "Hi", "max_tokens": 1, "temperature": 0}).encode()
    request = Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})  # noqa: S310 (always http)
    try:
        with _open(request, timeout=seconds) as answer:
            json.load(answer)["choices"][0]
    except HTTPError as error:
        return _reason(error)
    except (URLError, OSError) as error:
        return f"no answer from {address}: {error}"
    except (ValueError, LookupError):
        return "the answer is not a completion"
    return None


def _reason(error: HTTPError) -> str:
    try:
        return f"{error.code}: {json.load(error)['error']['message']}"
    except (ValueError, LookupError, TypeError):
        return f"{error.code}: {error.reason}"


def _ask(address: str) -> dict[str, Any] | None:
    try:
        with _open(address, timeout=3) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None
