"""Finds the line that says why a server, a build or Docker failed. Pure: lines in, a cause with a remedy out."""

import re
from collections.abc import Iterable

# In this order: torch's allocator, vLLM's own of sleep mode, the exception's name, and vLLM before it loads.
_NO_MEMORY = r"CUDA out of memory|CUDA [Ee]rror: out of memory|OutOfMemoryError|Free memory on device .* is less than"
# Ends every remedy for a mirror.
_DOCTOR = "'python -m orchestrator doctor network' shows which answer"
# Known lines, most telling first: a pattern, and what to do. The line itself is quoted.
_KNOWN: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"could not select device driver .*nvidia|could not select device driver .*gpu",
         "this machine has no NVIDIA runtime for Docker. With GPUs: install the NVIDIA Container Toolkit, then "
         "'sudo nvidia-ctk runtime configure' and restart Docker. Without: 'python -m orchestrator up demo'"),
        (r"(?:port is already allocated|address already in use)",
         "the port is taken. Set TANDEM_PORT in .env to a free one, or stop what holds it ('ss -ltnp' shows it)"),
        (r"bind source path does not exist: \S*(?:\.crt|\.pem|certificates)\S*$",
         "the file of certificate authorities is not there: 'sudo apt-get install ca-certificates', or set "
         "TANDEM_CA_BUNDLE in .env"),
        (r"bind source path does not exist: \S*docker\S*\.sock$",
         "Docker's socket is elsewhere ('docker context ls' shows where): set TANDEM_DOCKER_SOCKET in .env"),
        (r"bind source path does not exist", "the model's folder is not there; see `model` in models.toml"),
        (r"Conflict\. The container name",
         "another container has this name: 'docker rm -f' it, or set COMPOSE_PROJECT_NAME in .env"),
        (r"No such image|pull access denied|(?:image|reference).*not found",
         "the image is missing: 'python -m orchestrator build'"),
        (r"(?i)no space left on device", "the disk is full: 'docker system df' shows what Docker holds"),
        (r"weights missing: /local/", "the folder holds no model; see `model` in models.toml"),
        (r"weights missing: ", "the weights are not in the volume, or not whole: python -m orchestrator pull NAME"),
        (_NO_MEMORY,
         "lower max_model_len or gpu_memory_utilization, or free the GPUs ('nvidia-smi' shows who holds them)"),
        (r"max seq len .* is larger than the maximum number of tokens|KV cache is needed, which is larger than",
         "lower max_model_len, or raise gpu_memory_utilization"),
        (r"is greater than the derived max_model_len", "lower max_model_len to what the model was made for"),
        (r"The NVIDIA driver on your system is too old|CUDA driver version is insufficient",
         "update the NVIDIA driver: vLLM 0.32 needs 580 or newer"),
        (r"Insufficient space in /dev/shm|No space left on device.*/dev/shm", "raise shm_size in models.toml"),
        (r"^OOMKilled", "it needs more memory than there is free; under WSL2, see memory in .wslconfig"),
        (r"unrecognized arguments: |invalid choice: |argument --\S+: ", "see args in models.toml"),
        (r"Permission denied: '/(?:local|models)", "the server runs as user 1000 and cannot read it: chmod -R a+rX"),
        (r"failed to resolve source metadata for|failed to do request|no such host",
         f"the image registry does not answer as one: see TANDEM_REGISTRY and TANDEM_BASE_IMAGE in .env. {_DOCTOR}"),
    )
)  # fmt: skip
# What apt, pip and uv say of a mirror that is none; in a server's log such words mean something else.
_KNOWN_OF_BUILDS = tuple(
    (re.compile(pattern), f"{mirror} does not answer as one, or lacks this: see {setting} in .env. {_DOCTOR}")
    for mirror, setting, pattern in (
        ("the Debian mirror", "TANDEM_DEBIAN_MIRROR",
         r"^E: (?:Failed to fetch |Unable to fetch some archives|Unable to locate package |"
         r"The repository '.*' (?:does not have a Release file|is not signed)|"
         r"Package '.*' has no installation candidate|The value '.*' is invalid for APT::Default-Release)"),
        ("the source of torch's CPU build", "TANDEM_TORCH_INDEX and TANDEM_WHEELS",
         r"^error: (?:Failed to read `--find-links` URL|No solution found.*\btorch==\S*\+cpu|"
         r"Failed to (?:fetch|download).*(?:/whl/cpu|\btorch[=-]\S*(?:\+|%2B)cpu))"),
        ("the Python index", "TANDEM_PYPI_INDEX",
         r"^ERROR: (?:No matching distribution found for |THESE PACKAGES DO NOT MATCH THE HASHES|"
         r"Could not install packages due to an OSError)|^json\.decoder\.JSONDecodeError"),
        ("the Python index", "TANDEM_PYPI_INDEX",
         r"^error: (?:No solution found|Received some unexpected JSON|Unsupported `Content-Type`|Failed to fetch|"
         r"Failed to download|Request failed after)"),
    )
)  # fmt: skip
# What vLLM and Python put before the message: "(EngineCore pid=25) ERROR 11-23 00:41:55 [core.py:133] ".
_PREFIX = re.compile(r"^(?:\([^)]*pid=\d+\) )?(?:(?:ERROR|INFO|WARNING|CRITICAL) \S+ \S+ \[[^\]]*\] ?)?")
# What may stand before a message on the same line: a bar of tqdm, which ends no line, and what torch puts there,
# "[rank0]:[E1125 10:32:27.646492803 shim_common.cpp:523] " from C++ and "[rank0]: " from Python.
_BAR = re.compile(r"^.*\d+%\|[^|]*\| *\S+/\S+ \[[^\]]*\]\s*(?=\S)")
_TORCH = re.compile(r"^(?:\[rank\d+\]: ?)?(?:\[[EWIF]\d{4} [\d:.]+ [^\]\s]+:\d+\] )?")
# What a server that finds too little GPU memory says, also where the rest of it is too little for its KV cache.
_WANT = re.compile(rf"{_NO_MEMORY}|No available memory for the cache blocks|larger than the available KV cache memory")
# The first process to fail says why; those above it only say that it failed.
_HOLLOW = re.compile(
    r"\d+ validation errors? for |Engine core initialization failed|WorkerProc initialization failed|DistStoreError"
)
_EXCEPTION = re.compile(r"^(?:(?:[\w.]+\.)?(?:[A-Z]\w*(?:Error|Exit|Interrupt)|\w*Exception)\b(?::|$)|Value error, )")


