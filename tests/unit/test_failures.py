"""The line that says why: of servers, of Docker and of builds, from what they really print."""

from textwrap import dedent

import pytest

from orchestrator.failures import build_cause, cause, of_memory

NO_RUNTIME = (
    "this machine has no NVIDIA runtime for Docker. With GPUs: install the NVIDIA Container Toolkit, then "
    "'sudo nvidia-ctk runtime configure' and restart Docker. Without: 'python -m orchestrator up demo'."
)
PORT_TAKEN = "the port is taken. Set TANDEM_PORT in .env to a free one, or stop what holds it ('ss -ltnp' shows it)."
MEMORY = "lower max_model_len or gpu_memory_utilization, or free the GPUs ('nvidia-smi' shows who holds them)."
CACHE = "lower max_model_len, or raise gpu_memory_utilization."
ARGS = "see args in models.toml."
NO_IMAGE = "the image is missing: 'python -m orchestrator build'."
DOCTOR = " 'python -m orchestrator doctor network' shows which answer."
NO_REGISTRY = "the image registry does not answer as one: see TANDEM_REGISTRY and TANDEM_BASE_IMAGE in .env." + DOCTOR
NO_DEBIAN = "the Debian mirror does not answer as one, or lacks this: see TANDEM_DEBIAN_MIRROR in .env." + DOCTOR
NO_INDEX = "the Python index does not answer as one, or lacks this: see TANDEM_PYPI_INDEX in .env." + DOCTOR
NO_TORCH = (
    "the source of torch's CPU build does not answer as one, or lacks this: see TANDEM_TORCH_INDEX and TANDEM_WHEELS in"
    " .env." + DOCTOR
)
NO_READ = "the server runs as user 1000 and cannot read it: chmod -R a+rX."
DAEMON = "Error response from daemon: "


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (DAEMON + 'could not select device driver "nvidia" with capabilities: [[gpu]]', NO_RUNTIME),
        (DAEMON + 'could not select device driver "" with capabilities: [[gpu]]', NO_RUNTIME),
        (
            DAEMON
            + "failed to set up container networking: driver failed programming external connectivity on endpoint"
            " tandem-router (4c1d): Bind for 127.0.0.1:8000 failed: port is already allocated",
            PORT_TAKEN,
        ),
        (
            DAEMON
            + "failed to set up container networking: driver failed programming external connectivity on endpoint"
            " tandem-router (4c1d): failed to bind host port 127.0.0.1:8000/tcp: address already in use",
            PORT_TAKEN,
        ),
        (
            DAEMON + 'invalid mount config for type "bind": bind source path does not exist: /tandem/docker/demo/model',
            "the model's folder is not there; see `model` in models.toml.",
        ),
        (
            DAEMON + 'Conflict. The container name "/tandem-router" is already in use by container "0a1b2c". You have'
            " to remove (or rename) that container to be able to reuse that name.",
            "another container has this name: 'docker rm -f' it, or set COMPOSE_PROJECT_NAME in .env.",
        ),
        (DAEMON + "No such image: tandem/vllm:0.32.0-cu130", NO_IMAGE),
        (DAEMON + 'failed to resolve reference "registry.example.org/tandem/vllm:0.32.0": not found', NO_IMAGE),
        (
            DAEMON + "pull access denied for tandem/vllm, repository does not exist or may require 'docker login'",
            NO_IMAGE,
        ),
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            "the disk is full: 'docker system df' shows what Docker holds.",
        ),
        (
            "OSError: [Errno 28] No space left on device: '/models/Qwen/Qwen2.5-14B-Instruct/x.safetensors'",
            "the disk is full: 'docker system df' shows what Docker holds.",
        ),
        (
            "tandem: weights missing: /models/Qwen/Qwen2.5-14B-Instruct is not there, not whole, or was found damaged",
            "the weights are not in the volume, or not whole: python -m orchestrator pull NAME.",
        ),
        (
            "tandem: weights missing: /models/Qwen/Qwen2.5-14B-Instruct holds no config.json",
            "the weights are not in the volume, or not whole: python -m orchestrator pull NAME.",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.45 GiB. GPU 0 has a total capacity of"
            " 23.64 GiB of which 1.02 GiB is free.",
            MEMORY,
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.1/23.64 GiB) on startup is less than desired GPU memory"
            " utilization (0.9, 21.28 GiB). Decrease GPU memory utilization or reduce GPU memory used by other"
            " processes.",
            MEMORY,
        ),
        (
            "ValueError: To serve at least one request with the models's max seq len (32768), (6.00 GiB KV cache is"
            " needed, which is larger than the available KV cache memory (3.61 GiB).",
            CACHE,
        ),
        (
            "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored"
            " in KV cache (19728).",
            CACHE,
        ),
        (
            "Value error, User-specified max_model_len (65536) is greater than the derived max_model_len"
            " (max_position_embeddings=32768 or model_max_length=None in model's config.json).",
            "lower max_model_len to what the model was made for.",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
            "update the NVIDIA driver: vLLM 0.32 needs 580 or newer.",
        ),
        (
            "RuntimeError: CUDA driver version is insufficient for CUDA runtime version",
            "update the NVIDIA driver: vLLM 0.32 needs 580 or newer.",
        ),
        ("vllm: error: unrecognized arguments: --max-num-seqz 4", ARGS),
        ("vllm serve: error: argument --dtype: invalid choice: 'fp16' (choose from auto, half)", ARGS),
        ("vllm serve: error: argument --max-num-seqs: invalid int value: 'many'", ARGS),
        ("PermissionError: [Errno 13] Permission denied: '/local/mine/config.json'", NO_READ),
        ("tandem: Permission denied: '/models/Qwen/Qwen2.5-14B-Instruct' and 4 more files", NO_READ),
        (
            "dial tcp: lookup registry.example.org on 10.0.0.1:53: no such host",
            NO_REGISTRY,
        ),
        (
            "failed to solve: debian:bookworm-slim: failed to resolve source metadata for"
            " registry.example.org/library/debian:bookworm-slim: connection refused",
            NO_REGISTRY,
        ),
        (
            'ERROR: failed to do request: Head "https://registry.example.org/v2/": dial tcp: lookup'
            " registry.example.org: no such host",
            NO_REGISTRY,
        ),
    ],
)
def test_a_known_line_is_quoted_with_what_to_do(line: str, remedy: str) -> None:
    around = ["INFO 11-23 00:41:48 [model.py:733] before", line, "", "after"]
    assert cause(around) == f"{line}\n  {remedy}"


