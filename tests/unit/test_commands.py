"""The command lines of Docker's CLI, whole."""

import shlex
from pathlib import Path

import pytest

from orchestrator import commands

NONE: list[Path] = []
TWO = [Path("/etc/tandem one.env"), Path("/etc/two.env")]


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            commands.build(NONE, ["router", "qwen-14b"]),
            "docker compose --profile '*' --progress plain build router qwen-14b",
        ),
        (
            commands.build(TWO, ["qwen-14b"]),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile '*'"
            " --progress plain build qwen-14b",
        ),
        (
            commands.up(NONE, "qwen-14b", ["router"]),
            "docker compose --profile qwen-14b --progress plain up -d --no-build --pull never router",
        ),
        (
            commands.up(TWO, "qwen-14b", ["router", "qwen-14b"]),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile qwen-14b"
            " --progress plain up -d --no-build --pull never router qwen-14b",
        ),
        (
            commands.up(NONE, "qwen-14b", ["router"], anew=True),
            "docker compose --profile qwen-14b --progress plain up -d --no-build --pull never"
            " --force-recreate --no-deps router",
        ),
        (
            commands.create(TWO, ["qwen-14b", "demo"]),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile qwen-14b --profile demo"
            " --progress plain up --no-start --no-deps --no-build --pull never qwen-14b demo",
        ),
        (
            commands.forget_kernels("tandem", "0.32.0-cpu", "tandem/vllm:0.32.0-cpu"),
            "docker run --rm --network none --user 0 --mount type=volume,source=tandem_cache-0.32.0-cpu,target=/cache"
            " --entrypoint find tandem/vllm:0.32.0-cpu /cache -mindepth 1 -delete",
        ),
        (
            commands.weights(NONE, "qwen-14b", "tandem-pull-qwen-14b-7-1", ["pull", "org/a b", "v1"], alone=False),
            "docker compose --profile qwen-14b --progress quiet run --rm -T --name tandem-pull-qwen-14b-7-1"
            " pull-qwen-14b pull 'org/a b' v1",
        ),
        (
            commands.weights(TWO, "qwen-14b", "tandem-pull-qwen-14b-7-1", ["list"], alone=True),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile qwen-14b"
            " --progress quiet run --rm -T --name tandem-pull-qwen-14b-7-1 --label tandem.alone=true"
            " pull-qwen-14b list",
        ),
        (commands.down(NONE), "docker compose --profile '*' --progress plain down --remove-orphans"),
        (
            commands.down(TWO),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile '*'"
            " --progress plain down --remove-orphans",
        ),
        (
            commands.remove(NONE, ["qwen-14b", "pull-qwen-14b"]),
            "docker compose --profile '*' --progress plain rm -s -f qwen-14b pull-qwen-14b",
        ),
        (
            commands.remove(TWO, ["qwen-14b"]),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile '*'"
            " --progress plain rm -s -f qwen-14b",
        ),
        (commands.hashes(NONE), "docker compose --profile '*' config --hash '*'"),
        (
            commands.hashes(TWO),
            "docker compose --env-file '/etc/tandem one.env' --env-file /etc/two.env --profile '*' config --hash '*'",
        ),
        (
            commands.logs("tandem-qwen-14b", follow=False, tail="200"),
            "docker logs --tail 200 tandem-qwen-14b",
        ),
        (
            commands.requests("tandem-router", follow=False, tail="all"),
            "docker exec tandem-router /usr/bin/busybox tail -n +1 /var/log/tandem/access.log",
        ),
        (
            commands.requests("tandem-router", follow=True, tail="9"),
            "docker exec tandem-router /usr/bin/busybox tail -n 9 -F /var/log/tandem/access.log",
        ),
        (
            commands.logs("tandem-qwen-14b", follow=True, tail="all"),
            "docker logs --tail all --follow tandem-qwen-14b",
        ),
    ],
)
def test_each_command_is_one_line(argv: list[str], line: str) -> None:
    assert shlex.join(argv) == line


def test_a_generator_of_env_files_is_read_once() -> None:
    assert commands.hashes(path for path in TWO) == commands.hashes(TWO)
