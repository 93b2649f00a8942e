"""Looks at the image that it runs in and prints what it finds as one JSON object. `verify-image` starts it there.

Its arguments are the faults of faults.py to look for. Progress goes to stderr.
"""

import json
import mmap
import os
import runpy
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
PATCHES = Path("/opt/tandem/patches.json")
# What packages are built with, and some leave beside themselves: nothing that runs imports it.
BUILD_BACKEND = "build_backend.py"
# Seconds for one program; importing vLLM takes ten, on a cold disk a minute.
LIMIT = 300
# What every model runs through. The others are for some models or for GPUs of one generation, as their names say.
BINARIES = ("_C*.so", "_moe_C*.so", "vllm_flash_attn/_vllm_fa2_C*.so")

# A fatbin, as nvcc puts it into .nv_fatbin: a header, then one entry for each architecture, compressed or not.
FATBIN = struct.Struct("<IHHQ")  # magic, version, the header's own size, the size of all entries
MAGIC = 0xBA55ED50
ENTRY = struct.Struct("<HHIQIIHHI8xQ")  # kind, -, header's size, payload's size, -, -, -, -, architecture, flags
KINDS = {1: "compute", 2: "sm"}  # PTX, and SASS in an ELF file
# Set for sm_90a and its like, whose code runs on no other architecture: seen in libraries that are made for one alone,
# as NVIDIA documents none of this.
SPECIFIC = 0x300000

SECTIONS = struct.Struct("<40xQ10xHHH")  # of an ELF header: where the section headers are, their size, number, names
SECTION = struct.Struct("<I20xQQ")  # a name's place among the names, offset, size
PYTHON_H = "#include <Python.h>\nint tandem(void) { return Py_IsInitialized(); }\n"


def say(text: str) -> None:
    """Tell of progress."""
    print(text, file=sys.stderr, flush=True)


def last(text: str) -> str:
    """The last line that says something, where Python puts what went wrong."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")


def run(argv: list[str], **environment: str) -> tuple[int, str, str]:
    """Run a program to its end: exit code, stdout, stderr."""
    try:
        done = subprocess.run(
            argv, env=os.environ | environment, capture_output=True, text=True, errors="replace", timeout=LIMIT,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        return 127, "", f"{argv[0]}: there is no such program"
    except subprocess.TimeoutExpired:
        return 124, "", f"{argv[0]}: did not end in {LIMIT} s"
    return done.returncode, done.stdout, done.stderr


def versions() -> dict[str, str]:
    """What is installed; "" for what is not."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("vllm", "modelscope", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def shared(path: list[str] = sys.path) -> dict[str, list[str]]:
    """Name the files that packages have in common and not alike, with the packages: the last installed one wins."""
    say("looking for files of two packages")
    owners: dict[str, dict[str, str]] = {}
    for package in metadata.distributions(path=path):
        for file in package.files or ():
            # Commands lie elsewhere, and none of them but vLLM's is run here.
            imported = ".." not in file.parts and str(file) != BUILD_BACKEND
            if imported and file.hash is not None:
                owners.setdefault(str(file), {})[file.hash.value] = f"{package.name} {package.version}"
    return {file: sorted(found.values()) for file, found in sorted(owners.items()) if len(found) > 1}


def applied(path: Path = PATCHES) -> list[str]:
    """The names of the patches that the build applied; none in an image from before there were any."""
    if not path.is_file():
        return []
    listed = json.loads(path.read_text(encoding="utf-8"))
    return [str(entry["name"] if isinstance(entry, dict) else entry) for entry in listed]