def cause(lines: Iterable[str], known: Iterable[tuple[re.Pattern[str], str]] = _KNOWN) -> str:
    """Name the cause: a known line with its remedy, else the first exception's line, else the last line."""
    said = [text for line in lines if (text := _message(line))]
    raised = [line for line in said if _EXCEPTION.match(line) and not _HOLLOW.search(line)]
    for pattern, remedy in known:
        # What was raised says it in whole, what was logged on the way may be cut or belong to something else.
        found = next((line for line in (*raised, *said) if pattern.search(line)), None)
        if found is not None:
            return f"{found}\n  {remedy}."
    if raised:
        return raised[0]
    return said[-1] if said else "it said nothing"


def telling(line: str) -> bool:
    """Whether a line alone may be what `cause` names: one that is known, or an exception's."""
    said = _message(line)
    return _EXCEPTION.match(said) is not None or any(pattern.search(said) for pattern, _ in _KNOWN)


def of_memory(reason: str) -> bool:
    """Whether a server failed for want of GPU memory, by the cause that was named."""
    return _WANT.search(reason) is not None


def _message(line: str) -> str:
    """Give what a line of a log says, without what stands before it."""
    return _TORCH.sub("", _PREFIX.sub("", _BAR.sub("", _PREFIX.sub("", line)))).strip()


def build_cause(lines: Iterable[str]) -> str:
    """Name the cause of a failed build: what the failing step itself said, else BuildKit's own words."""
    known = (*_KNOWN, *_KNOWN_OF_BUILDS)
    lines = list(lines)
    said = _joined(re.sub(r"^(?:#\d+ )?(?:\d+\.\d+ )?", "", line).strip() for line in lines)
    # BuildKit repeats the end of the step that failed between two rules, under its name.
    starts = [index for index, line in enumerate(said) if line.startswith("> [") and line.endswith(":")]
    if starts:
        step = said[starts[-1] + 1 :]
        step = [line for line in step[: step.index("------") if "------" in step else None] if line]
        step = step or _joined(_failed(lines))
        telling = [line for line in step if re.match(r"E: |error: |ERROR: (?!Exception:$)", line)]
        if step:
            return cause(telling or step, known)
    return cause([line for line in said if line.startswith("ERROR: ")] or said, known)


def _failed(lines: list[str]) -> list[str]:
    """Give what the step that failed said when it ran: BuildKit's repetition of it is empty now and then."""
    number = next((found[0] for line in lines if (found := re.match(r"#\d+ (?=ERROR: )", line))), None)
    return [line.split(maxsplit=2)[2] for line in lines if number and re.match(rf"{number}\d+\.\d+ \S", line)]


def _joined(lines: Iterable[str]) -> list[str]:
    """Put uv's first cause behind the error that it is the cause of; alone that error says too little."""
    found: list[str] = []
    for line in lines:
        if line.startswith("cause: ") and found and re.match(r"error: .*(?<!\.)$", found[-1]):
            found[-1] += f": {line.removeprefix('cause: ')}".removesuffix(".") + "."
        else:
            found.append(line)
    return found
