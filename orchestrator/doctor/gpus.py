"""What is wrong with this machine's GPUs for the models of models.toml, as rows of the doctor's table. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from orchestrator.doctor import gpus_cards, gpus_servers, nccl
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.gpus_servers import Server
from orchestrator.doctor.nccl import Result, Tried
from orchestrator.doctor.smi import Seen
from orchestrator.fit.flags import utilization
from orchestrator.profiles import Profile
from orchestrator.render.serve import variable
from orchestrator.versions import Versions


@dataclass(frozen=True)
class Around:
    """What the checks need to know beside the GPUs.

    running are the ids of all containers that run on this machine, None where Docker was not asked; ours names, by
    their ids, the running servers of this project: they give way, and what they hold is no obstacle. images are the ids
    of the images here by their tags; kept is what all-reduces gave (kept.results).
    """

    running: frozenset[str] | None = None
    ours: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[Tried, Result] = field(default_factory=dict)


def findings(
    found: Seen,
    profiles: Iterable[Profile],
    versions: Versions,
    setting: Callable[[str], str] = lambda _: "",
    around: Around | None = None,
) -> list[Finding]:
    """Judge the GPUs, for these profiles: for `doctor` those of models.toml, for an `up` the one that is meant.

    found is nvidia.look(); setting gives a setting's value ("" for none): Settings.get; around is empty unless given,
    and what is not in it is not judged. Finding.blocks is true where none of the profiles that are given can start, so
    give one alone to ask about one. Takes no time and raises nothing; the order is that of the table.
    """
    listed = list(profiles)
    mine = [profile for profile in listed if profile.gpus and profile.image == "cuda"]
    if not mine:
        return [Finding("nvidia driver", "ok", "not needed: no model here uses a GPU")]
    around = around or Around()
    servers = [_server(profile, versions, found.driver, setting) for profile in mine]
    all_need = len(mine) == len(listed)
    rows = _lasting(found, servers, versions, blocks=all_need)
    if found.fault:
        return rows
    present = _present(found, servers)
    used = sorted({gpu for server in present for gpu in server.profile.gpus})
    for card in (card for card in found.cards if card.index in used):
        claims = [server for server in present if card.index in server.profile.gpus]
        whole = all_need and len(claims) == len(servers)
        rows += gpus_cards.memory(found, card, claims, around.ours, blocks=whole)
        rows += gpus_cards.display(found, card)
        rows += gpus_cards.leftovers(found, card, around.running)
        rows += [*gpus_cards.link(card), *gpus_cards.power(found, card)]
    rows += gpus_servers.peers(found, present)
    rows += [row for server in present for row in gpus_servers.allocator(found, server)]
    rows += gpus_servers.pinned(found, present)
    return rows + _reduced(found, present, around)


def obstacles(
    found: Seen, profile: Profile, versions: Versions, setting: Callable[[str], str] = lambda _: ""
) -> list[Finding]:
    """Name what of the driver and the GPUs stands in the way of one profile's start, whatever else runs: an `up`.

    Not what is free of their memory, which `up` foresees with what gives way. Where no nvidia-smi is, nothing is known:
    it is a package of its own, and Docker is asked anyway whether it can reserve the GPUs.
    """
    if found.absent or not profile.gpus or profile.image != "cuda":
        return []
    servers = [_server(profile, versions, found.driver, setting)]
    return [row for row in _lasting(found, servers, versions, blocks=True) if row.blocks]


def _lasting(found: Seen, servers: list[Server], versions: Versions, *, blocks: bool) -> list[Finding]:
    """Judge what does not change from minute to minute: the driver, and what GPUs are here."""
    if found.fault:
        return [gpus_servers.no_driver(found, blocks=blocks)]
    present = _present(found, servers)
    return [
        *gpus_servers.driver(found, servers, versions, blocks=blocks),
        *gpus_servers.there(found, servers, blocks=blocks),
        *gpus_servers.capability(found, present, blocks=blocks and len(present) == len(servers)),
    ]


def _present(found: Seen, servers: list[Server]) -> list[Server]:
    return [server for server in servers if all(found.card(gpu) for gpu in server.profile.gpus)]


def _server(profile: Profile, versions: Versions, driver: str, setting: Callable[[str], str]) -> Server:
    build = versions.wanted("cuda", pinned=profile.vllm, tag=setting("TANDEM_VLLM"), driver=driver).build
    said = setting(variable(profile, "gpu_memory_utilization"))
    share = float(said) if said else profile.gpu_memory_utilization or utilization(build.version)
    return Server(profile, build, share, setting("TANDEM_VLLM"), setting("TANDEM_WITHOUT"))


def _reduced(found: Seen, servers: Iterable[Server], around: Around) -> list[Finding]:
    """What all-reduces gave, once for each image and set of GPUs."""
    rows: dict[Tried, Finding] = {}
    for server in servers:
        gpus = tuple(server.profile.gpus)
        key = Tried(around.images.get(server.build.image, ""), server.build.tag, found.driver, gpus)
        if len(gpus) > 1 and key not in rows:
            rows[key] = _all_reduce(key, around.kept.get(key), server.profile.name)
    several = len(rows) > 1
    return [
        Finding(f"nccl {key.tag} {','.join(map(str, key.gpus))}" if several else "nccl", row.status, row.found,
                row.why, row.fix, row.blocks)
        for key, row in rows.items()
    ]  # fmt: skip


def _all_reduce(key: Tried, result: Result | None, name: str) -> Finding:
    if result is None:
        what = f"not tried yet between GPUs {', '.join(map(str, key.gpus))} with this image and driver"
        return Finding("nccl", "unknown", what, "a server whose GPUs cannot talk waits for ever",
                       f"python -m orchestrator up {name}   # tries it first")  # fmt: skip
    if result.stops:
        why = "a server on these GPUs hangs, or answers nonsense"
        return Finding("nccl", "bad", str(result), why, nccl.advice(result.environment))
    slow = "" if not result.needed else ", ".join(f"{name}={value}" for name, value in result.needed.items())
    if slow:
        return Finding("nccl", "ok", f"{result}, with {slow} alone", "these settings are derived, and in force")
    return Finding("nccl", "ok", str(result))