@contextmanager
def hub(folder: Path, scripts: Path) -> Iterator[str]:
    """Serve the probes' model from a stub of the ModelScope hub: its address, while it lasts."""
    runpy.run_path(str(scripts / "faults.py"))["make_repository"](folder)
    argv = [sys.executable, str(scripts / "stub_hub.py"), str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().strip() if process.stdout else ""
        finally:
            process.kill()


def faults(names: list[str], scripts: Path = HERE) -> dict[str, str | None]:
    """Look for each fault: what shows of it, None where nothing does."""
    if not names:
        return {}
    with tempfile.TemporaryDirectory() as folder, hub(Path(folder), scripts) as address:
        return {name: fault(name, address, scripts) for name in names}


def fault(name: str, address: str, scripts: Path) -> str | None:
    """Look for one fault; a probe that fails is one too."""
    say(f"looking for the fault {name}")
    code, out, err = run([sys.executable, str(scripts / "faults.py"), name], MODELSCOPE_ENDPOINT=address)
    try:
        shown = json.loads(out.splitlines()[-1])["fault"]
    except (IndexError, KeyError, TypeError, ValueError):
        return f"the probe failed (exit {code}): {last(err)}"
    return None if shown is None else str(shown)


def helped(**environment: str) -> dict[str, object]:
    """Whether `vllm serve --help` answers, after how many seconds, and if not, why."""
    say("asking vllm serve --help")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        platform(Path(folder))
        code, out, err = run(["vllm", "serve", "--help"], PYTHONPATH=folder, **environment)
    answers = code == 0 and "serve" in out
    why = "" if answers else f"exit {code}: {last(err or out)}"
    return {"answers": answers, "seconds": round(time.monotonic() - began, 1), "why": why}


def platform(folder: Path) -> None:
    """Put into a folder a platform plugin of vLLM that says that this machine's CPU is what it runs on.

    With no GPU vLLM finds no platform, and many versions refuse even to explain themselves then. The variable
    VLLM_TARGET_DEVICE helps some of them; plugins are read by all.
    """
    (folder / "tandem_platform.py").write_text("def cpu():\n    return 'vllm.platforms.cpu.CpuPlatform'\n")
    about = folder / "tandem_platform-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tandem-platform\nVersion: 0\n")
    (about / "entry_points.txt").write_text("[vllm.platform_plugins]\ntandem = tandem_platform:cpu\n")


def compiler() -> dict[str, str]:
    """Compile what Triton and others compile while they serve; why is "" when that works."""
    say("compiling a file")
    version = run(["gcc", "-dumpfullversion"])[1].strip()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PYTHON_H)
        headers = f"-I{sysconfig.get_path('include')}"
        code, _, err = run(["gcc", "-shared", "-fPIC", headers, str(source), "-o", str(source.with_suffix(".so"))])
    # gcc's first line says what is wrong, its last where it stopped.
    why = next((line for line in err.splitlines() if "error" in line), last(err)) if code else ""
    return {"gcc": version, "why": why.removeprefix(f"{source}:")}


def architectures(file: Path) -> list[str]:
    """Name the architectures that a shared library has CUDA code for: sm_89, sm_90a, compute_80; none without any."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = {name for start, size in fatbins(data) for name in entries(data, start, start + size)}
    return sorted(found, key=lambda name: (name.startswith("c"), int("".join(filter(str.isdigit, name))), name))


def fatbins(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Find the sections of an ELF file that hold fatbins: offset and size."""
    table, size, count, names = SECTIONS.unpack_from(data)
    heads = [SECTION.unpack_from(data, table + size * index) for index in range(count)]
    for name, offset, length in heads:
        start = heads[names][1] + name
        if data[start : data.find(b"\0", start)] in (b".nv_fatbin", b"__nv_relfatbin"):
            yield offset, length


def entries(data: mmap.mmap, at: int, end: int) -> Iterator[str]:
    """Name the architecture of every entry of the fatbins between two places."""
    while at + FATBIN.size <= end:
        magic, _, header, size = FATBIN.unpack_from(data, at)
        if magic != MAGIC:
            at += 8 - at % 8  # fatbins are aligned; zeros fill the gap
            continue
        entry, at = at + header, at + header + size
        while entry < at:
            kind, _, own, payload, _, _, _, _, architecture, flags = ENTRY.unpack_from(data, entry)
            if own < ENTRY.size:
                raise ValueError(f"a fatbin's entry with a header of {own} bytes: not the format that is read here")
            if kind in KINDS:
                yield f"{KINDS[kind]}_{architecture}{'a' if flags & SPECIFIC else ''}"
            entry += own + payload


def cuda() -> dict[str, list[str]]:
    """Give the architectures by binary, torch's too; empty in an image without CUDA."""
    say("reading the CUDA architectures of the binaries")
    package = Path(sysconfig.get_path("platlib"), "vllm")
    files = [file for pattern in BINARIES for file in sorted(package.glob(pattern))]
    found = {file.name.partition(".")[0]: architectures(file) for file in files}
    # torch says it itself; a build without CUDA has no such function.
    flags = run([sys.executable, "-c", "import torch; print(getattr(torch._C, '_cuda_getArchFlags', str)())"])[1]
    found["torch"] = last(flags).split() if flags.strip() else []
    return {name: listed for name, listed in found.items() if listed}


def main() -> None:
    """Look at everything."""
    found = {
        "versions": versions(),
        "shared": shared(),
        "applied": applied(),
        "help": helped(),
        "compiler": compiler(),
        "cuda": cuda(),
        "faults": faults(sys.argv[1:]),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