def test_a_model_folder_without_a_model_is_not_looked_for_in_the_volume() -> None:
    assert cause(["tandem: weights missing: /local/mine holds no config.json"]) == (
        "tandem: weights missing: /local/mine holds no config.json\n"
        "  the folder holds no model; see `model` in models.toml."
    )


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "(EngineCore pid=25) ",
        "(Worker_TP0 pid=153) ",
        "ERROR 11-23 09:12:31 [core.py:1510] ",
        "(EngineCore pid=25) ERROR 11-23 09:12:31 [core.py:1510] ",
        "(Worker_TP1 pid=154) ERROR 11-23 09:12:31 [multiproc_executor.py:953] ",
        "(APIServer pid=7)   ",
    ],
)
def test_what_vllm_puts_before_a_message_is_left_out(prefix: str) -> None:
    assert cause([f"{prefix}ValueError: no such thing"]) == "ValueError: no such thing"
    assert cause([f"{prefix}RuntimeError: CUDA out of memory."]) == f"RuntimeError: CUDA out of memory.\n  {MEMORY}"


# As 0.24 printed it when it captured CUDA graphs beside a model that slept.
CAPTURING = (
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   0%|          | 0/51 [00:00<?, ?it/s]"
    "[rank0]:[E1125 10:32:27.646492803 shim_common.cpp:523] "
)
TOLD = (
    "Exception in aoti_torch: CUDA out of memory. Tried to allocate 28.00 MiB. GPU 0 has a total capacity of 79.18 GiB"
    " of which 13.00 MiB is free."
)
RAISED = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 28.00 MiB."


