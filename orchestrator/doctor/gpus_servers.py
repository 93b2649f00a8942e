"""What servers need of this machine's GPUs: a driver, all their GPUs, capabilities, settings that agree. Pure."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.doctor import derived
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.smi import Card, Seen
from orchestrator.errors import TandemError
from orchestrator.profiles import Profile, gpu_names
from orchestrator.versions import Build, Versions, number

Capability = tuple[int, int]
# The oldest GPUs that the wheels have code for: CUDA 13 dropped Volta (its release notes), vLLM's CUDA 12 wheels are
# built for 7.0 and later (CMakeLists.txt, CUDA_SUPPORTED_ARCHS). By what a build's name begins with.
OLDEST: dict[str, Capability] = {"cu13": (7, 5), "cu12": (7, 0)}
# bfloat16, and up to vLLM 0.20 Marlin, the fast kernel of AWQ and GPTQ (kernels/.../marlin.py: get_min_capability);
# 0.32.0 says 75 there.
AMPERE: Capability = (8, 0)
MARLIN_ON_TURING = (0, 32)
# FP8 in the tensor cores; before it weights in FP8 are read, and multiplied as 16 bits (layers/quantization/fp8.py).
ADA: Capability = (8, 9)
AWQ, MARLIN = re.compile(r"awq", re.IGNORECASE), re.compile(r"awq|gptq|int4|w4a16|marlin", re.IGNORECASE)
FP8 = re.compile(r"fp8", re.IGNORECASE)
ALLOCATORS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
# Since pull request 40812 of April 2026 the allocator of sleep turns expandable segments off around itself; before, it
# refuses to start. 0.19.1 has the assertion, 0.32.0 has not.
REFUSES_SEGMENTS = (0, 21)
RESTART = "in PowerShell, which ends all of WSL:\nwsl --shutdown"
UPDATE = "update NVIDIA's driver (under WSL2: that of Windows)"


@dataclass(frozen=True)
class Server:
    """A profile with what it gets here: the build of vLLM, its share of each GPU, and two settings as they are."""

    profile: Profile
    build: Build
    share: float
    tag: str = ""
    without: str = ""


def no_driver(found: Seen, *, blocks: bool) -> Finding:
    """Say that no GPU can be seen, and what mends that."""
    why = "models that use a GPU cannot start"
    if found.absent:
        fix = (
            f"install NVIDIA's driver for Windows, and none inside WSL, then {RESTART}"
            if found.wsl
            else "sudo apt-get install nvidia-driver   # on Debian; then restart the machine"
        )
        return Finding("nvidia driver", "bad", "there is no nvidia-smi, so no driver", why, fix, blocks)
    if "mismatch" in found.fault:
        fix = "restart the machine: the driver was updated under a kernel that has the old one"
    elif found.wsl:
        fix = f"update NVIDIA's driver for Windows if it fails again after this, {RESTART}"
    else:
        fix = "sudo dmesg | grep -i nvrm   # says why; a restart loads the driver again"
    return Finding("nvidia driver", "bad", found.fault, why, fix, blocks)


def driver(found: Seen, servers: Sequence[Server], versions: Versions, *, blocks: bool) -> Iterable[Finding]:
    """Judge the driver's version: whether it runs what the profiles ask for, and what they get instead."""
    refused: dict[str, tuple[str, list[str]]] = {}
    for server in servers:
        try:
            versions.choose("cuda", pinned=server.profile.vllm, tag=server.tag, driver=found.driver)
        except TandemError as error:
            fact, *rest = str(error).splitlines()
            told = "; ".join(way.strip(" ,") for way in rest)
            refused.setdefault(fact, (told, []))[1].append(server.profile.name)
    whole = sum(len(names) for _, names in refused.values()) == len(servers)
    for fact, (ways, names) in refused.items():
        why = f"cannot start: {', '.join(names)}"
        check = _one_of("nvidia driver", refused, names)
        yield Finding(check, "bad", fact, why, ways or UPDATE, blocks and whole)
    if refused:
        return
    usual = versions.usual("cuda")
    older = sorted({
        server.build.version for server in servers
        if server.profile.vllm is None and not server.tag and server.build != usual
    })  # fmt: skip
    if older:
        yield Finding(
            "nvidia driver", "warn", f"{found.driver}, so models get vLLM {', '.join(older)}",
            f"vLLM {usual.version} needs {usual.driver} or newer",
            f"update NVIDIA's driver{' for Windows' if found.wsl else ''} to {usual.driver} or newer",
        )  # fmt: skip
        return
    runs = ", ".join(sorted({server.build.version for server in servers}))
    yield Finding("nvidia driver", "ok", f"{found.driver or 'of a version that it does not tell'}, runs vLLM {runs}")


