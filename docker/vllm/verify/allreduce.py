"""Tries an all-reduce between the ranks of a model, with a time limit, and prints what came of it as one JSON object.

  allreduce.py BACKEND GPUS [SECONDS]

BACKEND is nccl; gloo stands in for it where there is no GPU. GPUS are the machine's numbers, such as 0,1: a rank for
each. SECONDS is how long the all-reduce itself may take, once every rank has imported torch. The object has

  backend   what was used
  state     works, wrong (the sums are not right), hung (no end in its time) or failed (a rank ended with an error)
  phase     where the slowest rank was: import, join, first or repeat
  seconds   the first all-reduce, which connects the ranks; null where it did not end
  gigabytes_per_second   of the repeated ones: bytes of a rank's data by the median of their seconds
  why       the last line of a rank's error, or ""

It ends with 0 when it could tell. What NCCL says itself goes to stderr.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Importing torch from a cold disk.
IMPORTS = 180.0
SECONDS = 60.0
PAUSE = 0.05
# What is killed is gone within.
GONE = 5.0
# Of each rank, in bytes; more than NCCL sends in one piece, and less than a full GPU has free.
SIZE = 64 << 20
REPEATS = 5
PHASES = ("import", "join", "first", "repeat", "done")
# Each part of the data has its own values, so that a part which is lost or put elsewhere shows.
PERIOD = 251


def rank(backend: str, gpus: list[int], mine: int, folder: Path, seconds: float) -> None:
    """Be one rank: write the phases, and at the end what was found, as files into the folder."""
    tell(folder, mine, "import")
    from datetime import timedelta

    import torch
    from torch import distributed

    tell(folder, mine, "join")
    if backend == "nccl":
        seen = torch.cuda.device_count()
        if seen < len(gpus):
            raise SystemExit(f"{len(gpus)} GPUs are needed, and {seen} can be seen")
        # A container sees its own as 0, 1 and so on; under WSL2 it sees all of the machine's.
        device = torch.device("cuda", gpus[mine] if seen > len(gpus) else mine)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    distributed.init_process_group(
        backend, init_method=f"file://{folder}/meeting", rank=mine, world_size=len(gpus),
        timeout=timedelta(seconds=2 * seconds + IMPORTS),
    )  # fmt: skip
    pattern = torch.arange(SIZE // 4, dtype=torch.float32, device=device) % PERIOD

    def once() -> tuple[float, bool]:
        data = pattern * (mine + 1)
        done(torch, backend)
        begun = time.monotonic()
        distributed.all_reduce(data)
        done(torch, backend)
        took = time.monotonic() - begun
        # Small whole numbers: the sum has no rounding.
        return took, bool(torch.equal(data, pattern * sum(range(1, len(gpus) + 1))))

    tell(folder, mine, "first")
    first, right = once()
    tell(folder, mine, "repeat")
    repeated = [once() for _ in range(REPEATS)]
    found = {
        "right": right and all(fine for _, fine in repeated),
        "seconds": first,
        "repeated": statistics.median(took for took, _ in repeated),
    }
    (folder / f"found-{mine}").write_text(json.dumps(found))
    tell(folder, mine, "done")
    # Taking a group down may hang where everything else was well, and nothing is left to be lost.
    sys.stdout.flush()
    os._exit(0)


def done(torch: object, backend: str) -> None:
    """Wait until a GPU has done what it was given."""
    if backend == "nccl":
        torch.cuda.synchronize()  # type: ignore[attr-defined]


def tell(folder: Path, mine: int, phase: str) -> None:
    """Say how far a rank is; whoever reads finds one phase or the other, and never half of one."""
    new = folder / f"new-{mine}"
    new.write_text(phase)
    new.replace(folder / f"phase-{mine}")


def read(path: Path) -> str:
    """What a file holds, "" where it is not there yet."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def supervise(backend: str, gpus: list[int], seconds: float, imports: float = IMPORTS) -> dict[str, object]:
    """Start the ranks, wait for their end or for that of their time, and leave none behind."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        ranks = []
        for mine in range(len(gpus)):
            argv = [sys.executable, __file__, "rank", backend, ",".join(map(str, gpus)), str(mine), name, str(seconds)]
            with (folder / f"error-{mine}").open("wb") as error:
                ranks.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=error))
        try:
            return follow(ranks, folder, seconds, imports) | {"backend": backend}
        finally:
            for each in ranks:
                each.kill()
            for mine, each in enumerate(ranks):
                # One that a driver does not let go of cannot be waited for.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.wait(GONE)
                sys.stderr.write(read(folder / f"error-{mine}"))


def follow(ranks: list["subprocess.Popen[bytes]"], folder: Path, seconds: float, imports: float) -> dict[str, object]:
    """Wait for the ranks, and say what came of it."""
    begun = time.monotonic()
    started: float | None = None
    while True:
        codes = [each.poll() for each in ranks]
        phases = [read(folder / f"phase-{mine}") or "import" for mine in range(len(ranks))]
        slowest = min(phases, key=PHASES.index)
        failed = next((mine for mine, code in enumerate(codes) if code), None)
        if failed is not None:
            said = [line for line in read(folder / f"error-{failed}").splitlines() if line.strip()]
            ended = f"rank {failed} ended with {codes[failed]}"
            return outcome("failed", slowest, said[-1].strip() if said else ended)
        if all(code == 0 for code in codes):
            return ended_well(folder, len(ranks))
        now = time.monotonic()
        if started is None and slowest != "import":
            started = now
        if started is None and now - begun > imports:
            return outcome("failed", slowest, f"torch was not imported in {imports:g} s")
        if started is not None and now - started > seconds:
            return outcome("hung", slowest, f"no end in {seconds:g} s")
        time.sleep(PAUSE)


def ended_well(folder: Path, ranks: int) -> dict[str, object]:
    """Put together what the ranks found."""
    found = [json.loads(read(folder / f"found-{mine}")) for mine in range(ranks)]
    right = all(each["right"] for each in found)
    took = max(each["repeated"] for each in found)
    return outcome("works" if right else "wrong", "done", "" if right else "the sums are not right") | {
        "seconds": round(max(each["seconds"] for each in found), 4),
        "gigabytes_per_second": round(SIZE / took / 1e9, 3) if took else None,
    }


def outcome(state: str, phase: str, why: str) -> dict[str, object]:
    """What is printed, with no numbers yet."""
    return {"state": state, "phase": phase, "seconds": None, "gigabytes_per_second": None, "why": why}


def main(argv: list[str]) -> int:
    """Try it, or be one of the ranks."""
    if argv[:1] == ["rank"]:
        backend, gpus, mine, folder, seconds = argv[1:]
        rank(backend, [int(gpu) for gpu in gpus.split(",")], int(mine), Path(folder), float(seconds))
        return 0
    if not 2 <= len(argv) <= 3 or argv[0] not in ("nccl", "gloo"):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    # A container without a network has the loopback interface alone, which gloo does not look for by itself.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # models.toml counts GPUs by their bus; CUDA by itself counts the fastest first.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    gpus = [int(gpu) for gpu in argv[1].split(",")]
    print(json.dumps(supervise(argv[0], gpus, float(argv[2]) if len(argv) > 2 else SECONDS)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
