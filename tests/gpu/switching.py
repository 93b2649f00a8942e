"""Measures switches of the whole stack on a machine with two GPUs: two models of real shapes with random weights.

Router, activator, engine-proxy, reader and gates are the real ones, in containers; so is vLLM. FOLDER becomes a copy
of the project with those two models, and is what a later call with other steps goes on with. In this project's folder,
with the packages of requirements/run.txt and the images of router and activator there (and torch for --card):

  python3 tests/gpu/switching.py FOLDER up cold wake bench warm down

  up     make the containers and start all but the servers
  cold   start one model, then the other; both sleep once
  wake   rounds of wakes by a request through the router, each beside a wake that is asked of the servers directly
  bench, warm, recold     `python -m orchestrator bench switch` for its kinds wake (as many rounds), warm and cold (one)
  test   `python -m orchestrator sleep-test`
  down   take everything away again

Cards that are larger than 24 GiB can be made as small: with --card something else holds the rest of each. Where the
image of vLLM is not, --mount gives servers the machine's own folders, in an image that may be empty. Exits 1 when a
step failed, or what is in BARS was missed.
"""

import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from orchestrator import bench  # noqa: E402 (the project is no installed package there)
from tests.gpu import fit  # noqa: E402

# Seconds, at the median, through router and activator.
BARS = {"wake to first token": 1.0, "more than the servers alone": 0.25, "warm start": 45.0}
MODELS = FIRST, SECOND = ("qwen-14b", "qwen-32b-awq")
GPUS = (0, 1)
# What a profile of models.toml claims of a 24 GiB card, and what vLLM takes for itself on one. The pass is one that it
# has on larger cards alone.
CLAIM, LENGTH = 0.9 * 24, 16384
SMALL = "max-num-seqs = 256, max-num-batched-tokens = 2048"
SMALL += ", compilation-config = {pass_config = {fuse_allreduce_rms = false}}"
MIN_AWAKE = 1.0
CONTROL = ("router", "activator", "engine-proxy", "gpus")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
HOUR = 3600.0
# Variables by which a machine says how its GPUs may be used.
KEPT = ("NCCL_", "NVSHMEM_", "TORCH_", "CUDA_", "LD_LIBRARY_PATH", "VLLM_", "STANDIN_", "TANDEM_STANDIN_")
# Of a server's log: what a start spent its time on.
TELLING = re.compile(
    r"took|AOT|load failure|finished in|seconds|Starting|Initializ|Using|CUDA graph|KV cache|tandem:|rror|backed up|"
    r"startup"
)
NOISE = re.compile(r"GET /|POST /|it/s|Loading safetensors|Worker_TP1")

HOLD = """
import sys, time, torch
kept = []
for index in range(torch.cuda.device_count()):
    free, total = torch.cuda.mem_get_info(index)
    kept.append(torch.empty(max(0, free - int(float(sys.argv[1]) * 2**30)), dtype=torch.uint8, device=f"cuda:{index}"))
    free = torch.cuda.mem_get_info(index)[0]
    print(f"card {index} {total} {free}", flush=True)
print("held", flush=True)
time.sleep(7200)
"""


class BrokenError(Exception):
    """A step failed; str() says why."""


# --- the project's copy -----------------------------------------------------------------------------------------------


def models_toml(share: float, more: str, *, eager: bool) -> str:
    """The two profiles of models.toml, with random weights and sleep, and more arguments for vLLM."""
    text = f"[defaults]\ngpus = {list(GPUS)}\ntensor_parallel_size = {len(GPUS)}\nmax_model_len = {LENGTH}\n"
    text += f'gpu_memory_utilization = {share}\nsleep = "auto"\n' + "enforce_eager = true\n" * eager
    for name in MODELS:
        text += f'\n[models.{name}]\nmodel = "./switching/models/{name}"\n' + 'dtype = "half"\n' * ("awq" in name)
        text += f'args = {{load-format = "dummy", {", ".join(filter(None, (SMALL, more)))}}}\n'
    return text


def caches() -> dict[str, str]:
    """The variables by which the image keeps what is compiled in its volume."""
    return dict(re.findall(r"([A-Z_]+)=(/cache/\S+)", (ROOT / "docker/vllm/Dockerfile").read_text()))


