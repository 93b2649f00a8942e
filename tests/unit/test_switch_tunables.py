"""One table for the settings of switching: the orchestrator and the activator take and refuse the same."""

from dataclasses import fields

import pytest

from orchestrator.settings import KNOWN, Settings, problems
from orchestrator.switch import tunables
from orchestrator.switch.world import Policy
from orchestrator.versions import Versions


def test_what_is_not_set_is_as_the_policy_has_it() -> None:
    assert tunables.policy(tunables.defaults()) == (Policy(), [])
    assert tunables.policy(dict.fromkeys(tunables.TUNABLES, " ")) == (Policy(), [])
    assert {name: KNOWN[name] for name in tunables.TUNABLES} == {
        "TANDEM_HOLD_TIMEOUT": "300", "TANDEM_QUEUE_REQUESTS": "256", "TANDEM_QUEUE_BYTES": "268435456",
        "TANDEM_DRAIN_TIMEOUT": "300", "TANDEM_STALL_TIMEOUT": "300", "TANDEM_MIN_AWAKE": "5", "TANDEM_ABANDON": "1",
        "TANDEM_HOST_RESERVE": "8589934592",
    }  # fmt: skip


def test_every_number_of_the_policy_but_the_backoffs_is_a_setting() -> None:
    assert {each.name for each in fields(Policy)} - {key for key, _ in tunables.TUNABLES.values()} == {
        "backoff",
        "longest_backoff",
    }


@pytest.mark.parametrize("name", tunables.TUNABLES)
@pytest.mark.parametrize("text", ["0", "1", "2", "0.5", "-1", "1e3", "nan", "1_0", "٣", "300s", "0x10", "1 0", "007"])
def test_both_take_and_refuse_the_same(name: str, text: str) -> None:
    told = [line for line in problems(Settings({name: text}, ()), [], Versions("", {})) if line.startswith(name)]
    found, faults = tunables.policy({name: text})
    assert told == faults
    assert faults or getattr(found, tunables.TUNABLES[name][0]) == float(text)
