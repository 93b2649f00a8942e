"""Judges WSL itself: its version, a driver that does not belong in it, Windows' time-out of GPUs. Pure."""

from orchestrator.doctor.box import Box
from orchestrator.doctor.finding import Finding

# Microsoft, "TDR registry keys": what counts where the registry has no TdrDelay.
TDR_DEFAULT = 2
# Users of two 24 GiB cards under WSL2 report "device not ready" below this (club-3090).
TDR_SECONDS = 60
KEY = r"HKLM\SYSTEM\CurrentControlSet\Control\GraphicsDrivers"
TDR_SET = f"reg add {KEY} /v TdrDelay /t REG_DWORD /d {TDR_SECONDS} /f"
TDR_FIX = f"in PowerShell as administrator, then restart Windows:\n{TDR_SET}"


def findings(box: Box) -> list[Finding]:
    """Say what is to be said of WSL; one line where this is none."""
    if not box.wsl.version:
        return [Finding("wsl", "ok", "does not apply: this is not WSL")]
    return [version(box), driver(box), tdr(box)]


def version(box: Box) -> Finding:
    """WSL1 has no kernel of Linux, so neither Docker nor a GPU."""
    if box.wsl.version == 2:
        return Finding("wsl", "ok", f"WSL 2{_named(box)}")
    return Finding(
        "wsl",
        "bad",
        f"WSL 1{_named(box)}",
        "it has no Linux kernel: neither Docker nor a GPU works in it",
        f"in PowerShell:\nwsl --set-version {box.wsl.distribution or '<distribution, as wsl -l shows it>'} 2",
        blocks=True,
    )


def _named(box: Box) -> str:
    return f", {box.wsl.distribution}" if box.wsl.distribution else ""


def driver(box: Box) -> Finding:
    """The driver is that of Windows, and WSL shows it; one for Linux gets in its way."""
    found = box.wsl.drivers
    if not found:
        return Finding("driver in wsl", "ok", "none; Windows' own serves")
    named = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    if found[0].startswith("/"):
        fix = "sudo nvidia-uninstall   # if its installer put it there\nsudo ldconfig"
    else:
        fix = f"sudo apt-get purge {' '.join(found)}\nsudo ldconfig"
    return Finding(
        "driver in wsl",
        "bad",
        f"an NVIDIA driver for Linux: {named}",
        "its libcuda hides the one of Windows' driver, and programs find no GPU",
        fix,
    )


def tdr(box: Box) -> Finding:
    """A long kernel on a card that Windows draws with is taken for one that hangs."""
    windows, check = box.windows, "windows gpu time-out"
    if windows.fault or not windows.tdr_known:
        why = windows.fault or "the registry could not be read"
        look = f"in PowerShell:\nreg query {KEY} /v TdrDelay"
        return Finding(check, "unknown", why, "a short one ends servers with 'device not ready'", look)
    if windows.tdr_level == 0:
        return Finding(check, "ok", "off (TdrLevel 0)")
    seconds = TDR_DEFAULT if windows.tdr_delay is None else windows.tdr_delay
    said = f"{seconds} s" + (", Windows' default" if windows.tdr_delay is None else "")
    if seconds >= TDR_SECONDS:
        return Finding(check, "ok", said)
    why = f"Windows resets a GPU that is busy for longer, and the server ends; {TDR_SECONDS} s are known to do"
    return Finding(check, "warn", said, why, TDR_FIX)