def environment(folder: Path, python_path: str) -> dict[str, str]:
    """What a server in this machine's own folders needs to be as in the image of vLLM, and this machine's words."""
    told = {key: value for key, value in os.environ.items() if key.startswith(KEPT)}
    path = f"/switching/bin:{os.environ['PATH']}"
    ours = {"PATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "HOME": "/tmp"}
    ours["PYTHONPATH"] = ":".join(filter(None, ("/switching/site", python_path)))
    return caches() | ours | told


def control(folder: Path) -> dict[str, dict[str, Any]]:
    """Our own services run this folder's code, whichever their images were built from."""
    docker = folder / "docker"
    router = [f"{path}:/etc/nginx/{path.name}:ro" for path in sorted((docker / "router").glob("*.conf"))]
    router += [f"{docker}/router/start.sh:/etc/nginx/start.sh:ro"]
    router += [f"{path}:/etc/nginx/tandem/{path.name}:ro" for path in sorted((docker / "router").glob("*.lua"))]
    reader = [f"{docker}/vllm/{name}:/opt/tandem/{name}:ro" for name in ("nvml.py", "gpus.py")]
    return {
        "router": {"volumes": router},
        "engine-proxy": {"volumes": [f"{docker}/router/start.sh:/etc/nginx/start.sh:ro",
                                     f"{docker}/engine-proxy:/etc/nginx/engine-proxy:ro"]},
        "activator": {"volumes": [f"{folder}/orchestrator:/opt/tandem/orchestrator:ro"]},
        "gpus": {"volumes": reader},
    }  # fmt: skip


def override(words: argparse.Namespace, folder: Path) -> str:
    """Write compose.override.yaml: the machine's own folders instead of an image, and its way to reserve GPUs.

    JSON is YAML, apart from the tag that takes the rendered reservation away.
    """
    server: dict[str, Any] = {}
    if words.mount:
        init = ["tini", "-g", "--"] if shutil.which("tini") else []
        server = {
            "image": words.image,
            "entrypoint": [*init, "python3", "/opt/tandem/gate.py"],
            "environment": environment(folder, words.python_path),
            "volumes": [
                *(path if ":" in path else f"{path}:{path}:ro" for path in words.mount),
                f"{folder}/docker/vllm:/opt/tandem:ro",
                *(f"{folder}/switching/{name}:/switching/{name}:ro" for name in ("bin", "site")),
            ],
        }
    services: dict[str, dict[str, Any]] = {**dict.fromkeys(MODELS, server), **control(folder)}
    services["gpus"]["environment"] = {key: os.environ[key] for key in os.environ if key.startswith("TANDEM_STANDIN_")}
    services["gpus"]["volumes"] += words.reader_mount
    text = "services:\n"
    for name, service in services.items():
        text += f"  {name}:\n" + "".join(f"    {key}: {json.dumps(value)}\n" for key, value in service.items())
        if words.cdi and name in (*MODELS, "gpus"):
            ids = [f"{words.cdi}={gpu}" for gpu in GPUS]
            device = {"driver": "cdi", "device_ids": ids, "capabilities": ["gpu"]}
            text += f"    deploy: !override {json.dumps({'resources': {'reservations': {'devices': [device]}}})}\n"
    return text


class Stack:
    """The stack in a folder; a later call finds it again."""

    def __init__(self, folder: Path, words: argparse.Namespace) -> None:
        self.folder, self.words = folder, words
        self.address = f"http://127.0.0.1:{words.port}"
        settings = {
            "COMPOSE_PROJECT_NAME": words.project,
            "TANDEM_PORT": str(words.port),
            "TANDEM_MIN_AWAKE": str(MIN_AWAKE),
            "TANDEM_HOLD_TIMEOUT": "1200",
            # The machine is nobody else's.
            "TANDEM_HOST_RESERVE": str(2 << 30),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("TANDEM_", "COMPOSE_"))}
        # Nothing of ours is built: whether the machine has certificates is all one.
        self.environment = inherited | settings | {"TANDEM_CA_BUNDLE": f"{folder}/switching/none.crt"}

    def run(self, *argv: str, seconds: float = 300) -> str:
        done = subprocess.run(argv, cwd=self.folder, env=self.environment, capture_output=True, text=True,
                              timeout=seconds, check=False)  # fmt: skip
        if done.returncode:
            raise BrokenError(f"{' '.join(argv)}: {(done.stderr or done.stdout)[-2500:]}")
        return done.stdout

    def tandem(self, *words: str) -> str:
        """Run the command line; its progress shows as it comes, its answer is returned whatever its exit code."""
        argv = [sys.executable, "-m", "orchestrator", *words]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if not done.stdout:
            raise BrokenError(f"{' '.join(words)} ended with {done.returncode}")
        return done.stdout

    def furnish(self, share: float) -> None:
        """Copy the project and put the two models in."""
        left_out = shutil.ignore_patterns(".git", ".venv", ".gpu", ".*_cache", "__pycache__", ".env", "*.whl")
        shutil.copytree(ROOT, self.folder, ignore=left_out, dirs_exist_ok=True)
        (self.folder / "models.toml").write_text(models_toml(share, self.words.args, eager=self.words.eager))
        (self.folder / "switching/models").mkdir(parents=True, exist_ok=True)
        for name in MODELS:
            place = self.folder / "switching/models" / name
            if not place.exists():
                fit.folder(place, fit.SHAPES[name][0])
        (self.folder / "switching/none.crt").touch()
        # What the image has in its site-packages; a line of a .pth file is Python.
        site = self.folder / "switching/site/sitecustomize.py"
        site.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "docker/vllm/collector.pth", site)
        program = self.folder / "switching/bin/vllm"
        program.parent.mkdir(exist_ok=True)
        command = os.environ.get("VLLM", "python3 -m vllm.entrypoints.cli.main")
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        (self.folder / "compose.override.yaml").write_text(override(self.words, self.folder))

    def get(self, path: str) -> str:
        with DIRECT.open(self.address + path, timeout=10) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/-/status")))

    def state(self, name: str) -> str:
        return str(next(row["state"] for row in self.status()["models"] if row["name"] == name))

    def up(self, name: str) -> None:
        """Bring a model up, as `up` does."""
        request = urllib.request.Request(f"{self.address}/-/up/{name}", b"", method="POST")
        with DIRECT.open(request, timeout=HOUR) as answer:
            last = [json.loads(line) for line in answer if line.strip()][-1]
        if last["phase"] != "ready":
            raise BrokenError(f"{name}: {last.get('reason') or last.get('text')}")

    def container(self, name: str) -> str:
        return f"{self.words.project}-{name}"

    def server(self, name: str) -> str:
        """Where a model's server is reached without the router."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return f"http://{self.run('docker', 'inspect', '-f', form, self.container(name)).strip()}:8000"

    def log(self, name: str) -> list[str]:
        done = subprocess.run(["docker", "logs", "-t", self.container(name)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)  # fmt: skip
        # None of a container that is gone.
        return [] if done.returncode else done.stdout.decode(errors="replace").splitlines()

    def keep_logs(self) -> None:
        """Put the whole logs into FOLDER/logs."""
        (self.folder / "logs").mkdir(exist_ok=True)
        for name in (*MODELS, *CONTROL):
            if lines := self.log(name):
                (self.folder / "logs" / f"{name}.log").write_text("\n".join(lines))

    def note(self, key: str, value: Any) -> None:
        """Keep a result, beside those of earlier calls."""
        path = self.folder / "results.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | {key: value}, indent=1))

    def noted(self, key: str, otherwise: Any) -> Any:
        path = self.folder / "results.json"
        return json.loads(path.read_text()).get(key, otherwise) if path.exists() else otherwise


# --- asking -----------------------------------------------------------------------------------------------------------


def first_token(address: str, model: str) -> float:
    """Seconds from a streaming request to its first token; the answer is read to its end."""
    host, _, port = address.removeprefix("http://").partition(":")
    body = {"model": model, "prompt": "Hi", "max_tokens": 1, "temperature": 0, "stream": True}
    began, first = time.monotonic(), None
    line = http.client.HTTPConnection(host, int(port), timeout=HOUR)
    with contextlib.closing(line):
        line.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = line.getresponse()
        for raw in answer:
            text = raw.decode(errors="replace").strip()
            if answer.status != 200 or '"error"' in text:
                raise BrokenError(f"{model}: {answer.status} {text[:500]}")
            if text.startswith("data:") and '"choices"' in text and first is None:
                first = time.monotonic() - began
    if first is None:
        raise BrokenError(f"{model} streamed no token")
    return first


def post(address: str, path: str) -> float:
    """Seconds that a server takes for a request without a body."""
    began = time.monotonic()
    with DIRECT.open(urllib.request.Request(address + path, b"", method="POST"), timeout=300) as answer:
        answer.read()
    return time.monotonic() - began


def directly(source: str, target: str, model: str) -> dict[str, float]:
    """Switch by asking the servers themselves, at these addresses: seconds of each part, and in all."""
    took = {"sleep": post(source, "/sleep?level=1&mode=wait"), "wake": post(target, "/wake_up")}
    took["token"] = first_token(target, model)
    return took | {"total": sum(took.values())}


def switched(stack: Stack, source: str, target: str, kind: bench.Kind) -> bench.Switch:
    """Switch by a request through the router."""
    first = first_token(stack.address, target)
    last = stack.status()["last"]
    if last["target"] != target or last["outcome"] != "ready":
        raise BrokenError(f"{target} answered, and the last switch was {last}")
    if (last["kind"] == "wake") != (kind == "wake"):
        raise BrokenError(f"{target} came up by {last['kind']}, not by {kind}: {last}")
    return bench.Switch(source, target, kind, last["seconds"], last["total"], first)


# --- the steps --------------------------------------------------------------------------------------------------------


def hold(stack: Stack) -> float:
    """Make the cards small; the share of one that a profile claims then."""
    words = stack.words
    if words.share:
        return float(words.share)
    log = stack.folder / "hold.log"
    pid = stack.noted("holder", 0)
    if not pid or not Path(f"/proc/{pid}").exists():
        with log.open("w") as said:
            pid = subprocess.Popen([sys.executable, "-c", HOLD, str(words.card)], stdout=said, stderr=said,
                                   start_new_session=True).pid  # fmt: skip
        stack.note("holder", pid)
    deadline = time.monotonic() + 120
    while "held" not in log.read_text() and "Error" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    found = re.findall(r"^card \d+ (\d+) (\d+)", log.read_text(), re.MULTILINE)
    if "held" not in log.read_text() or len(found) < len(GPUS):
        raise BrokenError(f"the cards could not be made small: {log.read_text()[-1500:]}")
    for total, free in found:
        print(f"card of {int(total) / fit.GIB:.1f} GiB, of which {int(free) / fit.GIB:.1f} GiB are left")
    return round(CLAIM / (max(int(total) for total, _ in found) / fit.GIB), 4)


def up(stack: Stack) -> None:
    stack.folder.mkdir(parents=True, exist_ok=True)
    share = hold(stack)
    stack.furnish(share)
    stack.note("share", share)
    stack.run(sys.executable, "-m", "orchestrator", "render")
    # Of our own alone: nobody watches, and the machine may reach no registry.
    named = [word for name in MODELS for word in ("--profile", name)]
    stack.run("docker", "compose", *named, "create", "--no-build")
    stack.run("docker", "compose", "up", "-d", "--no-build", "--no-deps", *CONTROL)
    deadline = time.monotonic() + 60
    while True:
        try:
            status = stack.status()
        except (OSError, ValueError) as error:
            if time.monotonic() > deadline:
                raise BrokenError(f"no activator answers through the router: {error}") from None
        else:
            if status["gpus"] or time.monotonic() > deadline:
                break
        time.sleep(0.5)
    for card in status["gpus"] or []:
        free, total = card["free"] / fit.GIB, card["total"] / fit.GIB
        holders = [(held["name"], held["used"], held["container"][:12]) for held in card["processes"]]
        print(f"GPU {card['index']} {card['name']}: {free:.1f} of {total:.1f} GiB free, held by {holders}")
    if not status["gpus"]:
        raise BrokenError("the reader of the GPUs tells of none")
    print(f"share {share}; states {[(row['name'], row['state']) for row in status['models']]}")


def cold(stack: Stack) -> None:
    found = stack.noted("cold", [])
    for source, target in (("-", FIRST), (FIRST, SECOND)):
        if stack.state(target) in ("ready", "asleep"):
            continue
        said = switched(stack, source, target, "cold")
        found.append(asdict(said))
        stack.note("cold", found)
        print(bench.text(bench.matrix([said])).rsplit("\n\n", 1)[0])
        tell_start(stack, target)
        tell_memory(stack)
    # The first sleep pins memory: both have slept after this.
    for source, target in ((SECOND, FIRST), (FIRST, SECOND)):
        time.sleep(MIN_AWAKE + 0.2)
        stack.up(target)
        print(f"after {source}'s {'first' if source == SECOND else 'second'} sleep: {stack.status()['last']}")
    tell_memory(stack)


def wake(stack: Stack) -> None:
    source, target = (SECOND, FIRST) if stack.state(SECOND) == "ready" else (FIRST, SECOND)
    # Both have just been awake.
    stack.up(target)
    stack.up(source)
    servers = {name: stack.server(name) for name in MODELS}
    routed, direct = list[bench.Switch](), list[dict[str, Any]]()
    for number in range(2 * stack.words.rounds):
        # The activator looks once more after a switch; it is not to see what follows here. And min_awake passes.
        time.sleep(MIN_AWAKE + 0.3)
        there = directly(servers[source], servers[target], target)
        back = directly(servers[target], servers[source], source)
        time.sleep(0.2)
        said = switched(stack, source, target, "wake")
        routed.append(said)
        direct.append({"source": source, "target": target, **there})
        if number < 2:
            print(f"{source} -> {target}: {said.first_token:.3f} s, directly {there['total']:.3f} s {there}, "
                  f"back {back['total']:.3f} s")  # fmt: skip
        source, target = target, source
    stack.note("wake", [asdict(said) for said in routed])
    stack.note("direct", direct)
    print(bench.text(bench.matrix(routed)))
    for name in MODELS:
        mine = [took for took in direct if took["target"] == name]
        parts = ", ".join(
            f"{part} {bench.median(took[part] for took in mine):.3f}" for part in ("sleep", "wake", "token")
        )
        print(f"directly -> {name}: {bench.median(took['total'] for took in mine):.3f} s ({parts})")
    pairs = list(zip(routed, direct, strict=True))
    for name in MODELS:
        added = [said.first_token - took["total"] for said, took in pairs if said.target == name]
        print(f"added -> {name}: median {bench.median(added):.3f} s, least {min(added):.3f}, most {max(added):.3f}")
    judge(stack, "wake to first token", [bench.median(said.first_token for said in routed if said.target == name)
                                         for name in MODELS])  # fmt: skip
    judge(
        stack, "more than the servers alone", [bench.median(said.first_token - took["total"] for said, took in pairs)]
    )


def measured(stack: Stack, kind: bench.Kind, rounds: int) -> list[bench.Switch]:
    """Have the command line measure; its matrix with what came before."""
    words = ["bench", "switch", "--models", ",".join(MODELS), "--kinds", kind, "--rounds", str(rounds), "--json"]
    said = stack.tandem(*words)
    found = [bench.Switch(**one) for one in json.loads(said)["switches"]]
    before = [one for one in stack.noted("bench", []) if one["kind"] != kind]
    stack.note("bench", [*before, *map(asdict, found)])
    first = stack.noted("cold", []) if not any(one["kind"] == "cold" for one in before) and kind != "cold" else []
    print(bench.text(bench.matrix([bench.Switch(**one) for one in [*first, *before]] + found)))
    tell_memory(stack)
    return found


def bench_wake(stack: Stack) -> None:
    found = measured(stack, "wake", stack.words.rounds)
    good = [one.first_token for one in found if not one.fault]
    judge(stack, "wake to first token", [bench.median(good)] if good else [])


def warm(stack: Stack) -> None:
    found = measured(stack, "warm", 1)
    for name in MODELS:
        tell_start(stack, name)
    judge(stack, "warm start", [one.first_token for one in found if not one.fault])


def recold(stack: Stack) -> None:
    measured(stack, "cold", 1)


def sleep_test(stack: Stack) -> None:
    for name in MODELS:
        stack.up(name)
        print(stack.tandem("sleep-test", name, "--cycles", "2"))


def down(stack: Stack) -> None:
    stack.keep_logs()
    stack.run("docker", "compose", "--profile", "*", "down", "--volumes", "--timeout", "20")
    holder = stack.noted("holder", 0)
    if holder:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, 15)


STEPS = {"up": up, "cold": cold, "wake": wake, "bench": bench_wake, "warm": warm, "recold": recold, "test": sleep_test,
         "down": down}  # fmt: skip


# --- telling ----------------------------------------------------------------------------------------------------------


def judge(stack: Stack, bar: str, found: Sequence[float]) -> None:
    worst = max(found, default=None)
    good = worst is not None and worst <= BARS[bar]
    said = "nothing was measured" if worst is None else f"{worst:.3f} s"
    print(f"BAR {bar}: {said}, at most {BARS[bar]} s: {'met' if good else 'MISSED'}")
    stack.note(
        "missed", sorted({*stack.noted("missed", []), bar} if not good else {*stack.noted("missed", [])} - {bar})
    )


def tell_memory(stack: Stack) -> None:
    status = stack.status()
    cards = [f"{(card['total'] - card['free']) / fit.GIB:.1f}" for card in status["gpus"] or []]
    rows = [(row["name"], row["state"], row["sleep"], row["footprint"], row["reason"]) for row in status["models"]]
    print(f"  in use on the cards: {', '.join(cards)} GiB; {rows}")


def tell_start(stack: Stack, name: str, first: int = 8, last: int = 22) -> None:
    """Print what the last start in a server's log spent its time on, with the seconds since it began."""
    lines = stack.log(name)
    began = max((index for index, line in enumerate(lines) if "tandem: starting" in line), default=0)
    moment = seconds(lines[began]) if lines else 0
    told = [line for line in lines[began:] if TELLING.search(line) and not NOISE.search(line)]
    for line in told if len(told) <= first + last else [*told[:first], *told[-last:]]:
        print(f"    {seconds(line) - moment:6.1f} | {re.sub(r'^[^ ]+ (.*?] )?', '', line)[:130]}")


