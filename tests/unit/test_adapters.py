"""The adapters that a server is started with become names that lead to it, or a fault says why they cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from orchestrator.adapters import SHAPES, Adapter, adapters
from orchestrator.errors import ConfigError
from orchestrator.project import Project
from orchestrator.render.routes import table
from orchestrator.render.serve import serve
from orchestrator.settings import Settings
from tests.unit.values import VERSIONS, profile

AS_JSON = '{"name": "sql", "path": "/models/a,b", "base_model_name": "a"}'


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("sql=/models/sql", [Adapter("sql", "/models/sql")]),
        ("sql=org/sql=2", [Adapter("sql", "org/sql=2")]),
        (AS_JSON, [Adapter("sql", "/models/a,b")]),
        ({"name": "sql", "path": "/x", "is_3d_lora_weight": True}, [Adapter("sql", "/x")]),
        ({"name": "sql", "path": "/x", "base_model_name": "a"}, [Adapter("sql", "/x")]),
        (["sql=/x", AS_JSON.replace("sql", "更")], [Adapter("sql", "/x"), Adapter("更", "/models/a,b")]),
    ],
)
def test_adapters_are_read_as_vllm_reads_them(given: Any, found: list[Adapter]) -> None:
    assert adapters({"lora-modules": given}) == found


def test_without_the_flag_there_are_none() -> None:
    assert adapters({"enable-lora": True}) == []


WRONG: list[Any] = [
    "", "sql", "sql=", "=/x", "-sql=/x", "sql=/a,b", "None", "[]", "5", "null", "{}", "{", '{"name": "sql"}',
    '[{"name": "sql", "path": "/x"}]', '{"name": "sql", "path": 5}', '{"name": "", "path": "/x"}',
    '{"name": "sql", "path": "/x", "rank": 8}', '{"name": "sql", "path": "/x", "base_model_name": 1}',
    '{"name": "sql", "path": "/x", "is_3d_lora_weight": "yes"}', "[" * 100_000, 5, 0.5, True, {}, {"sql": "/x"},
    {"name": ["sql"], "path": "/x"}, '{"name": "\\ud83d", "path": "/x"}', '{"name": "sql", "path": "/\\udc00"}',
]  # fmt: skip


def faults(args: dict[str, Any], *more: str) -> list[str]:
    """The problems of a models.toml with one profile of such args, and perhaps others."""

    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
        return json.dumps(value, ensure_ascii=False)

    with pytest.raises(ConfigError) as caught:
        config.load("\n".join([f'[models.a]\nmodel = "./a"\nimage = "cpu"\nargs = {toml(args)}', *more]), VERSIONS)
    return caught.value.problems


@pytest.mark.parametrize("given", WRONG, ids=lambda given: str(given)[:60])
def test_what_names_no_adapter_is_refused_with_what_would(given: Any) -> None:
    begin = "models.toml: models.a.args.lora-modules"
    (alone,) = faults({"enable-lora": True, "lora-modules": given})
    assert alone.startswith(f"{begin}: should be {SHAPES}, got ")
    if isinstance(given, str | int | float) and given is not True:
        (listed,) = faults({"enable-lora": True, "lora-modules": ["b=/x", given]})
        assert listed.startswith(f"{begin}.1: should be {SHAPES}, got ")


def test_adapters_reach_their_model_and_are_listed_with_it_as_their_parent() -> None:
    of = {"enable-lora": True, "lora-modules": ["sql=/models/sql", AS_JSON.replace("sql", "other")]}
    made = table([profile(name="b", served_model_name="served", aliases=["a"], max_model_len=512, args=of)])
    assert made["services"] == {"served": "b", "a": "b", "sql": "b", "other": "b"}
    assert [model["id"] for model in made["models"]] == ["served"]
    entry = {"object": "model", "created": 0, "owned_by": "tandem", "max_model_len": 512, "aliases": []}
    assert made["adapters"] == [
        entry | {"id": "sql", "root": "/models/sql", "parent": "served"},
        # Said to be for an alias: what has an entry of its own is the model.
        entry | {"id": "other", "root": "/models/a,b", "parent": "served"},
    ]
    assert table([profile()])["adapters"] == []


def test_the_server_is_told_its_adapters_in_words_that_it_reads() -> None:
    listed = serve(profile(args={"enable-lora": True, "lora-modules": ["sql=/x", AS_JSON]}))
    assert listed[-4:] == ["--enable-lora", "--lora-modules", "sql=/x", AS_JSON]
    table_ = serve(profile(args={"enable-lora": True, "lora-modules": {"name": "sql", "path": "/x"}}))
    assert table_[-3:] == ["--enable-lora", "--lora-modules", '{"name": "sql", "path": "/x"}']


def test_a_command_finds_the_profile_by_the_name_of_an_adapter() -> None:
    one = profile(args={"enable-lora": True, "lora-modules": "sql=/x"})
    whole = Project(Path("/nowhere"), {one.name: one}, VERSIONS, Settings({}, ()))
    assert whole.profile("sql") == one
