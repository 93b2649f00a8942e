"""Each NAME.toml here is refused with exactly the lines of NAME.txt: a path, a fact, the valid values."""

from pathlib import Path

import pytest
import yaml

from orchestrator import config, render
from orchestrator.errors import ConfigError
from orchestrator.profiles import Entry
from tests.unit.values import VERSIONS

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted({path.stem for path in HERE.iterdir() if path.suffix in (".toml", ".txt")}))
def test_a_models_toml_that_cannot_work_is_refused_with_every_fault(name: str) -> None:
    text = (HERE / f"{name}.toml").read_text(encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(text, VERSIONS)
    assert caught.value.problems == (HERE / f"{name}.txt").read_text(encoding="utf-8").splitlines()


VALUES = r"""
0 -1 1 1e30 99999999999999999999 0.5 nan -inf true false
'' 'x' 'org/x' './x' '--x' 'int' '千问' "a\u0020b" "one\ntwo" "\u007f"
[] [0] [0,0] ['x'] ['x','x'] [''] [true] [0.5] [[0]] [{}] [2026-01-01]
{} {a=1} {a='x'} {int='x'} {''='x'} {a=true} {a=[]} {a=[[1]]} {a={b=2026-01-01}} {'a.b'='x'}
2026-01-01 07:32:00 2026-01-01T00:00:00Z
"""


def answer(text: str) -> list[str]:
    """The problems of a models.toml; none when it becomes files that can be read."""
    try:
        files = render.files(config.load(text, VERSIONS).values(), VERSIONS)
    except ConfigError as error:
        return error.problems
    assert "a" in yaml.safe_load(files[0].text)["services"]
    return []


@pytest.mark.parametrize("key", [*Entry.model_fields, "int", "nothing-known"])
def test_whatever_a_key_is_given_the_answer_is_lines_or_files_that_can_be_read(key: str) -> None:
    for value in VALUES.split():
        entry = {"model": "'org/a'", "gpus": "[0]", key: value}
        listed = "".join(f"{name} = {said}\n" for name, said in entry.items())
        said = answer(f"[models.a]\n{listed}")
        said += answer(f"[defaults]\n{key} = {value}\n[models.a]\nmodel = 'org/a'\n[models.list]\nmodel = './a'\n")
        assert [line for line in said if len(line.splitlines()) != 1] == []