def there(found: Seen, servers: Sequence[Server], *, blocks: bool) -> Iterable[Finding]:
    """Judge whether all GPUs of models.toml are here, and whether those of one model are alike."""
    lacking = {
        server.profile.name: [gpu for gpu in server.profile.gpus if found.card(gpu) is None] for server in servers
    }
    short = {name: gpus for name, gpus in lacking.items() if gpus}
    here = ", ".join(f"{card.index} {card.name}" for card in found.cards)
    if short:
        missing = sorted({gpu for gpus in short.values() for gpu in gpus})
        yield Finding(
            "gpus", "bad", f"{len(found.cards)} here ({here}); models.toml names {gpu_names(missing)} too",
            f"cannot start: {', '.join(short)}",
            f"gpus = {[card.index for card in found.cards]} in models.toml, with a tensor_parallel_size of as many",
            blocks and len(short) == len(servers),
        )  # fmt: skip
    mixed = [server.profile for server in servers if len(_names(found, server.profile)) > 1]
    if mixed:
        names = " and ".join(sorted(_names(found, mixed[0])))
        yield Finding(
            "gpu kinds", "warn", f"{', '.join(profile.name for profile in mixed)}: on {names} together",
            "the smaller and the slower one decides for both", "give a model GPUs of one kind: gpus in models.toml",
        )  # fmt: skip
    if not short:
        yield Finding("gpus", "ok", here)


def _names(found: Seen, profile: Profile) -> set[str]:
    return {card.name for gpu in profile.gpus if (card := found.card(gpu)) is not None}


def capability(found: Seen, servers: Sequence[Server], *, blocks: bool) -> Iterable[Finding]:
    """Judge the GPUs' compute capability: what vLLM's build has code for, and what a model's format needs."""
    unknown = [card for card in found.cards if card.capability is None]
    if unknown:
        yield Finding("compute capability", "unknown", f"this driver does not tell that of GPU {unknown[0].index}")
        return
    bad: dict[str, list[str]] = {}
    costs: dict[str, list[str]] = {}
    for server in servers:
        cards = [card for gpu in server.profile.gpus if (card := found.card(gpu)) is not None]
        least = min(cards, key=lambda card: card.capability or (0, 0))
        fault, cost = _needs(server, least)
        if fault:
            bad.setdefault(fault, []).append(server.profile.name)
        elif cost:
            costs.setdefault(cost, []).append(server.profile.name)
    rows = {**bad, **costs}
    whole = sum(map(len, bad.values())) == len(servers)
    for fault, names in bad.items():
        fix = "another model, or another GPU; for vLLM's build: vllm in models.toml, an older line has older GPUs"
        why = f"cannot start: {', '.join(names)}"
        yield Finding(_one_of("compute capability", rows, names), "bad", fault, why, fix, blocks and whole)
    for cost, names in costs.items():
        why = f"slower than it could be: {', '.join(names)}"
        yield Finding(_one_of("compute capability", rows, names), "warn", cost, why, "a model in another format")
    if not bad and not costs and servers:
        told = sorted({card.capability for card in found.cards if card.capability is not None})
        yield Finding("compute capability", "ok", ", ".join(_dotted(each) for each in told))


def _one_of(check: str, rows: Collection[str], names: Sequence[str]) -> str:
    """Name a check, of which several rows have the name of their first model too."""
    return check if len(rows) == 1 else f"{check} {names[0]}"


def _needs(server: Server, card: Card) -> tuple[str, str]:
    """Say why a server cannot run on a GPU, or what it costs there; "" for nothing."""
    profile, build, has = server.profile, server.build, card.capability or (0, 0)
    where = f"GPU {card.index} has {_dotted(has)}"
    oldest = next((least for name, least in OLDEST.items() if build.name.startswith(name)), (7, 0))
    if has < oldest:
        return f"{where}, and vLLM {build.version} ({build.name}) has code for {_dotted(oldest)} or newer", ""
    if profile.dtype == "bfloat16" and has < AMPERE:
        return f'{where}, and bfloat16 needs {_dotted(AMPERE)}; dtype = "half" works', ""
    format_ = f"{profile.model} {profile.quantization or ''}"
    if MARLIN.search(format_) and has < AMPERE and number(build.version) < MARLIN_ON_TURING:
        return "", f"{where}, and Marlin, the fast kernel of this format, needs {_dotted(AMPERE)} in {build.version}"
    if FP8.search(f"{format_} {profile.args.get('kv-cache-dtype', '')}") and has < ADA:
        return "", f"{where}, and FP8 in hardware needs {_dotted(ADA)}"
    return "", ""


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


