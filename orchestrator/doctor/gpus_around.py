"""Looks at what the checks of the GPUs need to know beside the GPUs: containers, images, earlier all-reduces."""

from orchestrator import imagestore
from orchestrator.doctor.gpus import Around
from orchestrator.engine import Engine
from orchestrator.project import Project


def around(whole: Project, engine: Engine) -> Around:
    """Ask Docker, a tenth of a second long. Raises TandemError when it gives no answer; Around() is known then."""
    running = imagestore.running(engine)
    return Around(
        running=frozenset(running),
        ours={ident: service for ident, service in running.items() if service in whole.profiles},
        images=engine.image_ids(),
        kept=whole.reduced,
    )
