"""Builds the command lines of Docker's CLI. Pure: it returns argv and runs nothing."""

import json
from collections.abc import Iterable
from pathlib import Path

from orchestrator.states import ALONE

EVERY_PROFILE = "*"
# What begins the line with the result of a load; all before it is what vLLM says.
LOADED = "tandem-result "
# Runs its arguments with the key that comes on its standard input, then prints what they saved. The key is thus in no
# command line, and `docker inspect` shows it to nobody.
_LOAD = (
    'IFS= read -r key; [ -z "$key" ] || export OPENAI_API_KEY="$key"; "$@" </dev/null || exit; '
    f"printf '\\n{LOADED}'; exec cat /tmp/load/result.json"
)


def _compose(env_files: Iterable[Path], *profiles: str, files: Iterable[str] = ()) -> list[str]:
    argv = ["docker", "compose"]
    for file in files:
        argv += ["-f", file]
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


def create(env_files: Iterable[Path], services: Iterable[str], files: Iterable[str] = ()) -> list[str]:
    """Make the containers of servers and start none, nor what they depend on; a service is called as its profile.

    files are Compose files to be read in place of the usual ones.
    """
    named = list(services)
    return [
        *_compose(env_files, *named, files=files), "--progress", "plain",
        "up", "--no-start", "--no-deps", "--no-build", "--pull", "never", *named,
    ]  # fmt: skip


def forget_kernels(project: str, tag: str, image: str) -> list[str]:
    """Empty the volume of the kernels that servers of one version of vLLM compiled."""
    volume = f"type=volume,source={project}_cache-{tag},target=/cache"
    return [
        "docker", "run", "--rm", "--network", "none", "--user", "0", "--mount", volume,
        "--entrypoint", "find", image, "/cache", "-mindepth", "1", "-delete",
    ]  # fmt: skip


def load(project: str, container: str, image: str, mounts: Iterable[str], argv: Iterable[str]) -> list[str]:
    """Run `vllm bench serve` in a container of its own, which is gone afterwards; it reads a key from its input.

    It is in the servers' network and sees no GPU: it only asks. Its labels keep it from passing for a service of the
    project, as Compose puts some on images too.
    """
    return [
        "docker", "run", "--rm", "-i", "--pull", "never", "--name", container, "--network", f"{project}_models",
        # Both are written to when vLLM is imported; as user 1000, which the image runs as.
        "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/cache:uid=1000,gid=1000",  # noqa: S108
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true",
        "--label", "com.docker.compose.project=", "--label", "com.docker.compose.service=",
        "--env", "HOME=/tmp", "--env", "NVIDIA_VISIBLE_DEVICES=void",
        *(word for mount in mounts for word in ("--mount", mount)),
        "--entrypoint", "tini", image, "-g", "--", "sh", "-c", _LOAD, "sh", *argv,
    ]  # fmt: skip


def bench_serve(
    address: str,
    model: str,
    tokenizer: Iterable[str],
    *,
    seed: int,
    at_once: int,
    requests: int,
    lengths: tuple[int, int],
) -> list[str]:
    """Ask a model for so many answers, so many at once; lengths are the tokens of each prompt and answer.

    tokenizer are the words that name it. The prompts follow from the seed, which salts the server's prefix cache too:
    random prompts are stretches of the vocabulary, and of a small one they come again.
    """
    return [
        "vllm", "bench", "serve", "--backend", "openai", "--base-url", address, "--endpoint", "/v1/completions",
        *(["--insecure"] if address.startswith("https:") else []),
        "--model", model, *tokenizer, "--dataset-name", "random", "--random-prefix-len", "0",
        "--random-input-len", str(lengths[0]), "--random-output-len", str(lengths[1]), "--ignore-eos",
        "--temperature", "0", "--extra-body", json.dumps({"cache_salt": f"tandem-{seed}"}),
        "--seed", str(seed), "--max-concurrency", str(at_once), "--num-prompts", str(requests),
        # Its own check and warm-ups would send the first prompt, and leave it in the prefix cache.
        "--ready-check-timeout-sec", "0", "--num-warmups", "0", "--disable-tqdm",
        "--percentile-metrics", "ttft,tpot", "--metric-percentiles", "99",
        "--save-result", "--save-detailed", "--result-dir", "/tmp/load", "--result-filename", "result.json",  # noqa: S108
    ]  # fmt: skip


def weights(env_files: Iterable[Path], profile: str, container: str, words: Iterable[str], *, alone: bool) -> list[str]:
    """Run pull.py with such arguments in a container of a profile's pull service; it is gone afterwards.

    Alone marks it as no part of a start.
    """
    return [
        *_compose(env_files, profile), "--progress", "quiet", "run", "--rm", "-T",
        "--name", container, *(["--label", f"{ALONE}=true"] if alone else []), f"pull-{profile}", *words,
    ]  # fmt: skip


def down(env_files: Iterable[Path]) -> list[str]:
    """Stop and remove every container and network of the project; volumes stay."""
    return [*_compose(env_files, EVERY_PROFILE), "--progress", "plain", "down", "--remove-orphans"]


def remove(env_files: Iterable[Path], services: Iterable[str]) -> list[str]:
    """Stop and remove the containers of services."""
    return [*_compose(env_files, EVERY_PROFILE), "--progress", "plain", "rm", "-s", "-f", *services]


def remove_unlisted(container: str) -> list[list[str]]:
    """Stop and remove the container of a service that is in no Compose file any more."""
    return [["docker", "stop", container], ["docker", "rm", container]]


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
