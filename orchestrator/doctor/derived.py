"""The settings of a server that follow from the machine, each with its reason. Pure.

They are in force unless models.toml says otherwise for a model, or TANDEM_WITHOUT names them. models.toml has none of
them: it is the same on every machine.
"""

import textwrap
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.doctor.machine import Box
from orchestrator.profiles import Profile
from orchestrator.versions import number

# The variable in which a server's entrypoint gets the flags to add (docker/vllm/gating/command.py).
FLAGS = "TANDEM_FLAGS"
WITHOUT = "TANDEM_WITHOUT"
CUSTOM, P2P, PINNED = "disable-custom-all-reduce", "NCCL_P2P_DISABLE", "VLLM_WSL2_ENABLE_PIN_MEMORY"
CUMEM, SHM = "NCCL_CUMEM_HOST_ENABLE", "NCCL_SHM_DISABLE"
# All there are. NCCL_IB_DISABLE is none: NCCL looks for InfiniBand by itself and goes on without.
NAMES = (CUSTOM, P2P, CUMEM, SHM, PINNED)
# vLLM has the variable since pull request 41496 of May 2026; 0.24.0 is the oldest release that it was seen in.
PINS = (0, 24)
# From there on its default model runner needs pinned memory (UVA) to start at all, until 0.32.0 does without
# (v1/worker/gpu/buffer_utils.py: NonUvaBuffer; before: `RuntimeError: UVA is not available`).
NEEDS_UVA = ((0, 24), (0, 32))


@dataclass(frozen=True)
class Setting:
    """One setting: a variable of the server's environment, or a flag of `vllm serve` that takes no value.

    off: TANDEM_WITHOUT names it, so it is not in force.
    """

    name: str
    value: str
    reason: str
    kind: Literal["variable", "flag"] = "variable"
    off: bool = False

    def __str__(self) -> str:
        return f"--{self.name}" if self.kind == "flag" else f"{self.name}={self.value}"


def settings(
    box: Box, profile: Profile, version: str, *, without: Collection[str] = (), needed: Mapping[str, str] | None = None
) -> list[Setting]:
    """Derive the settings of a profile's server; none where the machine lacks its GPUs.

    version is that of vLLM; without are the names that are turned off; needed are the variables with which alone an
    all-reduce between these GPUs ended here (nccl.py).
    """
    if profile.image != "cuda" or not profile.gpus or not box.has(profile.gpus):
        return []
    found = [*_peers(box, profile), *_tried(needed or {}), *_pinned(box, profile, version)]
    first = {setting.name: setting for setting in reversed(found)}
    mine = [setting for setting in first.values() if not _stated(profile, setting)]
    return [
        Setting(each.name, each.value, each.reason, each.kind, off=each.name in without)
        for each in sorted(mine, key=lambda setting: NAMES.index(setting.name))
    ]


def _peers(box: Box, profile: Profile) -> Iterable[Setting]:
    """What GPUs need that cannot reach each other's memory."""
    if len(profile.gpus) < 2 or box.peer(profile.gpus) != "no":
        return
    why = f"these GPUs have no peer-to-peer: {box.why(profile.gpus)}"
    if profile.tensor_parallel_size > 1:
        # vLLM asks the driver whether they can, and gives its own all-reduce up when they cannot; up to 0.7 it tried
        # it out instead, and hung there under WSL2 (vLLM issue 5161, in gpu_p2p_access_check).
        yield Setting(CUSTOM, "", f"{why}; vLLM's own all-reduce needs it", "flag")
    # NCCL asks too; under WSL2 it is told wrongly and waits for ever (vLLM issues 5161 and 4411).
    yield Setting(P2P, "1", f"{why}; where NCCL is told otherwise it waits for ever")


def _tried(needed: Mapping[str, str]) -> Iterable[Setting]:
    """What made an all-reduce end that hung without."""
    for name, value in needed.items():
        if name in NAMES:
            yield Setting(name, value, "an all-reduce between these GPUs was tried here, and ended with this alone")


def _pinned(box: Box, profile: Profile, version: str) -> Iterable[Setting]:
    """Pinned memory under WSL2, which vLLM leaves off there (platforms/cuda.py: is_pin_memory_available)."""
    if not box.wsl or number(version) < PINS:
        return
    since, until = NEEDS_UVA
    if since <= number(version) < until:
        yield Setting(PINNED, "1", f"vLLM {version} does not start under WSL2 without pinned memory (UVA)")
    elif profile.sleep == "auto":
        # device_allocator/cumem.py copies the weights into memory that is pinned if this is on.
        yield Setting(
            PINNED, "1", "a model that sleeps is copied to and fro, which takes longer where its memory is not pinned"
        )
    elif "cpu-offload-gb" in profile.args:
        yield Setting(PINNED, "1", "--cpu-offload-gb with CUDA graphs works with pinned memory alone")


def _stated(profile: Profile, setting: Setting) -> bool:
    """Whether models.toml says something of it for this model; that holds."""
    return setting.name in (profile.args if setting.kind == "flag" else profile.env)


def variables(found: Iterable[Setting]) -> dict[str, str]:
    """Give the variables of a server's environment that carry the settings in force."""
    alive = [setting for setting in found if not setting.off]
    carried = {setting.name: setting.value for setting in alive if setting.kind == "variable"}
    flags = " ".join(f"--{setting.name}" for setting in alive if setting.kind == "flag")
    return carried | ({FLAGS: flags} if flags else {})


def names(text: str) -> list[str]:
    """Read the value of TANDEM_WITHOUT: names with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def fault(text: str) -> str | None:
    """Say what is wrong with the value of TANDEM_WITHOUT; None when nothing is."""
    wrong = [name for name in names(text) if name not in NAMES]
    return f'should be some of {", ".join(NAMES)}, got "{wrong[0]}"' if wrong else None


def table(found: Iterable[Setting]) -> list[str]:
    """Say the settings and their reasons, each on lines of at most 80 columns; no lines for none."""
    lines = []
    for setting in found:
        off = f" (off: {WITHOUT} names it)" if setting.off else ""
        lines += textwrap.wrap(
            f"{setting}: {setting.reason}{off}", 80, initial_indent="  ", subsequent_indent="      ",
            break_on_hyphens=False, break_long_words=False,
        )  # fmt: skip
    return lines


def as_json(found: Iterable[Setting]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [
        {"name": each.name, "value": each.value, "kind": each.kind, "reason": each.reason, "off": each.off}
        for each in found
    ]
