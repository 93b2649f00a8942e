"""Builds the command lines of Docker's CLI. Pure: it returns argv and runs nothing."""

from collections.abc import Iterable
from pathlib import Path

EVERY_PROFILE = "*"
# On a container of a pull service that a command runs beside whatever is up.
ALONE = "tandem.alone=true"


def _compose(env_files: Iterable[Path], *profiles: str) -> list[str]:
    argv = ["docker", "compose"]
    for path in env_files:
        argv += ["--env-file", str(path)]
    for profile in profiles:
        argv += ["--profile", profile]
    return argv


def build(env_files: Iterable[Path], services: Iterable[str]) -> list[str]:
    """Build the images of services, a line of progress at a time."""
    return [*_compose(env_files, EVERY_PROFILE), "--progress", "plain", "build", *services]


def build_vllm(env_files: Iterable[Path], variant: str) -> list[str]:
    """Build the image of vLLM that TANDEM_BUILD names, whatever the profiles want, a line of progress at a time."""
    return [*_compose(env_files), "-f", "docker/vllm/image.yaml", "--progress", "plain", "build", variant]


def up(env_files: Iterable[Path], profile: str, services: Iterable[str], *, anew: bool = False) -> list[str]:
    """Create and start services of one profile; images are built before, so that a missing one is an error here.

    Anew makes their containers again, also those that run.
    """
    return [
        *_compose(env_files, profile),
        "--progress",
        "plain",
        "up",
        "-d",
        "--no-build",
        "--pull",
        "never",
        *(["--force-recreate", "--no-deps"] if anew else []),
        *services,
    ]


def create(env_files: Iterable[Path], services: Iterable[str]) -> list[str]:
    """Make the containers of servers and start none, nor what they depend on; a service is called as its profile."""
    named = list(services)
    return [
        *_compose(env_files, *named), "--progress", "plain",
        "up", "--no-start", "--no-deps", "--no-build", "--pull", "never", *named,
    ]  # fmt: skip


def forget_kernels(project: str, tag: str, image: str) -> list[str]:
    """Empty the volume of the kernels that servers of one version of vLLM compiled."""
    volume = f"type=volume,source={project}_cache-{tag},target=/cache"
    return [
        "docker", "run", "--rm", "--network", "none", "--user", "0", "--mount", volume,
        "--entrypoint", "find", image, "/cache", "-mindepth", "1", "-delete",
    ]  # fmt: skip


def weights(env_files: Iterable[Path], profile: str, container: str, words: Iterable[str], *, alone: bool) -> list[str]:
    """Run pull.py with such arguments in a container of a profile's pull service; it is gone afterwards.

    Alone marks it as no part of a start.
    """
    return [
        *_compose(env_files, profile), "--progress", "quiet", "run", "--rm", "-T",
        "--name", container, *(["--label", ALONE] if alone else []), f"pull-{profile}", *words,
    ]  # fmt: skip


def down(env_files: Iterable[Path]) -> list[str]:
    """Stop and remove every container and network of the project; volumes stay."""
    return [*_compose(env_files, EVERY_PROFILE), "--progress", "plain", "down", "--remove-orphans"]


def remove(env_files: Iterable[Path], services: Iterable[str]) -> list[str]:
    """Stop and remove the containers of services."""
    return [*_compose(env_files, EVERY_PROFILE), "--progress", "plain", "rm", "-s", "-f", *services]


def hashes(env_files: Iterable[Path]) -> list[str]:
    """Print Compose's config hash of every service, a line each."""
    return [*_compose(env_files, EVERY_PROFILE), "config", "--hash", "*"]


def requests(container: str, *, follow: bool, tail: str) -> list[str]:
    """Show the router's access log, and that of a file which begins anew."""
    lines = "+1" if tail == "all" else tail
    return ["docker", "exec", container, "/usr/bin/busybox", "tail", "-n", lines, *(["-F"] if follow else []),
            "/var/log/tandem/access.log"]  # fmt: skip


def logs(container: str, *, follow: bool, tail: str) -> list[str]:
    """Show a container's log."""
    return ["docker", "logs", "--tail", tail, *(["--follow"] if follow else []), container]