@pytest.mark.parametrize(
    "before",
    [
        CAPTURING,
        f"(Worker_TP0 pid=153) {CAPTURING}",
        CAPTURING.removesuffix("[rank0]:[E1125 10:32:27.646492803 shim_common.cpp:523] "),
        "[E1125 10:32:27.646492803 shim_common.cpp:523] ",
        "[rank0]: ",
        "Capturing CUDA graphs (decode, FULL):   4%|▍         | 2/51 [00:01<00:20,  2.41it/s]",
    ],
)
def test_what_stands_before_a_message_on_its_line_is_left_out(before: str) -> None:
    assert cause([before + TOLD]) == f"{TOLD}\n  {MEMORY}"


def test_an_exception_is_told_before_a_line_that_speaks_of_it() -> None:
    lines = [CAPTURING + TOLD, f"(Worker_TP0 pid=153) ERROR 11-25 10:32:27 [multiproc_executor.py:953] {RAISED}"]
    assert cause(lines) == f"{RAISED}\n  {MEMORY}"


def test_a_bar_with_nothing_behind_it_stays_a_line() -> None:
    bar = "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  2.41it/s]"
    assert cause([bar]) == bar
    assert cause(["before", CAPTURING[: CAPTURING.index("[rank0]")]]) == CAPTURING[: CAPTURING.index("[rank0]")]


@pytest.mark.parametrize(
    ("line", "of"),
    [
        (TOLD, True),
        (RAISED, True),
        ("RuntimeError: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62", True),
        ("ValueError: Free memory on device cuda:0 (3.1/23.64 GiB) on startup is less than desired GPU memory", True),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.", True),
        ("ValueError: (6.00 GiB KV cache is needed, which is larger than the available KV cache memory (3.61", True),
        ("OOMKilled: the machine's memory ran out, and the kernel ended it", False),
        ("ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len", False),
        ("OSError: [Errno 28] No space left on device", False),
        ("", False),
    ],
)
def test_want_of_gpu_memory_is_known_by_its_line(line: str, of: bool) -> None:
    assert of_memory(cause([line])) is of


# As 0.32 printed it for a folder with a config.json and no weights, with fewer frames.
WORKER_DIED = dedent("""\
    (Worker pid=33) ERROR 11-23 01:19:45 [multiproc_executor.py:953] WorkerProc failed to start.
    (Worker pid=33) ERROR 11-23 01:19:45 [multiproc_executor.py:953] Traceback (most recent call last):
    (Worker pid=33) ERROR 11-23 01:19:45 [multiproc_executor.py:953]   File "/opt/vllm/loader.py", line 331, in prepare
    (Worker pid=33) ERROR 11-23 01:19:45 [multiproc_executor.py:953]     raise RuntimeError(
    (Worker pid=33) ERROR 11-23 01:19:45 [multiproc_executor.py:953] RuntimeError: Cannot find any model weights with `/local/m`
    (EngineCore pid=23) ERROR 11-23 01:19:49 [core.py:1510] EngineCore failed to start.
    (EngineCore pid=23) ERROR 11-23 01:19:49 [core.py:1510] Traceback (most recent call last):
    (EngineCore pid=23) ERROR 11-23 01:19:49 [core.py:1510]     raise e from None
    (EngineCore pid=23) ERROR 11-23 01:19:49 [core.py:1510] Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
    Process EngineCore:
    Traceback (most recent call last):
      File "/usr/lib/python3.11/multiprocessing/process.py", line 314, in _bootstrap
        self.run()
    Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
    Traceback (most recent call last):
      File "/opt/vllm/bin/vllm", line 10, in <module>
        sys.exit(main())
    RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
    """)  # noqa: E501 (a log's lines are as long as they are)


