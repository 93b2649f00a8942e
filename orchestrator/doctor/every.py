"""The list of all checks, in the order of the table, and of those that stand in the way of a start. Pure."""

from orchestrator.doctor import (
    checks_disk,
    checks_docker,
    checks_files,
    checks_memory,
    checks_network,
    checks_wsl,
)
from orchestrator.doctor.box import Box
from orchestrator.doctor.finding import Finding


def findings(box: Box, gpus: list[Finding] | None = None) -> list[Finding]:
    """Judge a machine; gpus are the findings about its GPUs, which have their place in the table here."""
    return [
        *checks_wsl.findings(box),
        *checks_memory.findings(box),
        *checks_files.findings(box),
        *checks_docker.findings(box),
        *(gpus or []),
        *checks_network.findings(box),
        *checks_disk.findings(box),
    ]


def blocking(box: Box) -> list[Finding]:
    """Name what stands in the way of any start, of what a quick look finds."""
    found = [
        *([checks_wsl.version(box)] if box.wsl.version else []),
        *checks_docker.blocking(box),
        checks_network.port(box),
    ]
    return [finding for finding in found if finding.blocks]
