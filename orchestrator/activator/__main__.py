"""Runs the activator: puts its parts together, serves on its socket, and ends when told to; the servers run on."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from orchestrator.activator import settings as reading
from orchestrator.activator.app import application
from orchestrator.activator.board import Board
from orchestrator.activator.containers import Containers
from orchestrator.activator.docker import Docker
from orchestrator.activator.driver import Driver
from orchestrator.activator.effects import Effects
from orchestrator.activator.forwarding import new_client
from orchestrator.activator.gpus import Gpus
from orchestrator.activator.holding import Signs
from orchestrator.activator.rereading import until_changed
from orchestrator.activator.router import Router
from orchestrator.activator.routes import Routes
from orchestrator.activator.servers import Servers
from orchestrator.activator.settings import MODELS, Settings
from orchestrator.activator.store import Memory, Store
from orchestrator.errors import ConfigError

SOCKET = Path("/run/tandem/activator.sock")
# Seconds, when told to end, for what waits, and for an answer that is being passed on: Docker gives us 30.
LAST_WORDS, LAST_ANSWER = 3, 25

_log = logging.getLogger("orchestrator.activator")


def main() -> int:
    """Run until SIGTERM or SIGINT. Returns 0 then, 2 when a setting is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = reading.load(MODELS, os.environ)
    except ConfigError as error:
        for problem in error.problems:
            _log.error("%s", problem)
        return error.exit_code
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    effects = _effects(settings)
    driver = Driver(effects, start=_this_start(), host_free=_host_free)
    client = new_client()
    signs = Signs(wait_as=settings.wait_as, hold_timeout=settings.policy.hold_timeout)
    app = application(driver, client, names=lambda: effects.models, signs=signs)
    server = _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            lifespan="off",
            access_log=False,
            server_header=False,
            date_header=False,
        ),
        lambda: driver.passing_on,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    driving = asyncio.create_task(driver.run())
    # Without it nothing is right: Docker starts us again, and all is observed anew.
    driving.add_done_callback(lambda _: server.end())
    reading_again = asyncio.create_task(_until_changed(settings, driver, server))
    _log.info("serving %s", ", ".join(settings.models) or "no model")
    try:
        await server.serve(sockets=[_listen(SOCKET)])
    finally:
        for task in (reading_again, driving):
            task.cancel()
        for error in await asyncio.gather(reading_again, driving, return_exceptions=True):
            if isinstance(error, Exception):
                _log.error("a fault of the activator itself", exc_info=error)
        await client.aclose()
        for part in (effects.servers, effects.router, effects.gpus):
            await part.close()
    _log.info("ended; the servers run on")
    # A stream of Docker's may still be open in a thread.
    logging.shutdown()


class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to us: it would raise them again when it ends."""

    def __init__(self, config: uvicorn.Config, passing_on: Callable[[], bool]) -> None:
        super().__init__(config)
        self._passing_on = passing_on

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """End soon."""
        self.config.timeout_graceful_shutdown = LAST_ANSWER if self._passing_on() else LAST_WORDS
        self.should_exit = True


def _effects(settings: Settings) -> Effects:
    docker = Docker(settings.project)
    return Effects(
        models=settings.models,
        policy=settings.policy,
        board=Board(settings.models, time.monotonic),
        docker=docker,
        containers=Containers(docker, clock=time.monotonic, pause=asyncio.sleep),
        servers=Servers(lambda model: settings.models[model].served[0]),
        router=Router(),
        routes=Routes(),
        gpus=Gpus(),
        memory=Memory(Store()),
        own=lambda _: 0,
        clock=time.monotonic,
        wall=time.time,
        pause=asyncio.sleep,
        digest=settings.digest,
    )


async def _until_changed(settings: Settings, driver: Driver, server: _Server) -> None:
    """End when models.json says something else: Docker starts us again, with that."""
    await until_changed(lambda: reading.load(MODELS, os.environ), settings, lambda: driver.busy, asyncio.sleep)
    server.end()


def _listen(path: Path) -> socket.socket:
    # What a killed activator left would be in the way.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    # The router's workers are another user's.
    path.chmod(0o666)
    listening.listen(1024)
    return listening


def _this_start() -> str:
    """Name this start of the machine and of the stack: the boot, and the container."""
    boot = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {socket.gethostname()}"


def _host_free() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return None


if __name__ == "__main__":
    sys.exit(main())
