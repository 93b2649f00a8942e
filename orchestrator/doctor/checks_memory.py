"""Judges the machine's memory against weights, pinned memory and sleeping models; swap, shm, memlock. Pure."""

from math import ceil

from orchestrator.doctor.box import Box, Need
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.reading import size

GIB = 1 << 30
# NCCL's user guide, "Sharing Data": containers get --shm-size=1g and no limit of locked memory.
SHM = 1 << 30
# What Windows itself is left with when .wslconfig is told a number.
WINDOWS = 8 * GIB
SWAP_GIB = 16


def findings(box: Box) -> list[Finding]:
    """Say whether the memory is enough for what models.toml and the settings allow."""
    return [weights(box), pinned(box), sleepers(box), swap(box), shm(box), memlock(box)]


def gib(value: float) -> str:
    """A size for people."""
    return f"{value / GIB:.1f} GiB" if value == 0 or value >= GIB / 10 else f"{value / (1 << 20):.0f} MiB"


def _largest(box: Box) -> Need | None:
    """The profile with the most weights, of those whose size is known."""
    return max((need for need in box.usable if need.weights), key=lambda need: need.weights or 0, default=None)


def weights(box: Box) -> Finding:
    """Weights pass through the memory when they are loaded; under WSL too little of it ends the server."""
    check, total = "memory for weights", box.memory.total
    largest = _largest(box)
    if total is None:
        return Finding(check, "unknown", "/proc/meminfo does not tell the machine's memory")
    if largest is None:
        return Finding(check, "unknown", f"{gib(total)}; how large the weights are is not known")
    held = largest.weights or 0
    found = f"{gib(total)}{_whose(box)}; {largest.profile} has {gib(held)} of weights, by {largest.source}"
    if total >= held + box.reserve:
        return Finding(check, "ok", found)
    short = box.wsl.version and total < held
    why = (
        "loading then fails, and often looks as if the GPU's memory had run out"
        if short
        else f"less than weights and {gib(box.reserve)} for all else: each start reads them from the disk again"
    )
    return Finding(check, "bad" if short else "warn", found, why, more(box, held + box.reserve))


def _whose(box: Box) -> str:
    """Why there is just so much of it."""
    if not box.wsl.version:
        return ""
    if box.wsl.config is None:
        return " for WSL"
    return " for WSL by .wslconfig" if "memory" in box.wsl.config else " for WSL, its default (half of the machine)"


def more(box: Box, needed: int) -> str:
    """Say how the machine gets so much memory."""
    if not box.wsl.version:
        return f"put in more memory: {gib(needed)} are needed; or a smaller model"
    said = size((box.wsl.config or {}).get("memory", ""))
    if said is not None and said >= needed:
        return (
            f".wslconfig says {gib(said)} already; it counts after\nwsl --shutdown   # in PowerShell; ends all of WSL"
        )
    there = box.windows.memory
    if there is not None and needed > there - WINDOWS:
        return (
            f'Windows has {gib(there)} in all, and keeps {gib(WINDOWS)}: take a smaller model, sleep = "off" in\n'
            "models.toml, or put in more memory"
        )
    # Several checks may ask for memory, and the file has one line for it: the most that Windows can give of that.
    fits = [most for most in (needed, *_wanted(box)) if there is None or most <= there - WINDOWS]
    return wslconfig(f"memory={ceil(max(fits) / GIB)}GB", f"swap={SWAP_GIB}GB")


def _wanted(box: Box) -> list[int]:
    """Bytes of memory that each check of it asks for, as far as that is known."""
    largest, at_once = _largest(box), _asleep(box)
    held = [
        largest.weights if largest else None,
        max((need.offload for need in box.usable), default=0),
        None if at_once is None else sum(at_once),
    ]
    return [size + box.reserve for size in held if size]


def wslconfig(*lines: str) -> str:
    """Say what to write into .wslconfig, and how it gets to count."""
    return "\n".join((
        r"in %UserProfile%\.wslconfig (in place of lines of the same name):",
        "[wsl2]",
        *lines,
        "then in PowerShell, which ends all of WSL:",
        "wsl --shutdown",
    ))  # fmt: skip


def pinned(box: Box) -> Finding:
    """Pinned memory is never swapped: what is asked for has to be there."""
    check, asked = "memory to pin", max(box.usable, key=lambda need: need.offload, default=None)
    total = box.memory.total
    if asked is None or not asked.offload:
        return Finding(check, "ok", "no profile asks for any (cpu-offload-gb)")
    found = f"{asked.profile} pins {gib(asked.offload)} (cpu-offload-gb)"
    if total is None:
        return Finding(check, "unknown", f"{found}; the machine's memory is not known")
    if total >= asked.offload + box.reserve:
        return Finding(check, "ok", f"{found} of {gib(total)}")
    why = f"pinned memory is never swapped, and {gib(box.reserve)} are for all else: the server does not start"
    return Finding(check, "bad", f"{found} of {gib(total)}", why, more(box, asked.offload + box.reserve))