def test_the_process_that_failed_first_says_why_and_not_those_that_noticed() -> None:
    assert cause(WORKER_DIED.splitlines()) == "RuntimeError: Cannot find any model weights with `/local/m`"


@pytest.mark.parametrize(
    "hollow",
    [
        "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. 1/2 clients joined.",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
        "Exception: WorkerProc initialization failed due to an exception in a background process.",
        "ValidationError: 2 validation errors for VllmConfig",
    ],
)
def test_a_line_that_only_says_that_something_failed_is_passed_over(hollow: str) -> None:
    assert cause([hollow, "ValueError: the real one", "the end"]) == "ValueError: the real one"


def test_the_cause_is_found_when_only_the_end_of_the_log_is_left() -> None:
    hollow = [line for line in WORKER_DIED.splitlines() if "Cannot find" not in line]
    assert cause(hollow) == (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    )


def test_a_validation_error_says_its_reason_and_not_how_many_there_are() -> None:
    said = dedent("""\
        Traceback (most recent call last):
          File "/opt/vllm/bin/vllm", line 10, in <module>
            sys.exit(main())
        pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
          Value error, torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]
            For further information visit https://errors.example.org/v/value_error
        """)
    assert cause(said.splitlines()) == (
        "Value error, torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]"
    )


@pytest.mark.parametrize(
    "line",
    [
        "ValueError: no such thing",
        "KeyError: 'model_type'",
        "OSError: /local/mine is not a folder",
        "AssertionError",
        "torch.distributed.DistBackendError: NCCL error in: NCCLUtils.cpp:94, unhandled system error",
        "requests.exceptions.ConnectionError: no route to host",
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'namespace/name'",
        "SystemExit: 1",
        "Exception: something else",
    ],
)
def test_an_exception_is_told_by_its_line(line: str) -> None:
    assert cause(["before", "Traceback (most recent call last):", "    raise ValueError(", line, "after"]) == line


def test_a_line_that_only_mentions_an_exception_is_none() -> None:
    lines = [
        "WARNING 11-23 01:19:12 [system_utils.py:255] This can cause errors like `OSError: [Errno 24]`. Consider more.",
        "ValueError: the real one",
        "the end",
    ]
    assert cause(lines) == "ValueError: the real one"


def test_a_server_that_says_what_a_build_might_say_is_not_told_of_mirrors() -> None:
    assert cause([DECODE]) == DECODE
    assert cause([UV_FETCH]) == UV_FETCH


def test_of_a_known_line_and_an_exception_the_known_line_tells_more() -> None:
    lines = ["RuntimeError: something", "vllm: error: unrecognized arguments: --x"]
    assert cause(lines) == f"vllm: error: unrecognized arguments: --x\n  {ARGS}"


def test_of_two_known_lines_of_one_kind_the_first_is_the_cause() -> None:
    assert cause(["error: no space left on device: a", "error: no space left on device: b"]) == (
        "error: no space left on device: a\n  the disk is full: 'docker system df' shows what Docker holds."
    )


def test_where_nothing_is_known_the_last_line_is_the_cause() -> None:
    assert cause(["one", "two", "   ", ""]) == "two"


@pytest.mark.parametrize("lines", [[], [""], ["   ", "\t"]])
def test_who_said_nothing_is_said_to_have_said_nothing(lines: list[str]) -> None:
    assert cause(lines) == "it said nothing"
    assert build_cause(lines) == "it said nothing"


