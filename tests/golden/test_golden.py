"""Whole rendered files. After a change that is meant: UPDATE_GOLDEN=1 pytest tests/golden, then read the diff."""

import json
import os
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from orchestrator import config, project, render, versions
from orchestrator.render.compose import environment
from orchestrator.render.routes import table
from orchestrator.render.serve import serve
from tests.unit.values import ROOT, VERSIONS

HERE = Path(__file__).parent
SCHEMA = "models.schema.json"

TUTORIAL = """\
vllm serve Qwen/Qwen2.5-14B-Instruct --served-model-name qwen-14b \
--tensor-parallel-size 2 --max-model-len 16384 --enforce-eager
vllm serve deepseek-ai/DeepSeek-R1-Distill-Qwen-14B --served-model-name deepseek-14b \
--tensor-parallel-size 2 --max-model-len 32768 --enforce-eager
vllm serve Qwen/Qwen2.5-32B-Instruct-AWQ --served-model-name qwen-32b-awq \
--tensor-parallel-size 2 --max-model-len 16384 --dtype half --quantization awq --enforce-eager
vllm serve Qwen/QwQ-32B-AWQ --served-model-name qwq-32b-awq \
--tensor-parallel-size 2 --max-model-len 16384 --dtype half --quantization awq --enforce-eager
"""


def rendered(name: str) -> dict[str, str]:
    """What a models.toml of this folder becomes; the schema does not depend on it."""
    text = (HERE / f"{name}.toml").read_text(encoding="utf-8")
    files = render.files(config.load(text, VERSIONS).values(), VERSIONS)
    return {file.path: file.text for file in files if file.path != SCHEMA}


def on_disk(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("name", ["features", "tutorial"])
def test_rendered_files_are_as_they_were_read_and_approved(name: str) -> None:
    files, folder = rendered(name), HERE / name
    if os.environ.get("UPDATE_GOLDEN"):
        for path in on_disk(folder):
            (folder / path).unlink()
        project.write(folder, [render.File(path, text) for path, text in files.items()])
    expected = on_disk(folder)
    assert sorted(files) == sorted(expected)
    for path, text in files.items():
        assert text == expected[path]


def test_the_tutorials_command_lines_come_out_flag_for_flag() -> None:
    profiles = config.load((HERE / "tutorial.toml").read_text(encoding="utf-8"), VERSIONS)
    assert "".join(f"{shlex.join(serve(profile))}\n" for profile in profiles.values()) == TUTORIAL


def test_the_tutorials_servers_fetch_from_modelscope_and_use_both_gpus() -> None:
    for profile in config.load((HERE / "tutorial.toml").read_text(encoding="utf-8"), VERSIONS).values():
        assert environment(profile) == {
            "VLLM_USE_MODELSCOPE": "true",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": "/cache/huggingface",
            "MODELSCOPE_CACHE": "/cache/modelscope",
        }
        assert profile.gpus == [0, 1]


def test_the_repositorys_own_rendered_files_are_not_stale() -> None:
    known = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
    profiles = config.load((ROOT / "models.toml").read_text(encoding="utf-8"), known)
    assert [file.path for file in project.stale(ROOT, render.files(profiles.values(), known))] == []


def test_the_digest_of_the_routes_changes_with_what_clients_see_and_with_nothing_else() -> None:
    text = (HERE / "features.toml").read_text(encoding="utf-8")

    def digest(changed: str) -> str:
        return str(table(config.load(changed, VERSIONS).values())["digest"])

    assert digest(text.replace("max-num-seqs = 16", "max-num-seqs = 17")) == digest(text)
    assert digest(text.replace('"gpt-4"', '"gpt-5"')) != digest(text)
    assert digest(text.replace("max_model_len = 16384", "max_model_len = 8192")) != digest(text)


def validator() -> Draft202012Validator:
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", ["models.toml", "tests/golden/features.toml", "tests/golden/tutorial.toml"])
def test_the_schema_takes_what_tandem_takes(path: str) -> None:
    data = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))
    assert [error.message for error in validator().iter_errors(data)] == []


ENTRY = {"model": "org/a", "gpus": [0]}


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        ({"models": {"a": ENTRY}}, []),
        (
            {"models": {"a": ENTRY}, "server": {}},
            ["Additional properties are not allowed ('server' was unexpected)"],
        ),
        (
            {"models": {"a": ENTRY}, "defaults": {"model": "org/a"}},
            ["Additional properties are not allowed ('model' was unexpected)"],
        ),
        (
            {"models": {"a": ENTRY | {"max-model-len": 5}}},
            ["Additional properties are not allowed ('max-model-len' was unexpected)"],
        ),
        ({"models": {"a": {"gpus": [0]}}}, ["'model' is a required property"]),
        ({}, ["'models' is a required property"]),
        ({"models": {}}, ["{} should be non-empty"]),
        ({"models": {"a": ENTRY | {"gpus": [-1]}}}, ["-1 is less than the minimum of 0"]),
        ({"models": {"a": ENTRY | {"gpus": "0"}}}, ["'0' is not of type 'array'"]),
        ({"models": {"a": ENTRY | {"image": "rocm"}}}, ["'rocm' is not one of ['cuda', 'cpu']"]),
        ({"models": {"a": ENTRY | {"env": {"A": 1}}}}, ["1 is not of type 'string'"]),
        ({"models": {"a": ENTRY | {"enforce_eager": "yes"}}}, ["'yes' is not of type 'boolean'"]),
        ({"models": {"a": ENTRY | {"ready_timeout": 0}}}, ["0 is less than the minimum of 1"]),
    ],
)
def test_the_schema_refuses_what_tandem_refuses(data: dict[str, Any], messages: list[str]) -> None:
    assert [error.message for error in validator().iter_errors(data)] == messages


def test_the_schema_describes_every_key() -> None:
    definitions = validator().schema["$defs"]
    keys = {key: said for name in ("Options", "Entry") for key, said in definitions[name]["properties"].items()}
    assert [key for key, said in keys.items() if not said.get("description")] == []
