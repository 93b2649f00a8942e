"""What is wrong with one GPU: who holds its memory, its display, its link, its power limit. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil, floor

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.gpus_servers import RESTART, Server
from orchestrator.doctor.smi import Card, Holder, Seen
from orchestrator.fit.overhead import CONTEXT
from orchestrator.fit.room import gib
from orchestrator.render.serve import variable

# One lane in one direction, in gigabytes a second, by the generation of PCIe (PCI-SIG's rates less their encoding).
LANE = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
# Below this (x8 of generation 3, x4 of generation 4) the exchange between two GPUs costs a server more than it should.
SLOW = 8.0
# What a desktop holds that nobody looks at; more is worth a line.
DISPLAY = 64 << 20


def memory(
    found: Seen, card: Card, servers: Sequence[Server], ours: Mapping[str, str], *, blocks: bool
) -> Iterable[Finding]:
    """Judge whether what is free is what the servers of a GPU will claim, and say who holds the rest.

    vLLM asks for its share of the GPU, all at once, when it starts (worker/utils.py: request_memory).
    """
    check = f"gpu {card.index} memory"
    mine = [holder for holder in card.holders if found.containers.get(holder.pid) in ours]
    back = sum(holder.used or 0 for holder in mine)
    told = all(holder.used is not None for holder in mine)
    free = min(card.free + back, card.usable)
    what = f"{gib(card.free)} of {gib(card.usable)} free"
    if back:
        what += f", {gib(free)} without the servers of this project"
    short = [server for server in servers if free < ceil(server.share * card.usable)]
    if not short:
        yield Finding(check, "ok", what)
        return
    # Under WSL2 nobody is named, so that a server of ours that runs may be who holds it.
    running = sorted(set(ours.values()) & {server.profile.name for server in servers})
    if running and (not told or not mine):
        yield Finding(check, "unknown", f"{what}; {', '.join(running)} runs on it, and the driver does not say with "
                      "how much", "what is free without it shows when it is down")  # fmt: skip
        return
    most = max(short, key=lambda server: server.share)
    wanted = ceil(most.share * card.usable)
    names = ", ".join(server.profile.name for server in short)
    why = f"vLLM asks for {gib(wanted)} at once when it starts: {names} would wait; held by {_held(found, card, mine)}"
    yield Finding(check, "bad", what, why, _way(card, free, most), blocks and len(short) == len(servers))


def _held(found: Seen, card: Card, mine: Sequence[Holder]) -> str:
    others = [holder for holder in card.holders if holder not in mine]
    if others:
        return ", ".join(_holder(holder) for holder in others)
    if found.wsl:
        return "what Windows does not name (under WSL2 no process is listed): a display, a browser, a game"
    return "what the driver does not name"


def _holder(holder: Holder) -> str:
    size = "" if holder.used is None else f", {gib(holder.used)}"
    return f"{holder.program} ({holder.pid}{size})"


def _way(card: Card, free: int, server: Server) -> str:
    share = floor((free - CONTEXT) / card.usable * 100) / 100
    close = "close what holds it"
    if share < 0.1:
        return close
    return f"{close}, or in .env: {variable(server.profile, 'gpu_memory_utilization')}={share:.2f}"


def display(found: Seen, card: Card) -> Iterable[Finding]:
    """Judge what a display, and the programs that draw, take of a GPU."""
    drawing = [holder for holder in card.holders if holder.draws]
    size = sum(holder.used or 0 for holder in drawing)
    if not card.display and size < DISPLAY:
        return
    programs = list(dict.fromkeys(holder.program for holder in sorted(drawing, key=lambda each: -(each.used or 0))))
    named = f": {', '.join(programs[:4])}{' and others' if len(programs) > 4 else ''}" if programs else ""
    what = "drives a display" if card.display else "programs draw on it"
    held = f", {gib(size)}" if size else f", {gib(card.used)} held in all" if found.wsl else ""
    yield Finding(
        f"gpu {card.index} display", "warn", f"{what}{held}{named}",
        "a model has that much less, and it changes while the model runs",
        "put the display on the board's own graphics, or turn hardware acceleration off in browsers",
    )  # fmt: skip


def leftovers(found: Seen, card: Card, running: frozenset[str] | None) -> Iterable[Finding]:
    """Find processes of containers that do not run any more: workers that outlived their server."""
    if running is None:
        return
    dead = [
        holder for holder in card.holders
        if (ident := found.containers.get(holder.pid)) is not None and ident not in running
    ]  # fmt: skip
    if not dead:
        return
    pids = " ".join(str(holder.pid) for holder in dead)
    yield Finding(
        f"gpu {card.index} leftovers", "bad",
        f"{', '.join(_holder(holder) for holder in dead)}, of a container that does not run any more",
        "it keeps its memory until it ends",
        f"sudo kill -9 {pids}" + (f"\nor, where that does not help, {RESTART}" if found.wsl else ""),
    )  # fmt: skip


def link(card: Card) -> Iterable[Finding]:
    """Judge the link to the machine: the width, and the generation that card and slot can together.

    The generation that is in force does not count: an idle card lowers it.
    """
    if card.width is None or card.gen_most is None or card.gen_most not in LANE:
        yield Finding(f"gpu {card.index} pcie", "unknown", "the driver does not tell its link")
        return
    rate = card.width * LANE[card.gen_most]
    narrow = card.width_most is not None and card.width < card.width_most
    older = card.gen_card is not None and card.gen_most < card.gen_card
    what = f"generation {card.gen_most} x{card.width}, {rate:.1f} GB/s"
    what += f", of x{card.width_most}" if narrow else ""
    what += f"; the card could generation {card.gen_card}" if older else ""
    if rate >= SLOW:
        yield Finding(f"gpu {card.index} pcie", "ok", what)
        return
    yield Finding(
        f"gpu {card.index} pcie", "warn", what,
        "without peer-to-peer all that two GPUs exchange goes over it: long prompts and many requests are slower",
        "another slot, or no riser cable; the BIOS may set the slot's width and generation",
    )  # fmt: skip


def power(found: Seen, card: Card) -> Iterable[Finding]:
    """Judge the power limit: one below the usual costs speed, and may be meant."""
    if card.power is None or card.power_usual is None or card.power >= card.power_usual:
        return
    part = (1 - card.power / card.power_usual) * 100
    command = f"nvidia-smi -i {card.index} -pl {card.power_usual:.0f}"
    # Under WSL2 the limit is that of Windows' driver, which a program in WSL may not set.
    meant = f"if it is not meant, in PowerShell as administrator:\n{command}"
    yield Finding(
        f"gpu {card.index} power", "warn", f"limited to {card.power:.0f} of {card.power_usual:.0f} W",
        f"{part:.0f} % less power: prompts are read slower; tokens hardly, as memory decides there",
        meant if found.wsl else f"sudo {command}   # if it is not meant",
    )  # fmt: skip
