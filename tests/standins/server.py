#!/usr/bin/env python3
"""Stands in for `vllm serve`: its command line, log, paths and states, with no model; GPU memory is taken on paper.

Every answer is made of the server's own words, `NAME-0 NAME-1 … END`, so that one that is cut or another's shows.
Settings are variables: STANDIN_LOAD (seconds until ready, 0.5), STANDIN_TOKEN (seconds a word, 0.005), STANDIN_REST
(seconds that sleep and wake take, 0.02), STANDIN_LINGER (of slow-stop, 5), STANDIN_CLAIMS (the folder of claims, which
a test and all stand-ins share), STANDIN_GPU_GIB (24), STANDIN_FAULT.

A fault is a word of STANDIN_FAULT, of the file fault-NAME in the folder of claims, or of POST /standin/fault:
  load-die load-hang load-oom load-kv   while it loads: a traceback, silence, and vLLM's words of too little memory
  die die-asleep                        dies as soon as it is ready, or asleep; happens once
  mute                                  lists its name and never answers a token
  hold                                  stops after an answer's first word, and goes on when that is taken away
  wake-refuse wake-oom                  /wake_up says 500, or the memory to wake is not there
  slow-stop ignore-term                 on SIGTERM
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

GIB = 1 << 30
ASLEEP = 3 * GIB  # what a sleeper keeps of each GPU
RESERVED = GIB // 2  # what the driver keeps of each GPU
ROOM = 1024  # bytes of a claim's file, written at once so that no reader sees half of it
LOOK = 0.05  # seconds between looks at what no event tells


def words(name: str, count: int) -> list[str]:
    """Every answer of count tokens: they and END, which tells that nothing is missing."""
    return [*(f"{name}-{index}" for index in range(count)), "END"]


# --- memory on paper --------------------------------------------------------------------------------------------------


def living(folder: Path) -> list[dict[str, Any]]:
    """Read the claims whose holder lives, each with its file's inode; a lock dies with its process, a file does not."""
    found = []
    for path in sorted(folder.glob("claim-*")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                claim = json.loads(os.pread(file.fileno(), ROOM, 0))
                found.append({**claim, "inode": os.fstat(file.fileno()).st_ino})
    return found


class Claims:
    """This server's memory: what it takes of each GPU, known to all that share the folder."""

    def __init__(self, name: str, folder: Path | None, gpus: list[int], want: int, total: int) -> None:
        self.name, self.folder, self.gpus, self.want, self.total = name, folder, gpus, want, total
        self._file: int | None = None
        self._path = Path()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[Path]:
        """One server at a time looks at what is free and takes it: two that start together do not both fit."""
        assert self.folder is not None
        lock = os.open(self.folder / "lock", os.O_RDONLY | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.folder
        finally:
            os.close(lock)

    def take(self, size: int) -> tuple[int, int] | None:
        """Hold size bytes on each GPU; where that many are not free, take nothing and give a GPU and its free bytes."""
        if self.folder is None or not self.gpus:
            return None
        with self._alone() as folder:
            own = os.fstat(self._file).st_ino if self._file is not None else 0
            others = [claim for claim in living(folder) if claim["inode"] != own]
            for gpu in self.gpus:
                free = self.total - RESERVED - sum(claim["gpus"].get(str(gpu), 0) for claim in others)
                if free < size:
                    return gpu, free
            self._write(folder, size)
        return None

    def _write(self, folder: Path, size: int) -> None:
        claim = {"name": self.name, "host": socket.gethostname(), "gpus": {str(gpu): size for gpu in self.gpus}}
        text = json.dumps(claim).encode().ljust(ROOM)
        if self._file is not None:
            os.pwrite(self._file, text, 0)
            return
        # Locked before it has its name: one without a lock is a dead server's.
        self._file, path = tempfile.mkstemp(dir=folder)
        os.fchmod(self._file, 0o644)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.pwrite(self._file, text, 0)
        self._path = folder / f"claim-{socket.gethostname()}-{os.getpid()}-{Path(path).name}"
        Path(path).rename(self._path)

    def release(self) -> None:
        """Give everything back, as the driver does when a process ends."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def tell(self, event: str, **more: Any) -> None:
        """Add a line to the events that a test reads; times are of CLOCK_MONOTONIC, which all of a machine share."""
        if self.folder is None:
            return
        line = json.dumps({"at": time.monotonic(), "name": self.name, "event": event, **more}) + "\n"
        file = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)


class Faults:
    """What is to go wrong, by word."""

    def __init__(self, name: str, folder: Path | None, given: str) -> None:
        self._file = folder / f"fault-{name}" if folder else None
        self._given = set(given.split())
        self._spent: set[str] = set()

    def has(self, word: str) -> bool:
        written = ""
        if self._file is not None:
            with contextlib.suppress(OSError):
                written = self._file.read_text()
        return word in (self._given | set(written.split())) - self._spent

    def spend(self, word: str) -> bool:
        """Say whether it is to happen, which it then does once: it is struck from the file too."""
        if not self.has(word):
            return False
        self._given.discard(word)
        if self._file is not None and self._file.exists():
            left = [other for other in self._file.read_text().split() if other != word]
            self._file.write_text(" ".join(left))
        return True

    def set(self, text: str) -> None:
        self._given = set(text.split())


# --- what vLLM says ---------------------------------------------------------------------------------------------------


def say(text: str, process: str = "APIServer", where: str = "api_server.py:1840", level: str = "INFO") -> None:
    stamp = time.strftime("%m-%d %H:%M:%S")
    for line in text.splitlines():
        print(f"({process} pid={os.getpid()}) {level} {stamp} [{where}] {line}", flush=True)


def engine_fails(line: str) -> None:
    """Say what vLLM 0.32 says when its engine dies of this while it starts: the cause, then who noticed."""
    frame = '  File "/opt/vllm/lib/python3.11/site-packages/vllm/v1/engine/core.py", line 1114, in run_engine_core\n'
    cause = f"EngineCore failed to start.\nTraceback (most recent call last):\n{frame}    engine_core = ...\n{line}"
    say(cause, "EngineCore", "core.py:1140", "ERROR")
    noticed = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    for last in ("Traceback (most recent call last):", "    sys.exit(main())", noticed):
        print(f"(APIServer pid={os.getpid()}) {last}", file=sys.stderr, flush=True)


def gib(size: float) -> str:
    return f"{size / GIB:.2f}"


OUT_OF_MEMORY = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 270.00 MiB. GPU {gpu} has a total capacity of "
    "{total} GiB of which {free} GiB is free."
)
KV_CACHE = (
    "ValueError: To serve at least one request with the model's max seq len (32768), (6.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (4.20 GiB). Based on the available memory, the estimated "
    "maximum model length is 22928. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when "
    "initializing the engine."
)
LOAD_FAULTS = {
    "load-die": "ValueError: weights of another shape: expected (128, 64), got (128, 32)",
    "load-oom": OUT_OF_MEMORY.format(gpu=0, total=23.52, free=0.17),
    "load-kv": KV_CACHE,
}


# --- the server -------------------------------------------------------------------------------------------------------


@dataclass
class Request:
    """One request, whole, and the connection it came by."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def gone(self) -> bool:
        """Whether the client hung up."""
        return self.reader.at_eof() or self.writer.is_closing()


@dataclass
class Server:
    """The server once it has loaded: ready, asleep, or on the way to sleep."""

    names: list[str]
    claims: Claims
    faults: Faults
    token: float
    rest: float
    developer: bool
    running: int = 0
    waiting: int = 0
    while_asleep: int = 0
    paused: bool = False
    asleep: bool = False
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    # An engine does one after the other, whether or not who asked is still there.
    resting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def die(self, line: str, code: int = 1) -> NoReturn:
        """End as vLLM does when its engine died: with a traceback, and everything in flight cut off."""
        say(f"Traceback (most recent call last):\n  ...\n{line}", "EngineCore", "core.py:1153", "ERROR")
        say("EngineDeadError: EngineCore encountered an issue.", "APIServer", "async_llm.py:690", "ERROR")
        self.claims.tell("died", line=line, running=self.running)
        self.claims.release()
        os._exit(code)

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while (request := await receive(reader, writer)) and await self.answer(request):
                await writer.drain()
        writer.close()

    async def answer(self, request: Request) -> bool:
        """Answer; false when the connection is of no more use."""
        work = {
            ("POST", "/v1/completions"): self.complete,
            ("POST", "/v1/chat/completions"): self.complete,
            ("GET", "/health"): self.health,
            ("GET", "/v1/models"): self.models,
            ("GET", "/version"): self.version,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/load"): self.load,
            ("POST", "/standin/fault"): self.fault,
        }
        if self.developer:
            work |= {
                ("POST", "/sleep"): self.sleep,
                ("POST", "/wake_up"): self.wake_up,
                ("GET", "/is_sleeping"): self.is_sleeping,
            }
        known = work.get((request.method, request.path))
        if known is None:
            return send(request, 404, {"detail": "Not Found"})
        return await known(request)

    async def health(self, request: Request) -> bool:
        return send(request, 200, b"")

    async def models(self, request: Request) -> bool:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "vllm"} for name in self.names]
        return send(request, 200, {"object": "list", "data": data})

    async def version(self, request: Request) -> bool:
        return send(request, 200, {"version": "0.32.0"})

    async def load(self, request: Request) -> bool:
        return send(request, 200, {"server_load": self.running + self.waiting})

    async def metrics(self, request: Request) -> bool:
        labels = f'{{engine="0",model_name="{self.names[0]}"}}'
        lines = [
            f"vllm:num_requests_running{labels} {float(self.running)}",
            f"vllm:num_requests_waiting{labels} {float(self.waiting)}",
            f"standin_requests_while_asleep_total {float(self.while_asleep)}",
            f"standin_paused {float(self.paused)}",
        ]
        return send(request, 200, "".join(line + "\n" for line in lines).encode(), "text/plain; version=0.0.4")

    async def fault(self, request: Request) -> bool:
        self.faults.set(json.loads(request.body)["fault"])
        return send(request, 200, {})

    async def sleep(self, request: Request) -> bool:
        self.paused = True  # from here on a request stays where it is, as in vLLM
        if self.running and request.query.get("mode") != ["wait"]:
            send(request, 200, {"status": "sleeping", "level": 1})
            await request.writer.drain()
            self.die("RuntimeError: asleep with requests in flight")
        while self.running:
            await asyncio.sleep(LOOK / 5)
        async with self.resting:
            if not self.asleep:
                await asyncio.sleep(self.rest)
                self.claims.take(min(ASLEEP, self.claims.want))
                self.asleep = True
                say(f"It took {self.rest:.6f} seconds to fall asleep.", where="gpu_worker.py:163")
                self.claims.tell("asleep")
        return send(request, 200, {"status": "sleeping", "level": 1})

    async def wake_up(self, request: Request) -> bool:
        if self.faults.has("wake-refuse"):
            return send(request, 500, {"error": {"message": "wake up failed", "type": "InternalServerError"}})
        async with self.resting:
            if self.asleep:
                short = (self.claims.gpus[0], 0) if self.faults.has("wake-oom") else self.claims.take(self.claims.want)
                if short:
                    self.die(OUT_OF_MEMORY.format(gpu=short[0], total=gib(self.claims.total), free=gib(short[1])))
                await asyncio.sleep(self.rest)
                self.claims.tell("awake")
            self.asleep = self.paused = False
        return send(request, 200, {"status": "awake", "tags": None})

    async def is_sleeping(self, request: Request) -> bool:
        return send(request, 200, {"is_sleeping": self.asleep})

    async def complete(self, request: Request) -> bool:
        try:
            body = json.loads(request.body)
            model = body.get("model") or self.names[0]
            count = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        except (ValueError, TypeError, AttributeError) as error:
            return send(request, 400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
        if model not in self.names:
            message = f"The model `{model}` does not exist."
            return send(request, 404, {"error": {"message": message, "type": "NotFoundError", "code": 404}})
        peer = request.writer.get_extra_info("peername")[0]
        self.claims.tell("asked", ident=body.get("user"), peer=peer, count=count)
        if self.paused or self.faults.has("mute"):
            return await self._hang(request, body.get("user"))
        self.running += 1
        try:
            answer = Answer(request, body, model, words(self.names[0], count), self.token, self.held)
            whole = await (answer.stream() if body.get("stream") else answer.plain())
        finally:
            self.running -= 1
        self.claims.tell("answered" if whole else "aborted", ident=body.get("user"))
        return whole

    def held(self) -> bool:
        return self.faults.has("hold")

    async def _hang(self, request: Request, ident: object) -> bool:
        """Never answer: only its client can end it."""
        if self.paused:
            self.while_asleep += 1
            self.claims.tell("asked-asleep", ident=ident)
        self.waiting += 1
        while not request.gone:
            await asyncio.sleep(LOOK)
        self.waiting -= 1
        return False

    async def misfortune(self) -> None:
        """Die when it is time to: no request tells."""
        while True:
            if not self.paused and self.faults.spend("die"):
                self.die("RuntimeError: CUDA error: an illegal memory access was encountered")
            if self.asleep and self.faults.spend("die-asleep"):
                self.die("RuntimeError: CUDA error: unspecified launch failure")
            await asyncio.sleep(LOOK)

    def terminate(self) -> None:
        """On SIGTERM vLLM ends at once and cuts off what is in flight."""
        if self.faults.has("ignore-term"):
            return
        wait = float(os.environ.get("STANDIN_LINGER", "5")) if self.faults.has("slow-stop") else 0
        asyncio.get_running_loop().call_later(wait, self.end)

    def end(self) -> None:
        self.claims.tell("stopped", running=self.running)
        self.claims.release()
        say("Shutting down", where="launcher.py:110")
        os._exit(0)

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.terminate)
        listener = await asyncio.start_server(self.client, "0.0.0.0", port)
        say(f"Starting vLLM server on http://0.0.0.0:{port}")
        print("INFO:     Application startup complete.", flush=True)
        self.claims.tell("ready")
        task = asyncio.create_task(self.misfortune())
        self.tasks.add(task)
        await listener.serve_forever()


