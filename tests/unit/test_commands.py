"""The command lines of Docker's CLI, whole."""

import shlex
import subprocess
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
            commands.create(TWO[1:], ["demo"], ["/p/compose.yaml", "/tmp/flags one.yaml"]),
            "docker compose -f /p/compose.yaml -f '/tmp/flags one.yaml' --env-file /etc/two.env --profile demo"
            " --progress plain up --no-start --no-deps --no-build --pull never demo",
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


def test_a_load_runs_in_a_container_that_sees_no_gpu_writes_nothing_and_passes_for_no_service() -> None:
    argv = commands.load("tandem", "tandem-load-demo-7-1", "sha256:1", ["type=volume,source=a,target=/b"], ["vllm"])
    script = argv[argv.index("-c") + 1]
    assert shlex.join(word for word in argv if word != script) == (
        "docker run --rm -i --pull never --name tandem-load-demo-7-1 --network tandem_models --read-only --tmpfs /tmp"
        " --tmpfs /cache:uid=1000,gid=1000 --cap-drop ALL --security-opt no-new-privileges:true"
        " --label com.docker.compose.project= --label com.docker.compose.service= --env HOME=/tmp"
        " --env NVIDIA_VISIBLE_DEVICES=void --mount type=volume,source=a,target=/b --entrypoint tini sha256:1 -g --"
        " sh -c sh vllm"
    )


def test_a_benchmark_asks_with_random_prompts_and_a_prefix_cache_of_its_own() -> None:
    tokenizer = ["--tokenizer", "/models/q"]
    argv = commands.bench_serve(
        "http://router:8000", "qwen", tokenizer, seed=7, at_once=4, requests=16, lengths=(512, 128)
    )
    assert shlex.join(argv) == (
        "vllm bench serve --backend openai --base-url http://router:8000 --endpoint /v1/completions --model qwen"
        " --tokenizer /models/q --dataset-name random --random-prefix-len 0 --random-input-len 512"
        ' --random-output-len 128 --ignore-eos --temperature 0 --extra-body \'{"cache_salt": "tandem-7"}\' --seed 7'
        " --max-concurrency 4 --num-prompts 16 --ready-check-timeout-sec 0 --num-warmups 0 --disable-tqdm"
        " --percentile-metrics ttft,tpot --metric-percentiles 99 --save-result --save-detailed"
        " --result-dir /tmp/load --result-filename result.json"
    )


def loaded(tmp_path: Path, key: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run what a load's container runs, with its folder elsewhere."""
    line = commands.load("tandem", "name", "image", [], argv)
    line = [word.replace("/tmp/load", str(tmp_path)) for word in line[line.index("sh") :]]
    return subprocess.run(line, input=f"{key}\n", capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("key", "seen"), [("tdm-a$`b\\n", "tdm-a$`b\\n"), ("", "none")])
def test_a_loads_key_comes_by_its_input_and_its_result_is_a_line_of_its_own(
    tmp_path: Path, key: str, seen: str
) -> None:
    (tmp_path / "result.json").write_text('{"a": 1}')
    done = loaded(tmp_path, key, "sh", "-c", 'cat; printf "%s" "key ${OPENAI_API_KEY-none}"')
    assert (done.returncode, done.stdout) == (0, f'key {seen}\n{commands.LOADED}{{"a": 1}}')


def test_a_load_that_fails_ends_with_its_code_and_no_result(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    done = loaded(tmp_path, "", "sh", "-c", "echo no >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "no\n")
