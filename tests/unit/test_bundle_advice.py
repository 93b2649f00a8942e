"""After a load, the last lines say what makes `up` take what the bundle brought, or that this driver cannot."""

import dataclasses

import pytest

from orchestrator.bundle.advice import advise
from orchestrator.profiles import Profile
from orchestrator.project import ACTIVATOR_IMAGE, OWN_IMAGES, ROUTER_IMAGE, Project
from tests.unit import values
from tests.unit.values import profile

NEW, OLD, CPU = "tandem/vllm:0.32.0-cu130", "tandem/vllm:0.7.3-cu124", "tandem/vllm:0.32.0-cpu"
UP = "python -m orchestrator up qwen-14b"
WANTS_NEW = f"qwen-14b wants the image {NEW} here, which the bundle does not bring"
WANTS_OLD = f"qwen-14b wants the image {OLD} here, which the bundle does not bring"
TOO_NEW = (
    "qwen-14b: the bundle brings vLLM 0.32.0, which needs NVIDIA driver 580 or newer; this machine has 550.54.14",
    "update the driver to 580 or newer (under WSL2: the one of Windows)",
)
AGAIN = "; or on the machine with a network put {}, build and save again"


def project(*listed: Profile, driver: str = "", tag: str = "") -> Project:
    whole = values.project(*listed, values={"TANDEM_VLLM": tag})
    return dataclasses.replace(whole, driver=lambda: driver)


@pytest.mark.parametrize(
    ("driver", "tag", "pinned", "brought", "warnings", "steps"),
    [
        ("580.95.05", "", None, NEW, [], [UP]),
        ("", "", None, NEW, [], [UP]),
        ("550.54.14", "", None, OLD, [], [UP]),
        # The bundle's build runs here, and is not what `up` would choose.
        ("580.95.05", "", None, OLD, [WANTS_NEW], ["put TANDEM_VLLM=0.7.3-cu124 into .env", UP]),
        ("580.95.05", "0.7.3-cu124", None, NEW, [WANTS_OLD], ["put TANDEM_VLLM=0.32.0-cu130 into .env", UP]),
        ("", "", None, OLD, [WANTS_NEW], ["put TANDEM_VLLM=0.7.3-cu124 into .env", UP]),
        ("580.95.05", "", "0.7.3", NEW, [WANTS_OLD], ['put vllm = "0.32.0" for qwen-14b into models.toml', UP]),
        # What is asked for does not run here, and what the bundle brings does.
        (
            "550.54.14",
            "0.32.0-cu130",
            None,
            OLD,
            ["qwen-14b: vLLM 0.32.0 needs NVIDIA driver 580 or newer, this machine has 550.54.14 "
             "(TANDEM_VLLM asks for it)."],
            ["put TANDEM_VLLM=0.7.3-cu124 into .env", UP],
        ),
        # The bundle's build does not run here.
        ("550.54.14", "", None, NEW, [TOO_NEW[0]], [TOO_NEW[1] + AGAIN.format("TANDEM_VLLM=0.7.3-cu124 into .env")]),
        ("550.54.14", "0.32.0-cu130", None, NEW, [TOO_NEW[0]],
         [TOO_NEW[1] + AGAIN.format("TANDEM_VLLM=0.7.3-cu124 into .env")]),
        ("550.54.14", "", "0.32.0", NEW, [TOO_NEW[0]],
         [TOO_NEW[1] + AGAIN.format('vllm = "0.7.3" for qwen-14b into models.toml')]),
        ("470.10", "", None, NEW, [TOO_NEW[0].replace("550.54.14", "470.10")], [TOO_NEW[1]]),
        ("470.10", "", None, CPU,
         ["qwen-14b: no vLLM here runs on NVIDIA driver 470.10: update it to 525 or newer"], []),
        ("580.95.05", "", None, CPU, [WANTS_NEW], []),
    ],
)  # fmt: skip
def test_what_to_do_follows_from_the_driver_and_what_would_be_chosen(
    driver: str, tag: str, pinned: str | None, brought: str, warnings: list[str], steps: list[str]
) -> None:
    whole = project(profile(vllm=pinned), driver=driver, tag=tag)
    assert advise(whole, ["qwen-14b"], {*OWN_IMAGES, brought}) == (warnings, steps)


def test_the_first_profile_that_can_run_is_the_one_to_bring_up() -> None:
    demo = profile(name="demo", image="cpu", gpus=[])
    whole = project(profile(), demo, driver="550.54.14")
    warnings, steps = advise(whole, ["gone", "qwen-14b", "demo"], {*OWN_IMAGES, NEW, CPU})
    assert warnings == ["the bundle is for gone, which this models.toml does not have", TOO_NEW[0]]
    assert steps[1:] == ["python -m orchestrator up demo"]


def test_one_step_for_several_profiles_is_said_once() -> None:
    whole = project(profile(), profile(name="b"), driver="580.95.05")
    assert advise(whole, ["qwen-14b", "b"], {*OWN_IMAGES, OLD}).next == ["put TANDEM_VLLM=0.7.3-cu124 into .env", UP]


@pytest.mark.parametrize(
    ("brought", "missing"),
    [({"tandem/router:0.2.0", ACTIVATOR_IMAGE}, ROUTER_IMAGE), ({ROUTER_IMAGE}, ACTIVATOR_IMAGE)],
)
def test_another_router_or_activator_is_another_tandem(brought: set[str], missing: str) -> None:
    assert advise(project(profile(), profile(name="b")), ["qwen-14b", "b"], {*brought, NEW}) == (
        [f"this Tandem wants the image {missing}, which the bundle does not bring"],
        ["use the Tandem of the bundle's own tandem.tar"],
    )
