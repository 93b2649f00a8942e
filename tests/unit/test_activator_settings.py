"""The activator's settings: what is wrong is named, all of it at once, and nothing is clamped."""

import json
from pathlib import Path

import pytest

from orchestrator.activator import settings
from orchestrator.errors import ConfigError
from orchestrator.switch.world import Model, Policy

QWEN = {
    "name": "qwen-14b", "served": ["qwen-14b", "Qwen/Qwen2.5-14B-Instruct"], "gpus": [0, 1], "claim": 0.9,
    "sleep": "auto", "ttl": 600, "preload": True, "ready_timeout": 900,
    "sequence": 256, "folder": "/models/Qwen/Qwen2.5-14B-Instruct",
}  # fmt: skip


def written(folder: Path, *models: object) -> Path:
    path = folder / "models.json"
    path.write_text(json.dumps({"digest": "d1", "models": models}), encoding="utf-8")
    return path


def faults(path: Path, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        settings.load(path, environment)
    return caught.value.problems


def test_what_render_writes_is_read(tmp_path: Path) -> None:
    found = settings.load(written(tmp_path, QWEN), {})
    assert found.models == {
        "qwen-14b": Model(
            "qwen-14b", ("qwen-14b", "Qwen/Qwen2.5-14B-Instruct"), frozenset({0, 1}), 0.9, "auto", 600, True, 900
        )
    }
    assert (found.digest, found.policy, found.project, found.wait_as) == ("d1", Policy(), "tandem", "comment")


def test_settings_come_from_the_environment_and_an_empty_one_is_none(tmp_path: Path) -> None:
    found = settings.load(
        written(tmp_path, QWEN),
        {
            "TANDEM_HOLD_TIMEOUT": "12.5", "TANDEM_QUEUE_REQUESTS": "7", "TANDEM_ABANDON": "0", "TANDEM_MIN_AWAKE": "",
            "TANDEM_PROJECT": "other", "TANDEM_WAIT_AS": "reasoning", "TANDEM_HOST_RESERVE": "1024",
        },
    )  # fmt: skip
    assert found.policy == Policy(hold_timeout=12.5, queue_requests=7, abandon=False, host_reserve=1024)
    assert (found.project, found.wait_as) == ("other", "reasoning")


def test_every_wrong_value_is_named(tmp_path: Path) -> None:
    assert faults(
        written(tmp_path, QWEN),
        TANDEM_HOLD_TIMEOUT="nan", TANDEM_QUEUE_REQUESTS="0", TANDEM_ABANDON="yes", TANDEM_WAIT_AS="words",
        TANDEM_STALL_TIMEOUT="0", TANDEM_QUEUE_BYTES="1e6",
    ) == [
        'TANDEM_HOLD_TIMEOUT: should be a number of seconds above 0, such as 300, got "nan"',
        'TANDEM_QUEUE_REQUESTS: should be a number of requests of at least 1, got "0"',
        'TANDEM_QUEUE_BYTES: should be a number of bytes of at least 1, such as 268435456, got "1e6"',
        'TANDEM_STALL_TIMEOUT: should be a number of seconds above 0, such as 300, got "0"',
        'TANDEM_ABANDON: should be 1 or 0, got "yes"',
        'TANDEM_WAIT_AS: should be comment or reasoning, got "words"',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"claim": 2}, "models.0.claim"),
        ({"gpus": ["0"]}, "models.0.gpus.0"),
        ({"sleep": "on"}, "models.0.sleep"),
        ({"color": "red"}, "models.0.color"),
    ],
)
def test_a_wrong_models_json_is_named_by_its_place(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    (fault,) = faults(written(tmp_path, QWEN | changed))
    assert said in fault


def test_a_models_json_that_is_none_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "models.json")[0]
    (tmp_path / "models.json").write_text("{", encoding="utf-8")
    assert "is no JSON" in faults(tmp_path / "models.json")[0]
    assert "stands there twice" in faults(written(tmp_path, QWEN, QWEN))[0]
