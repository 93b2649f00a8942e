"""One look at everything that a plan depends on."""

from concurrent.futures import ThreadPoolExecutor

from orchestrator import commands, http
from orchestrator.engine import Engine
from orchestrator.project import Project, stale
from orchestrator.states import Observed


def observe(project: Project, engine: Engine) -> Observed:
    """Look at the containers, images, rendered files and routes. Raises TandemError when Docker does not answer."""
    files = stale(project.folder, project.rendered())
    with ThreadPoolExecutor() as pool:
        # Compose takes 0.2 s to say what it would make, about as long as all the rest.
        hashes = pool.submit(engine.wanted_hashes, commands.hashes(project.settings.env_files))
        containers = engine.containers()
        router = containers.get("router")
        return Observed(
            containers=containers,
            images=engine.images(),
            stale=tuple(file.path for file in files),
            wanted_hashes=hashes.result(),
            routes=http.routes_digest(project.settings.address) if router and router.state == "ready" else None,
        )
