"""What the executor acts through: everything outside it, and the models and settings that it goes by."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from orchestrator.activator.board import Board
from orchestrator.activator.containers import Containers
from orchestrator.activator.docker import Docker
from orchestrator.activator.gpus import Gpus
from orchestrator.activator.router import Router
from orchestrator.activator.routes import Routes
from orchestrator.activator.servers import Servers
from orchestrator.activator.store import Memory
from orchestrator.switch.world import Model, Policy


@dataclass
class Effects:
    """clock goes only forward, wall is Unix time, in seconds; own counts what the activator has in flight itself.

    digest is that of models.json, from which models are.
    """

    models: Mapping[str, Model]
    policy: Policy
    board: Board
    docker: Docker
    containers: Containers
    servers: Servers
    router: Router
    routes: Routes
    gpus: Gpus
    memory: Memory
    own: Callable[[str], int]
    clock: Callable[[], float]
    wall: Callable[[], float]
    pause: Callable[[float], Awaitable[None]]
    digest: str = ""