# As Compose 2.40 printed them.
FAILED_STEP = r"""
#5 [1/2] FROM tandem/base:bookworm
#5 CACHED

#6 [2/2] RUN apt-install.sh python3-foo
#6 0.253 Reading package lists...
#6 0.253 E: Unable to locate package python3-foo
#6 ERROR: process "/bin/sh -c apt-install.sh python3-foo" did not complete successfully: exit code: 100
------
 > [2/2] RUN apt-install.sh python3-foo:
0.253 Reading package lists...
0.253 E: Unable to locate package python3-foo
------
Dockerfile:2

--------------------

   1 |     FROM tandem/base:bookworm

   2 | >>> RUN apt-install.sh python3-foo

--------------------

failed to solve: process "/bin/sh -c apt-install.sh python3-foo" did not complete successfully: exit code: 100
"""
NO_SUCH_HOST = """
#3 [internal] load metadata for nosuch.example/debian:bookworm-slim
#3 ERROR: failed to do request: Head "https://nosuch.example/v2/": dial tcp: lookup nosuch.example: no such host
------
 > [internal] load metadata for nosuch.example/debian:bookworm-slim:
------
failed to solve: nosuch.example/debian:bookworm-slim: failed to resolve source metadata: no such host
"""
NO_FILE = """
#7 [2/2] COPY nothere /x
#7 ERROR: failed to calculate checksum of ref afb79e8b::5vo6eqxs: "/nothere": not found
------
 > [2/2] COPY nothere /x:
------
failed to solve: failed to compute cache key: failed to calculate checksum of ref afb79e8b: "/nothere": not found
"""


