"""One look at everything that a plan depends on."""

from concurrent.futures import ThreadPoolExecutor

from orchestrator import commands, http
from orchestrator.ask import Activator
from orchestrator.engine import Engine
from orchestrator.project import Project, stale
from orchestrator.states import Observed


def observe(project: Project, engine: Engine, activator: Activator) -> Observed:
    """Look at the containers, images, rendered files, routes and what the activator says.

    Raises TandemError when Docker does not answer.
    """
    address, certificate = project.settings.address, project.settings.certificate
    files = stale(project.folder, project.rendered())
    with ThreadPoolExecutor() as pool:
        # Compose takes 0.2 s to say what it would make, about as long as all the rest.
        hashes = pool.submit(engine.wanted_hashes, commands.hashes(project.settings.env_files))
        containers = engine.containers()
        idents = engine.image_ids()
        router = containers.get("router")
        routed = router is not None and router.state == "ready"
        return Observed(
            containers=containers,
            images=frozenset(idents),
            idents=idents,
            stale=tuple(file.path for file in files),
            wanted_hashes=hashes.result(),
            routes=http.routes_digest(address, certificate=certificate) if routed else None,
            status=activator.status() if routed else None,
        )