@dataclass
class Answer:
    """What a completion or a chat completion says, in one piece or word by word."""

    request: Request
    body: dict[str, Any]
    model: str
    words: list[str]
    token: float
    held: Callable[[], bool]

    @property
    def chat(self) -> bool:
        return self.request.path.endswith("/chat/completions")

    async def _said(self) -> AsyncIterator[str]:
        """Each word when it is time for it, until the client hangs up."""
        for index, word in enumerate(self.words):
            await asyncio.sleep(self.token)
            while index and self.held() and not self.request.gone:
                await asyncio.sleep(LOOK)
            if self.request.gone:
                return
            yield word if index == 0 else f" {word}"

    def _shape(self, choice: dict[str, Any], kind: str) -> dict[str, Any]:
        ident = "chatcmpl-0" if self.chat else "cmpl-0"
        name = f"chat.completion{kind}" if self.chat else "text_completion"
        used = {"prompt_tokens": 1, "completion_tokens": len(self.words), "total_tokens": 1 + len(self.words)}
        shape = {"id": ident, "object": name, "created": int(time.time()), "model": self.model}
        return {**shape, "choices": [{"index": 0, **choice}], "usage": None if kind else used}

    async def plain(self) -> bool:
        """Answer in one piece; false when the client is gone."""
        text = "".join([piece async for piece in self._said()])
        if self.request.gone:
            return False
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return send(self.request, 200, self._shape({**said, "finish_reason": "stop"}, ""))

    async def stream(self) -> bool:
        """Answer in events, the last being [DONE]; false when the client is gone."""
        self.request.writer.write(head(200, "text/event-stream; charset=utf-8", None))
        if self.chat:
            self._chunk({"delta": {"role": "assistant", "content": ""}, "finish_reason": None})
        async for piece in self._said():
            self._chunk({**self._piece(piece), "finish_reason": None})
            await self.request.writer.drain()
        if self.request.gone:
            return False
        self._chunk({**self._piece(""), "finish_reason": "stop"})
        self._event("[DONE]")
        self.request.writer.write(b"0\r\n\r\n")
        return True

    def _piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self.chat else {"text": text}

    def _chunk(self, choice: dict[str, Any]) -> None:
        self._event(json.dumps(self._shape(choice, ".chunk")))

    def _event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode()
        self.request.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