def _asleep(box: Box) -> list[int] | None:
    """Bytes of each model that may be asleep while another runs; None where the size of one is not known."""
    asleep = [need for need in box.usable if need.sleeps]
    if any(need.weights is None for need in asleep):
        return None
    sizes = sorted(need.weights or 0 for need in asleep)
    # Of models that all may sleep one is awake, or another that may not.
    rest = [need for need in box.usable if need.gpus and not need.sleeps]
    return sizes if rest or len(sizes) == 1 else sizes[1:]


def sleepers(box: Box) -> Finding:
    """A sleeping model keeps its weights in pinned memory (docs/switching.md), beside TANDEM_HOST_RESERVE."""
    check, total = "memory for sleepers", box.memory.total
    asleep = [need for need in box.usable if need.sleeps]
    if not asleep:
        return Finding(check, "ok", 'no profile may sleep (sleep = "auto")')
    at_once = _asleep(box)
    if total is None or at_once is None:
        names = ", ".join(need.profile for need in asleep if need.weights is None) or "the machine"
        return Finding(check, "unknown", f"the size of {names} is not known")
    needed = sum(at_once) + box.reserve
    found = f"{gib(total)}; {len(at_once)} asleep take {gib(sum(at_once))}, {gib(box.reserve)} are kept free"
    if total >= needed:
        return Finding(check, "ok", found)
    why = "those without room are stopped and not put to sleep: they come back in a minute, not within seconds"
    fix = f'{more(box, needed)}\nor fewer profiles with sleep = "auto"'
    return Finding(check, "warn", found, why, fix)


def swap(box: Box) -> Finding:
    """Without swap a peak of memory ends the largest process, which is the server."""
    held = box.memory.swap
    if held is None:
        return Finding("swap", "unknown", "/proc/swaps cannot be read")
    if held:
        return Finding("swap", "ok", gib(held))
    if not box.wsl.version and weights(box).status == "ok":
        return Finding("swap", "ok", "none; the memory is enough without")
    why = "a peak of memory, as when weights are loaded, ends the largest process: the server"
    if not box.wsl.version:
        fix = f"sudo fallocate -l {SWAP_GIB}G /swapfile && sudo chmod 600 /swapfile\n" + (
            "sudo mkswap /swapfile && sudo swapon /swapfile\necho '/swapfile none swap sw 0 0' | sudo tee -a /etc/fstab"
        )
        return Finding("swap", "warn", "none", why, fix)
    return Finding("swap", "warn", "none", why, wslconfig(f"swap={SWAP_GIB}GB"))


def shm(box: Box) -> Finding:
    """Servers on several GPUs talk through shared memory, above all where GPUs do not reach one another."""
    check = "shared memory"
    several = [need for need in box.usable if need.gpus > 1]
    if not several:
        return Finding(check, "ok", "does not apply: no profile has several GPUs")
    least = min(several, key=lambda need: need.shm)
    most = max(several, key=lambda need: need.shm)
    found = f"{least.profile} has {gib(least.shm)} (shm_size)"
    if least.shm < SHM:
        why = f"NCCL asks for {gib(SHM)}; with less it fails, or hangs, when GPUs have no peer-to-peer"
        return Finding(check, "bad", found, why, f'shm_size = "8gb" for {least.profile} in models.toml')
    if box.memory.total is not None and most.shm > box.memory.total:
        found = f"{most.profile} has {gib(most.shm)} (shm_size), the machine {gib(box.memory.total)} of memory"
        why = "shared memory is memory: what fills it up ends the server"
        return Finding(check, "warn", found, why, f'shm_size = "8gb" for {most.profile} in models.toml')
    return Finding(check, "ok", found)


def memlock(box: Box) -> Finding:
    """Compose sets no limits, so those of daemon.json count; CUDA's own pinned memory is not among what they limit."""
    limit = box.docker.limits.get("memlock")
    if limit is None or limit < 0:
        return Finding("memlock", "ok", "Docker sets no limit" if limit is None else "Docker allows any")
    why = "NCCL asks for no limit of locked memory; a low one ends servers on several GPUs"
    fix = (
        'in /etc/docker/daemon.json: "default-ulimits": {"memlock": {"Name": "memlock", "Soft": -1, "Hard": -1}}\n'
        f"then:\n{restart(box)}"
    )
    return Finding("memlock", "warn", f"{gib(limit)} at most, by daemon.json", why, fix)


def restart(box: Box) -> str:
    """The line that has the Engine read its settings anew."""
    if box.docker.is_desktop:
        return "restart Docker Desktop"
    return "sudo systemctl restart docker" if box.systemd else "sudo service docker restart"
