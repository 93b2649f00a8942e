"""Asks the router how many requests it has in flight to each model."""

import logging
from collections.abc import Mapping
from pathlib import Path

import httpx

SOCKET = Path("/run/tandem/router.sock")

_log = logging.getLogger(__name__)


class Router:
    """The router on its control socket."""

    def __init__(self, socket: Path = SOCKET, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            transport=transport or httpx.AsyncHTTPTransport(uds=str(socket)), base_url="http://router", timeout=5
        )

    async def in_flight(self) -> Mapping[str, int] | None:
        """Count the requests in flight by model: none where no router is there; None where it is, and does not tell."""
        try:
            answer = await self._client.get("/in-flight")
            return {str(model): int(count) for model, count in answer.raise_for_status().json().items()}
        except httpx.ConnectError as error:
            _log.debug("there is no router: %s", error)
            return {}
        except (httpx.HTTPError, ValueError, TypeError, AttributeError) as error:
            _log.debug("the router does not answer: %s", error)
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