# --- HTTP -------------------------------------------------------------------------------------------------------------


def head(status: int, kind: str, length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status} \r\nserver: uvicorn\r\nContent-Type: {kind}\r\n{size}\r\n\r\n".encode()


def send(request: Request, status: int, body: dict[str, Any] | bytes, kind: str = "application/json") -> bool:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request.writer.write(head(status, kind, len(data)) + data)
    return True


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """Read one request; None at the end of the connection."""
    first = await reader.readline()
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = {}
    while line := (await reader.readline()).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:size]
        await reader.readline()
    elif headers.get("content-length"):
        body = await reader.readexactly(int(headers["content-length"]))
    address = urlsplit(target)
    return Request(method, address.path, parse_qs(address.query), body, reader, writer)


# --- the start --------------------------------------------------------------------------------------------------------


def flag(argv: list[str], name: str) -> list[str]:
    """Give a flag's values: every word up to the next flag; nothing where it is not given."""
    for index, word in enumerate(argv):
        if word.startswith(f"{name}="):
            return [word.partition("=")[2]]
        if word == name:
            rest = argv[index + 1 :]
            return rest[: next((i for i, other in enumerate(rest) if other.startswith("--")), len(rest))]
    return []


def load(folder: str, seconds: float, claims: Claims, faults: Faults) -> None:
    """Say what vLLM says while it loads, take the memory, and fail where that is asked for."""
    claims.tell("loading")
    say("Resolved architecture: Qwen2ForCausalLM", where="model.py:733")
    say(f"Initializing a V1 LLM engine (v0.32.0) with config: model='{folder}'", "EngineCore", "core.py:133")
    share = claims.want / claims.total
    if short := claims.take(claims.want):
        gpu, free = short
        claims.tell("no-memory", gpu=gpu, free=free)
        engine_fails(
            f"ValueError: Free memory on device cuda:{gpu} ({gib(free)}/{gib(claims.total)} GiB) on startup is less "
            f"than desired GPU memory utilization ({share:.2f}, {gib(claims.want)} GiB). Decrease GPU memory "
            "utilization or reduce GPU memory used by other processes."
        )
        sys.exit(1)
    for shard in range(5):
        print(
            f"Loading safetensors checkpoint shards: {shard * 25}% Completed | {shard}/4", file=sys.stderr, flush=True
        )
        for word, line in LOAD_FAULTS.items():
            if shard == 2 and faults.has(word):
                engine_fails(line)
                claims.release()
                sys.exit(1)
        while shard == 2 and faults.has("load-hang"):
            time.sleep(LOOK)
        time.sleep(seconds / 5)
    say(f"Loading weights took {seconds:.2f} seconds", "EngineCore", "default_loader.py:501")


