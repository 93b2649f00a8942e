"""What `build` builds: the profile's own version and variant, unless an option says otherwise."""

from dataclasses import replace

import pytest

from orchestrator import cli_images
from orchestrator.errors import TandemError
from tests.unit.values import profile, project

WHOLE = replace(
    project(profile(), profile(name="old", vllm="0.7.3"), profile(name="demo", image="cpu", gpus=[])),
    driver=lambda: "580.95",
)


@pytest.mark.parametrize(
    ("name", "vllm", "target", "tag", "why"),
    [
        ("qwen-14b", None, None, "0.32.0-cu130", "driver 580.95 runs it"),
        ("qwen-14b", "0.7.3", None, "0.7.3-cu124", "--vllm asks for it"),
        ("qwen-14b", None, "cpu", "0.32.0-cpu", "it is the default"),
        ("old", None, None, "0.7.3-cu124", "models.toml asks for it"),
        ("old", None, "cuda", "0.7.3-cu124", "models.toml asks for it"),
        ("old", "0.32.0", "cpu", "0.32.0-cpu", "--vllm asks for it"),
        ("demo", None, None, "0.32.0-cpu", "it is the default"),
        ("demo", None, "cuda", "0.32.0-cu130", "driver 580.95 runs it"),
        # The version is what was asked for, and it has no build for CPUs.
        ("demo", "0.7.3", None, "0.7.3-cu124", "--vllm asks for it"),
    ],
)
def test_an_option_goes_before_the_profile_and_the_rest_is_the_profiles(
    name: str, vllm: str | None, target: str | None, tag: str, why: str
) -> None:
    choice = cli_images._choice(WHOLE, name, vllm, target)
    assert (choice.build.tag, choice.why) == (tag, why)


@pytest.mark.parametrize(
    ("name", "vllm", "target", "words"),
    [
        ("old", None, "cpu", "vLLM 0.7.3 has no cpu build; it has: cuda"),
        ("qwen-14b", "", None, "vLLM : no such version; there are: 0.32.0, 0.7.3"),
        ("qwen-14b", None, "gpu", "--target: should be one of cuda, cpu, got gpu"),
    ],
)
def test_what_there_is_not_is_refused(name: str, vllm: str | None, target: str | None, words: str) -> None:
    with pytest.raises(TandemError) as caught:
        cli_images._choice(WHOLE, name, vllm, target)
    assert str(caught.value) == words


def test_one_profile_that_the_driver_cannot_run_hides_no_image() -> None:
    whole = replace(
        WHOLE, driver=lambda: "550.54", profiles=WHOLE.profiles | {"new": profile(name="new", vllm="0.32.0")}
    )
    assert whole.wanted(whole.profile("new")).tag == "0.32.0-cu130"
    with pytest.raises(TandemError, match=r"needs NVIDIA driver 580 or newer"):
        whole.choice(whole.profile("new"))
