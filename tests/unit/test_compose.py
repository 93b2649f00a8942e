"""compose.models.yaml, read the way Compose reads it: YAML, then variables. Its whole text is in tests/golden."""

import re
from typing import Any

import pytest
import yaml

from orchestrator.profiles import Profile
from orchestrator.render.compose import compose, environment
from orchestrator.render.serve import serve
from tests.unit.values import VERSIONS, profile

VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::-([^}]*))?\})")
# What the gate of profile() goes by.
WIRED = {"TANDEM_PROFILE": "qwen-14b", "TANDEM_GPUS": "0,1"}
CACHES = {"HF_HOME": "/cache/huggingface", "MODELSCOPE_CACHE": "/cache/modelscope"}
BY_ID = CACHES | {"HF_HUB_OFFLINE": "0", "VLLM_USE_MODELSCOPE": "true"}
AWKWARD = {
    "a dollar": "cost$5 $HOME ${HOME} ${X:-y} $$ $",
    "quotes": """it's "quoted" \\" and \\ and \\n""",
    "Chinese": "你是谁? 我是千问，不客气。",
    "an emoji": "🎉",
    "lines and tabs": "one\ntwo\r\n\tthree",
    "outer spaces": "  x  ",
    "nothing": "",
    "a YAML boolean": "no",
    "a YAML number": "0x10",
    "a YAML comment": "a # b",
    "a YAML key": "a: b",
    "a YAML alias": "*a",
    "a line separator": "a\u2028b",
    "a next-line character": "a\u0085b",
    "a delete character": "a\x7fb",
}