APT = "E: Unable to locate package python3-foo"
NOT_SIGNED = "E: The repository 'http://mirror.example.org/debian bookworm InRelease' is not signed."
CLEARSIGNED = (
    "E: Failed to fetch http://mirror.example.org/debian/dists/bookworm/InRelease  Clearsigned file isn't valid,"
    " got 'NOSPLIT' (does the network require authentication?)"
)
NO_RELEASE = "E: The repository 'http://mirror.example.org/debian bookworm Release' does not have a Release file."
HASH_SUM = "E: Failed to fetch http://mirror.example.org/debian/pool/main/g/gcc.deb  Hash Sum mismatch"
NO_SUITE = "E: The value 'forky' is invalid for APT::Default-Release as such a release is not available in the sources"
NO_VERSION = "ERROR: Could not find a version that satisfies the requirement uv==0.13.9 (from versions: none)"
NO_DISTRIBUTION = "ERROR: No matching distribution found for uv==0.13.9"
WRONG_HASH = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the"
DECODE = "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"
UV_NONE = "error: No solution found when resolving dependencies"
UV_BECAUSE = "Because there is no version of modelscope==1.40.2 and you require modelscope==1.40.2."
UV_FETCH = "error: Failed to fetch: http://mirror.example.org/simple/modelscope/"
UV_STATUS = (
    "HTTP status server error (500 Internal Server Error) for url (http://mirror.example.org/simple/modelscope/)"
)
UV_JSON = "error: Received some unexpected JSON from `http://mirror.example.org/simple/modelscope/`"
UV_TYPE = (
    'error: Unsupported `Content-Type` "application/json" for `http://mirror.example.org/`. Expected JSON or HTML.'
)
UV_ZIP = "error: Failed to download `modelscope==1.40.2`"
TORCH_LINKS = "error: Failed to read `--find-links` URL: http://mirror.example.org/whl/cpu/torch/"
TORCH_BECAUSE = (
    "Because torch was not found in the package registry and you require torch==2.13.0+cpu, we can conclude."
)
TORCH_FETCH = "error: Failed to fetch: https://index.example.org/whl/cpu/torch/"
TORCH_ZIP = "error: Failed to download `torch==2.13.0+cpu`"
TORCH_CUDA = "error: Failed to download `torch==2.13.0`"
SENDING = "error sending request for url (https://index.example.org/whl/cpu/torch/)"
# As apt 2.6, pip 24 and uv 0.13.9 say it of a server that answers with a web page, 404, 500 or broken files.
OF_MIRRORS = (
    (f"{CLEARSIGNED}\n0.253 {NOT_SIGNED}", CLEARSIGNED, NO_DEBIAN),
    (NO_RELEASE, NO_RELEASE, NO_DEBIAN),
    (HASH_SUM, HASH_SUM, NO_DEBIAN),
    (NO_SUITE, NO_SUITE, NO_DEBIAN),
    (f"{NO_VERSION}\n0.253 {NO_DISTRIBUTION}", NO_DISTRIBUTION, NO_INDEX),
    (WRONG_HASH, WRONG_HASH, NO_INDEX),
    (f"ERROR: Exception:\n0.253 Traceback (most recent call last):\n0.253 {DECODE}", DECODE, NO_INDEX),
    (f"{UV_NONE}\n0.253   cause: {UV_BECAUSE}", f"{UV_NONE}: {UV_BECAUSE}", NO_INDEX),
    (f"{UV_FETCH}\n0.253   cause: {UV_STATUS}", f"{UV_FETCH}: {UV_STATUS}.", NO_INDEX),
    (f"{UV_JSON}\n0.253   cause: key must be a string", f"{UV_JSON}: key must be a string.", NO_INDEX),
    (UV_TYPE, UV_TYPE, NO_INDEX),
    (f"{TORCH_LINKS}\n0.253   cause: {UV_STATUS}", f"{TORCH_LINKS}: {UV_STATUS}.", NO_TORCH),
    (f"{UV_NONE}\n0.253   cause: {TORCH_BECAUSE}", f"{UV_NONE}: {TORCH_BECAUSE}", NO_TORCH),
    (f"{TORCH_FETCH}\n0.253   cause: {SENDING}", f"{TORCH_FETCH}: {SENDING}.", NO_TORCH),
    (TORCH_ZIP, TORCH_ZIP, NO_TORCH),
    (TORCH_CUDA, TORCH_CUDA, NO_INDEX),
    (
        f"{UV_ZIP}\n0.253   cause: Failed to extract archive\n0.253   cause: Invalid zip file structure",
        f"{UV_ZIP}: Failed to extract archive.",
        NO_INDEX,
    ),
)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (FAILED_STEP, f"E: Unable to locate package python3-foo\n  {NO_DEBIAN}"),
        (
            FAILED_STEP.replace(
                "E: Unable to locate package python3-foo", "ERROR: No matching distribution found for x==1"
            ),
            f"ERROR: No matching distribution found for x==1\n  {NO_INDEX}",
        ),
        (
            FAILED_STEP.replace("E: Unable to locate package python3-foo", "error: Failed to fetch: x.whl"),
            f"error: Failed to fetch: x.whl\n  {NO_INDEX}",
        ),
        (
            FAILED_STEP.replace("E: Unable to locate package python3-foo", "tar: write error: No space left on device"),
            "tar: write error: No space left on device\n"
            "  the disk is full: 'docker system df' shows what Docker holds.",
        ),
        # The step said nothing that looks like an error: its last words.
        (FAILED_STEP.replace("E: Unable to locate package python3-foo", "it is no good"), "it is no good"),
        (
            NO_SUCH_HOST,
            'ERROR: failed to do request: Head "https://nosuch.example/v2/": dial tcp: lookup nosuch.example:'
            f" no such host\n  {NO_REGISTRY}",
        ),
        *((FAILED_STEP.replace(APT, real), f"{line}\n  {remedy}") for real, line, remedy in OF_MIRRORS),
        (NO_FILE, 'ERROR: failed to calculate checksum of ref afb79e8b::5vo6eqxs: "/nothere": not found'),
        ("unable to prepare context: path not found", "unable to prepare context: path not found"),
    ],
)
def test_a_failed_build_is_told_by_what_its_step_said(said: str, line: str) -> None:
    assert build_cause(said.splitlines()) == line


def test_a_failed_build_is_told_even_where_buildkit_does_not_repeat_its_step() -> None:
    # Seen in 2 of 5 builds whose step ended as soon as it had said its line.
    repeated = "0.253 Reading package lists...\n0.253 E: Unable to locate package python3-foo\n------"
    assert repeated in FAILED_STEP
    silent = FAILED_STEP.replace(repeated, "------")
    assert build_cause(silent.splitlines()) == build_cause(FAILED_STEP.splitlines())
