"""Talks to the servers for the activator's own ends: are they there, do they answer, are they busy, sleep and wake."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

# From this version on sleep works; between them it is broken.
SLEEPS_FROM = (0, 17)
# Seconds. A first token may compile kernels; a first sleep pins memory, measured at 10 to 17 s.
LOOK, TOKEN, SLEEP = 5.0, 120.0, 180.0

_METRIC = re.compile(r"^vllm:(num_requests_running|num_requests_waiting|prompt_tokens_total|generation_tokens_total)"
                     r"(?:\{.*\})? (\S+)", re.MULTILINE)  # fmt: skip


class ServerError(Exception):
    """A server did not do what it was asked; str() says what it answered."""


class RefusedError(ServerError):
    """Nothing was sent: the server's port does not answer, or its name is not known."""


class NoSuchPathError(ServerError):
    """It does not know the path: its version, or its mode, has no such thing."""


@dataclass(frozen=True)
class Load:
    """What a server says of its work: requests running and waiting, and tokens so far, which grow while it works."""

    requests: int
    tokens: float


class Servers:
    """All servers, by the names of their models, which are those of their containers; served are clients' names."""

    def __init__(self, served: Callable[[str], str], transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._served = served
        # Proxies of the environment are for the world outside. No connection is kept: one that a server closes at the
        # moment it is used would look like a fault of its sleep.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, timeout=LOOK, limits=limits)

    async def lists(self, model: str) -> bool:
        """Whether the server answers and lists the name that clients use; a sleeper does so too."""
        try:
            listed = (await self._ask("GET", model, "/v1/models")).json()["data"]
            return any(entry["id"] == self._served(model) for entry in listed)
        except (ServerError, ValueError, KeyError, TypeError):
            return False

    async def prove(self, model: str) -> None:
        """Have one token of it. Raises RefusedError when nothing listens there, else ServerError.

        A model that generates no text has no such path, or says so: that it lists its name is proof enough then.
        """
        body = {"model": self._served(model), "prompt": "Hi", "max_tokens": 1, "temperature": 0}
        answer = await self._send("POST", model, "/v1/completions", json=body, timeout=TOKEN)
        if answer.is_success:
            return
        said = _said(answer)
        other = answer.status_code == 404 and "does not exist" not in said
        other = other or (answer.status_code in (400, 405) and "does not support" in said)
        if not other or not await self.lists(model):
            raise ServerError(f"asked for one token it answered {answer.status_code}: {said}")

    async def load(self, model: str) -> Load | None:
        """Read its own count of requests; None where it does not answer."""
        try:
            found = _METRIC.findall((await self._ask("GET", model, "/metrics")).text)
        except ServerError:
            return None
        counts = [float(value) for name, value in found if name.startswith("num_")]
        return Load(round(sum(counts)), sum(float(value) for name, value in found if name.endswith("_total")))

    async def sleeping(self, model: str) -> bool | None:
        """Whether it sleeps; None where it cannot say, as it has no sleep mode or does not answer."""
        try:
            return bool((await self._ask("GET", model, "/is_sleeping")).json()["is_sleeping"])
        except (ServerError, ValueError, KeyError, TypeError):
            return None

    async def can_sleep(self, model: str) -> bool:
        """Whether its version sleeps well and it was started with sleep mode."""
        try:
            version = str((await self._ask("GET", model, "/version")).json()["version"])
        except (ServerError, ValueError, KeyError, TypeError):
            return False
        number = re.match(r"(\d+)\.(\d+)", version)
        if number is None or (int(number[1]), int(number[2])) < SLEEPS_FROM:
            return False
        return await self.sleeping(model) is not None

    async def sleep(self, model: str) -> None:
        """Put it to sleep, its weights into the host's memory. Raises ServerError when it is not asleep then."""
        # With requests in flight /sleep can end the engine and still say 200: it waits for them.
        await self._ask("POST", model, "/sleep?level=1&mode=wait", SLEEP)
        if await self.sleeping(model) is not True:
            raise ServerError("it said yes to /sleep and is not asleep")

    async def wake(self, model: str) -> None:
        """Wake it; whether it is sound its next token shows. Raises ServerError; NoSuchPathError if it never sleeps."""
        await self._ask("POST", model, "/wake_up", SLEEP)
        if await self.sleeping(model) is not False:
            raise ServerError("it said yes to /wake_up and sleeps on")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, method: str, model: str, path: str, timeout: float = LOOK) -> httpx.Response:
        answer = await self._send(method, model, path, timeout=timeout)
        if not answer.is_success:
            kind = NoSuchPathError if answer.status_code == 404 else ServerError
            raise kind(f"{path} answered {answer.status_code}: {_said(answer)}")
        return answer

    async def _send(self, method: str, model: str, path: str, **more: Any) -> httpx.Response:
        try:
            return await self._client.request(method, f"http://{model}:8000{path}", **more)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise RefusedError(f"its port does not answer ({error})") from None
        except httpx.TimeoutException:
            raise ServerError(f"{path} gave no answer in time") from None
        except httpx.HTTPError as error:
            raise ServerError(f"{path} broke off: {error or type(error).__name__}") from None


def _said(answer: httpx.Response) -> str:
    """Give what an error says, be it in OpenAI's shape, in FastAPI's, or none."""
    try:
        body = answer.json()
        inner = body.get("error", body)
        return str(inner.get("message") or inner.get("detail") or body)[:500]
    except (ValueError, AttributeError):
        return answer.text.strip()[:500]