def seconds(line: str) -> float:
    """The time of day that Docker put before a line, in seconds."""
    found = re.match(r"[-\d]+T(\d+):(\d+):([\d.]+)Z", line)
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else 0


def tell_failure(stack: Stack) -> None:
    """Print the ends of the logs that say why a step failed."""
    with contextlib.suppress(OSError, ValueError):
        tell_memory(stack)
    for name, most in {**dict.fromkeys(MODELS, 25), "activator": 12, "gpus": 3, "engine-proxy": 3}.items():
        print(f"  --- {name}")
        kept = [line for line in stack.log(name) if not NOISE.search(line)][-most:]
        print("\n".join(f"  {line[11:19]} {re.sub(r'^[^ ]+ ', '', line)[:180]}" for line in kept))


@contextlib.contextmanager
def told(stack: Stack, step: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"=== {step}", flush=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            stack.keep_logs()
        print(f"=== {step}: {time.monotonic() - began:.0f} s", flush=True)


def main(argv: Sequence[str]) -> int:
    """Do the steps that are named; 1 when one failed or a bar was missed."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="of " + ", ".join(STEPS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--project", default="tandem-gpu", help="the Compose project")
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--card", type=float, default=28, help="GiB that shall be left of each card")
    parser.add_argument("--args", default="", metavar="TOML", help="more for vLLM: 'max-cudagraph-capture-size = 64'")
    parser.add_argument("--eager", action="store_true", help="no CUDA graphs: starts take a minute less")
    parser.add_argument("--share", type=float, help="what a server claims of the cards as they are")
    parser.add_argument("--mount", nargs="*", default=[], metavar="PATH", help="the machine's folders, for servers")
    parser.add_argument("--python-path", default="", help="where, in those, vLLM is")
    parser.add_argument("--image", default="local/host", help="an image for servers with the machine's folders")
    parser.add_argument("--cdi", default="", metavar="KIND", help="reserve GPUs as CDI devices, such as nvidia.com/gpu")
    parser.add_argument("--reader-mount", nargs="*", default=[], metavar="A:B", help="for the reader, such as NVML")
    words = parser.parse_intermixed_args(argv)
    steps: Mapping[str, Any] = {name: STEPS[name] for name in words.steps or ("up", "cold", "wake", "bench", "warm")}
    stack = Stack(words.folder.resolve(), words)
    for name, step in steps.items():
        try:
            with told(stack, name):
                step(stack)
        except (
            BrokenError,
            OSError,
            ValueError,
            LookupError,
            http.client.HTTPException,
            subprocess.SubprocessError,
        ) as error:
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            if name != "down":
                tell_failure(stack)
            return 1
    missed = stack.noted("missed", []) if "down" not in steps or len(steps) > 1 else []
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