def services(*listed: Profile, **variables: str) -> dict[str, Any]:
    """The services as Compose sees them with these variables set."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[1] else variables.get(found[2]) or found[3] or ""

    def interpolated(node: Any) -> Any:
        match node:
            case dict():
                return {key: interpolated(item) for key, item in node.items()}
            case list():
                return [interpolated(item) for item in node]
            case str():
                return VARIABLE.sub(value, node)
        return node

    return dict(interpolated(yaml.safe_load(compose(listed, VERSIONS).text))["services"])


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD)
def test_a_value_of_env_reaches_the_server_as_it_was_written(text: str) -> None:
    assert services(profile(env={"A": text}))["qwen-14b"]["environment"] == {"A": text, **WIRED}


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD)
def test_an_argument_reaches_the_server_as_it_was_written(text: str) -> None:
    found = profile(args={"a": text, "list": [text, 1], "table": {"k": text}}, aliases=[f"x{text}"])
    assert services(found)["qwen-14b"]["command"] == serve(found)


@pytest.mark.parametrize("name", ["NULL", "null", "TRUE", "False", "_", "http_proxy", "X1"])
def test_a_variable_of_any_name_stays_a_variable_of_this_name(name: str) -> None:
    assert services(profile(env={name: "1"}))["qwen-14b"]["environment"] == {name: "1", **WIRED}


@pytest.mark.parametrize("name", ["qwen-14b", "null", "true", "a", "x1-2"])
def test_a_profile_of_any_name_is_a_service_of_this_name(name: str) -> None:
    assert list(services(profile(name=name, pull=False))) == [name, "gpus"]
    assert services(profile(name=name, pull=False))[name]["labels"] == {"tandem.profile": name, "tandem.gpus": "0,1"}
    assert services(profile(name=name, pull=False))[name]["profiles"] == [name]


def test_a_folder_of_any_name_is_mounted() -> None:
    found = profile(model='./my models/$HOME/"千问": it\'s')
    assert services(found)["qwen-14b"]["volumes"][1:] == [
        {
            "type": "bind",
            "source": './my models/$HOME/"千问": it\'s',
            "target": "/local/qwen-14b",
            "read_only": True,
            "bind": {"create_host_path": False},
        }
    ]


def test_the_command_is_that_of_the_server_with_the_values_of_models_toml() -> None:
    found = profile(max_model_len=16384, gpu_memory_utilization=0.9, dtype="half", args={"seed": 1})
    assert services(found)["qwen-14b"]["command"] == serve(found)


def test_a_compose_variable_overrides_one_value_of_one_profile() -> None:
    first = profile(max_model_len=16384, gpu_memory_utilization=0.9)
    second = profile(name="qwen-32b-awq", max_model_len=16384)
    seen = services(first, second, QWEN_14B_MAX_MODEL_LEN="8192")
    assert seen["qwen-14b"]["command"] == serve(first.model_copy(update={"max_model_len": 8192}))
    assert seen["qwen-32b-awq"]["command"] == serve(second)
    seen = services(first, second, QWEN_14B_GPU_MEMORY_UTILIZATION="0.85", QWEN_32B_AWQ_MAX_MODEL_LEN="4096")
    assert seen["qwen-14b"]["command"] == serve(first.model_copy(update={"gpu_memory_utilization": 0.85}))
    assert seen["qwen-32b-awq"]["command"] == serve(second.model_copy(update={"max_model_len": 4096}))


def test_an_empty_compose_variable_overrides_nothing() -> None:
    found = profile(max_model_len=16384)
    assert services(found, QWEN_14B_MAX_MODEL_LEN="")["qwen-14b"]["command"] == serve(found)


def test_a_value_that_models_toml_does_not_set_has_no_variable() -> None:
    assert "${QWEN" not in compose([profile()], VERSIONS).text


def test_a_model_of_a_hub_is_pulled_before_its_server_starts() -> None:
    seen = services(profile(revision="v1.0", max_model_len=5))
    assert list(seen) == ["qwen-14b", "pull-qwen-14b", "gpus"]
    assert seen["qwen-14b"]["depends_on"] == {"pull-qwen-14b": {"condition": "service_completed_successfully"}}
    assert seen["pull-qwen-14b"] == {
        "extends": {"file": "docker/vllm/service.yaml", "service": "pull"},
        "profiles": ["qwen-14b"],
        "image": "tandem/vllm:0.32.0-cu130",
        "build": {"args": {"VLLM_BUILD": "0.32.0-cu130", "VARIANT": "cuda"}},
        "command": ["pull", "--for-start", "--source", "modelscope", "Qwen/Qwen2.5-14B-Instruct", "v1.0"],
    }


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ["--source", "modelscope", "Qwen/Qwen2.5-14B-Instruct", "master"]),
        ({"source": "huggingface"}, ["--source", "huggingface", "Qwen/Qwen2.5-14B-Instruct", "main"]),
        ({"source": "huggingface", "revision": "v1"}, ["--source", "huggingface", "Qwen/Qwen2.5-14B-Instruct", "v1"]),
    ],
)
def test_a_start_pulls_from_the_source_and_of_the_revision_that_the_profile_names(
    said: dict[str, Any], words: list[str]
) -> None:
    assert services(profile(**said))["pull-qwen-14b"]["command"] == ["pull", "--for-start", *words]


def test_no_token_stands_in_a_rendered_file() -> None:
    text = compose([profile(), profile(name="by-id", pull=False)], VERSIONS).text
    assert "TOKEN" not in text.upper()


def test_a_server_that_fetches_by_id_reaches_its_hub_as_a_pull_does_and_keeps_what_it_fetched() -> None:
    seen = services(profile(pull=False, env={"HF_ENDPOINT": "https://mine.example.org"}))["qwen-14b"]
    assert seen["secrets"] == ["ca"]
    assert seen["extra_hosts"] == ["host.docker.internal:host-gateway"]
    assert seen["environment"] == {
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": "/cache/huggingface",
        "MODELSCOPE_CACHE": "/cache/modelscope",
        "VLLM_USE_MODELSCOPE": "true",
        "HF_ENDPOINT": "https://mine.example.org",
        "MODELSCOPE_ENDPOINT": None,
        "HTTPS_PROXY": None,
        "HTTP_PROXY": None,
        "NO_PROXY": None,
        **WIRED,
    }
    pulled = services(profile())["qwen-14b"]
    assert {"secrets", "extra_hosts"} & set(pulled) == set()
    assert pulled["environment"] == WIRED


@pytest.mark.parametrize("said", [{"pull": False}, {"model": "./mine"}, {"model": "/data/mine"}])
def test_nothing_is_pulled_for_a_folder_or_for_a_server_that_fetches_by_id(said: dict[str, Any]) -> None:
    seen = services(profile(**said))
    assert list(seen) == ["qwen-14b", "gpus"]
    assert "depends_on" not in seen["qwen-14b"]


def test_only_a_folder_is_mounted_besides_the_kernels() -> None:
    assert services(profile())["qwen-14b"]["volumes"] == ["cache:/cache"]
    assert services(profile(pull=False))["qwen-14b"]["volumes"] == ["cache:/cache"]


def test_a_version_that_nothing_pins_is_this_machines_to_choose() -> None:
    free, pinned = profile(), profile(name="old", vllm="0.7.3")
    cpu = profile(name="demo", gpus=[], image="cpu", model="./demo")
    seen = services(free, pinned, cpu, TANDEM_VLLM="0.19.1-cu128")
    images = {name: seen[name]["image"] for name in ("qwen-14b", "old", "demo")}
    assert images == {
        "qwen-14b": "tandem/vllm:0.19.1-cu128",
        "old": "tandem/vllm:0.7.3-cu124",
        "demo": "tandem/vllm:0.32.0-cpu",
    }
    assert seen["pull-qwen-14b"]["image"] == seen["qwen-14b"]["image"]
    assert seen["qwen-14b"]["build"]["args"]["VLLM_BUILD"] == "0.19.1-cu128"


def test_each_version_keeps_its_kernels_in_a_volume_of_its_own() -> None:
    listed = [profile(), profile(name="other"), profile(name="old", vllm="0.7.3")]
    text = compose(listed, VERSIONS).text
    volumes = yaml.safe_load(text)["volumes"]
    assert volumes == {
        "cache": {"name": "${COMPOSE_PROJECT_NAME}_cache-${TANDEM_VLLM:-0.32.0-cu130}"},
        "cache-0.7.3-cu124": {"name": "${COMPOSE_PROJECT_NAME}_cache-0.7.3-cu124"},
    }
    mounts = {name: service.get("volumes") for name, service in yaml.safe_load(text)["services"].items()}
    assert mounts["qwen-14b"] == mounts["other"] == ["cache:/cache"]
    assert mounts["old"] == ["cache-0.7.3-cu124:/cache"]


def test_a_profile_for_gpus_reserves_them_by_id_and_one_for_a_cpu_reserves_none() -> None:
    gpu, cpu = profile(gpus=[1, 3]), profile(name="demo", gpus=[], image="cpu", model="./demo")
    seen = services(gpu, cpu)
    assert seen["qwen-14b"]["deploy"] == {
        "resources": {
            "reservations": {
                "devices": [{"driver": "nvidia", "device_ids": ["1", "3"], "capabilities": ["gpu"]}],
            }
        }
    }
    assert seen["qwen-14b"]["labels"]["tandem.gpus"] == "1,3"
    assert seen["qwen-14b"]["extends"] == {"file": "docker/vllm/service.yaml", "service": "cuda"}
    assert "deploy" not in seen["demo"]
    assert seen["demo"]["labels"]["tandem.gpus"] == ""
    assert seen["demo"]["extends"] == {"file": "docker/vllm/service.yaml", "service": "cpu"}
    assert seen["demo"]["image"] == "tandem/vllm:0.32.0-cpu"


def test_health_is_asked_for_the_served_model_name_and_waits_as_long_as_a_start_may_take() -> None:
    found = profile(served_model_name='a $b "千问"', ready_timeout=60)
    assert services(found)["qwen-14b"]["healthcheck"] == {
        "test": ["CMD", "python3", "/opt/tandem/healthcheck.py", 'a $b "千问"'],
        "start_period": "60s",
    }


def test_a_container_is_called_after_the_compose_project_and_the_profile() -> None:
    seen = services(profile(), COMPOSE_PROJECT_NAME="second")
    assert seen["qwen-14b"]["container_name"] == "second-qwen-14b"


@pytest.mark.parametrize(
    ("said", "variables"),
    [
        ({}, {}),
        ({"model": "./mine"}, {}),
        ({"pull": False}, BY_ID),
        ({"pull": False, "source": "huggingface"}, CACHES | {"HF_HUB_OFFLINE": "0"}),
        ({"env": {"A": "1"}}, {"A": "1"}),
        (
            {"pull": False, "env": {"HF_HUB_OFFLINE": "1", "A": "1"}},
            BY_ID | {"HF_HUB_OFFLINE": "1", "A": "1"},
        ),
    ],
)
def test_a_server_that_fetches_by_id_is_told_where_from_unless_env_says_otherwise(
    said: dict[str, Any], variables: dict[str, str]
) -> None:
    assert environment(profile(**said)) == variables


def test_a_server_that_may_sleep_has_what_vllm_needs_for_it_and_its_gate_is_told() -> None:
    sleepy = services(profile(sleep="auto", env={"A": "1"}))["qwen-14b"]
    assert sleepy["environment"] == {"A": "1", **WIRED, "TANDEM_SLEEP": "1", "VLLM_SERVER_DEV_MODE": "1"}
    assert "--enable-sleep-mode" not in sleepy["command"]
    assert services(profile(name="demo", gpus=[], image="cpu"))["demo"]["environment"] == {"TANDEM_PROFILE": "demo"}


def test_one_reader_sees_every_gpu_of_the_machine_and_starts_with_each_profile_that_has_any() -> None:
    cpu = profile(name="demo", gpus=[], image="cpu", model="./demo")
    seen = services(profile(gpus=[3, 1]), profile(name="other", gpus=[0, 1]), cpu, COMPOSE_PROJECT_NAME="second")[
        "gpus"
    ]
    assert seen["profiles"] == ["qwen-14b", "other"]
    assert seen["container_name"] == "second-gpus"
    assert seen["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": "all", "capabilities": ["gpu", "utility"]}
    ]
    assert (seen["network_mode"], seen["pid"], seen["cap_drop"]) == ("none", "host", ["ALL"])
    assert seen["volumes"] == ["gpus:/run/gpus"]


def test_where_no_profile_has_a_gpu_there_is_no_reader() -> None:
    cpu = profile(name="demo", gpus=[], image="cpu", model="./demo")
    assert list(services(cpu)) == ["demo"]