def peers(found: Seen, servers: Sequence[Server]) -> Iterable[Finding]:
    """Judge whether GPUs that share a model reach each other's memory, and say what follows."""
    box = found.box
    if box is None:
        return
    for gpus in sorted({tuple(server.profile.gpus) for server in servers if len(server.profile.gpus) > 1}):
        mine = [server for server in servers if tuple(server.profile.gpus) == gpus]
        check, names = f"peer-to-peer {','.join(map(str, gpus))}", gpu_names(gpus)
        match box.peer(gpus):
            case "unknown":
                yield Finding(check, "unknown", f"the driver does not tell of {names}",
                              "where there is none, NCCL may hang", "nvidia-smi topo -p2p r")  # fmt: skip
            case "yes" if all("GeForce" in box.gpus[gpu] for gpu in gpus) and not box.wsl:
                yield Finding(
                    check, "warn", f"between {names}, which NVIDIA's own driver does not give a GeForce of this kind",
                    "with patched drivers wrong text was seen though all else looked well",
                    'compare answers; args = { disable-custom-all-reduce = true } in models.toml keeps vLLM off it',
                )  # fmt: skip
            case "yes":
                yield Finding(check, "ok", f"between {names}")
            case "no":
                yield _none(check, found, mine, box.why(gpus))


def _none(check: str, found: Seen, servers: Sequence[Server], why: str) -> Finding:
    box = found.box
    settings = [
        setting for server in servers if box is not None
        for setting in derived.settings(
            box, server.profile, server.build.version, without=derived.names(server.without)
        )
        if setting.name in (derived.CUSTOM, derived.P2P)
    ]  # fmt: skip
    off = sorted({setting.name for setting in settings if setting.off})
    against = sorted({
        server.profile.name for server in servers
        if server.profile.env.get(derived.P2P) == "0" or server.profile.args.get(derived.CUSTOM) is False
    })  # fmt: skip
    if off or against:
        who = f"{derived.WITHOUT} names {', '.join(off)}" if off else f"models.toml says otherwise for {against[0]}"
        fix = f"take it out of {derived.WITHOUT} in .env" if off else "take it out of models.toml"
        return Finding(check, "warn", f"none: {why}; and {who}", "NCCL, or vLLM's own all-reduce, may hang", fix)
    given = ", ".join(dict.fromkeys(map(str, settings)))
    return Finding(check, "ok", f"none: {why}", f"so servers get {given}" if given else "")


def allocator(found: Seen, server: Server) -> Iterable[Finding]:
    """Judge expandable_segments, which not everything that a server does can live with."""
    profile, version = server.profile, server.build.version
    said = next((name for name in ALLOCATORS if "expandable_segments:True" in profile.env.get(name, "")), None)
    if said is None:
        return
    check, what = f"allocator {profile.name}", f"{said} has expandable_segments:True"
    fix = f"take expandable_segments out of {said} for {profile.name} in models.toml"
    if profile.sleep == "auto" and number(version) < REFUSES_SEGMENTS:
        why = f"vLLM {version} does not start with it and sleep: its allocator for sleep refuses it"
        yield Finding(check, "bad", what, why, fix)
    elif found.wsl and MARLIN.search(f"{profile.model} {profile.quantization or ''}"):
        why = "under WSL2 the driver refuses it while Marlin repacks the weights: CUDA driver error: device not ready"
        yield Finding(check, "bad", what, why, fix)
    elif found.wsl:
        why = "under WSL2 drivers refuse the memory calls that it makes, now and then: device not ready"
        yield Finding(check, "warn", what, why, fix)
    else:
        yield Finding(check, "ok", what)


def pinned(found: Seen, servers: Sequence[Server]) -> Iterable[Finding]:
    """Judge pinned memory under WSL2, where vLLM leaves it off unless it is told."""
    if not found.wsl:
        return
    name = derived.PINNED
    since, until = derived.NEEDS_UVA
    for server in servers:
        profile, version = server.profile, number(server.build.version)
        said = profile.env.get(name)
        off = said == "0" or (said is None and name in derived.names(server.without))
        if not off:
            continue
        check, who = f"pinned memory {profile.name}", "models.toml" if said else derived.WITHOUT
        if since <= version < until:
            why = f"vLLM {server.build.version} does not start under WSL2 without it (UVA is not available)"
            yield Finding(check, "bad", f"{who} turns {name} off", why, f"take it out of {who}")
        elif profile.sleep == "auto" and version >= derived.PINS:
            why = "sleeping and waking take longer"
            yield Finding(check, "warn", f"{who} turns {name} off", why, f"take it out of {who}")
    slow = [each.profile.name for each in servers
            if each.profile.sleep == "auto" and number(each.build.version) < derived.PINS]  # fmt: skip
    if slow:
        yield Finding(
            "pinned memory", "warn", f"{', '.join(slow)} may sleep, and vLLM before 0.24 pins no memory under WSL2",
            "sleeping and waking take longer", "a newer driver, and with it a newer vLLM",
        )  # fmt: skip
