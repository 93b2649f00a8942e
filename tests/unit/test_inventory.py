"""Which of our images are used, stale or old, as rows, a table and JSON."""

import pytest

from orchestrator import inventory
from orchestrator.states import Image

NOW = 1_000_000_000.0
USED = Image("sha256:1", "tandem/vllm:2-cu130", 9_417_266_833, int(NOW - 86400 * 3), {"tandem.inputs": "a"})
STALE = Image("sha256:2", "tandem/vllm:2-cpu", 2_770_000_000, int(NOW - 7200), {"tandem.inputs": "b", "empty": ""})
OLD = Image("sha256:3", "tandem/vllm:1-cu124", 31_600_000, int(NOW - 60), {"tandem.inputs": "c"})
HELD = Image("sha256:4", "tandem/vllm:1-cu128", 1, int(NOW), {}, ("tandem-a",))
NAMELESS = Image("sha256:" + "5" * 64, "", 1000, int(NOW - 59), {"tandem.inputs": "a"})
WANTED = {USED.name: ["a", "b", "c"], STALE.name: ["demo"]}
DIGESTS = {USED.name: "a", STALE.name: "other"}


def rows(*images: Image) -> list[inventory.Row]:
    return inventory.rows(images, WANTED, DIGESTS)


@pytest.mark.parametrize(
    ("image", "state", "removable"),
    [(USED, "used", False), (STALE, "stale", False), (OLD, "old", True), (HELD, "old", False), (NAMELESS, "old", True)],
)
def test_an_image_is_used_stale_or_old_and_only_an_old_one_without_containers_may_go(
    image: Image, state: str, removable: bool
) -> None:
    (row,) = rows(image)
    assert (row.state, row.removable) == (state, removable)


def test_an_image_that_is_not_built_here_is_never_stale() -> None:
    base = Image("sha256:6", "tandem/base:bookworm", 1, 1, {})
    (row,) = inventory.rows([base], {base.name: ["builds"]}, {})
    assert row.state == "used"


def test_the_table_says_what_the_states_mean_and_fits_80_columns() -> None:
    shown = inventory.table(rows(USED, STALE, OLD, NAMELESS), NOW)
    assert shown == (
        "IMAGE                SIZE     AGE       STATE  FOR\n"
        "tandem/vllm:2-cu130  9.42 GB  3 days    used   a and 2 more\n"
        "tandem/vllm:2-cpu    2.77 GB  2 hours   stale  demo\n"
        "tandem/vllm:1-cu124  32 MB    1 minute  old\n"
        "555555555555         0 MB     now       old\n"
        "\n"
        "stale: docker/ changed since; python -m orchestrator build NAME builds it anew\n"
        "\n"
        "old: no profile uses it; python -m orchestrator images --prune removes it"
    )
    assert max(map(len, shown.splitlines())) <= 80


def test_a_table_with_nothing_in_it_says_what_to_do() -> None:
    assert inventory.table([], NOW).endswith("python -m orchestrator build NAME")


def test_scripts_get_bytes_seconds_and_the_labels_that_say_something() -> None:
    assert rows(STALE)[0].json() == {
        "image": "tandem/vllm:2-cpu",
        "id": "sha256:2",
        "size": 2_770_000_000,
        "created": int(NOW - 7200),
        "state": "stale",
        "profiles": ["demo"],
        "containers": [],
        "labels": {"tandem.inputs": "b"},
    }