def main(argv: list[str]) -> None:
    if argv[:1] != ["serve"] or len(argv) < 2:
        sys.exit(f"vllm (stand-in): should be: serve FOLDER [--flags], got {argv}")
    setting = os.environ.get
    names = flag(argv, "--served-model-name") or [argv[1]]
    folder = Path(setting("STANDIN_CLAIMS", "")) if setting("STANDIN_CLAIMS") else None
    total = int(float(setting("STANDIN_GPU_GIB", "24")) * GIB)
    share = float((flag(argv, "--gpu-memory-utilization") or ["0.92"])[0])
    gpus = [int(gpu) for gpu in setting("TANDEM_GPUS", "").split(",") if gpu]
    claims = Claims(names[0], folder, gpus, int(share * total), total)
    faults = Faults(names[0], folder, setting("STANDIN_FAULT", ""))
    load(argv[1], float(setting("STANDIN_LOAD", "0.5")), claims, faults)
    server = Server(
        names, claims, faults, token=float(setting("STANDIN_TOKEN", "0.005")),
        rest=float(setting("STANDIN_REST", "0.02")), developer=setting("VLLM_SERVER_DEV_MODE") == "1",
    )  # fmt: skip
    asyncio.run(server.run(int((flag(argv, "--port") or ["8000"])[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
