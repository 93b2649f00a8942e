"""Whether what a finding says to paste can be pasted: commands alone on their lines, notes after ` # `."""

import functools
import re
import subprocess
from collections.abc import Iterable

from orchestrator.doctor.finding import Finding

# What a line begins with that is for bash, and what one begins with that is for PowerShell.
BASH = re.compile(
    r"(?:sudo|python|docker|rm|mv|cp|sed|systemctl|nvidia-\w+|kill|export|echo|curl|scripts/\w+|wsl\.exe)(?=\s|$)"
)
POWERSHELL = re.compile(r"(?:wsl|netsh|netstat|reg|diskpart|New-\w+)(?=\s|$)")
# A command in the middle of words, where nobody can tell where it ends.
HIDDEN = re.compile(r"\bsudo |\bpython -m |\bwsl --|\bdocker (?:compose|logs|run|context|builder)\b|&&")


def faults(fix: str) -> list[str]:
    """Say what is wrong with the lines of a fix; nothing where all can be pasted."""
    found, windows = [], False
    for line in fix.splitlines():
        if line.endswith(":") or re.match(r"(?:or|and)\b", line):
            windows = "PowerShell" in line and line.endswith(":")
        marked = windows or "# in PowerShell" in line
        command = line.partition(" # ")[0]
        if marked and (BASH.match(line) or POWERSHELL.match(line)):
            found += [f"{line}: sudo is not of Windows"] if "sudo" in command else []
        elif POWERSHELL.match(line):
            found.append(f"{line}: not marked as PowerShell's")
        elif BASH.match(line):
            found += [f"{line}: {said}" for said in [_refused(line)] if said]
        elif HIDDEN.search(command):
            found.append(f"{line}: a command among words")
    return found


@functools.cache
def _refused(line: str) -> str:
    done = subprocess.run(["bash", "-n"], input=f"{line}\n", capture_output=True, text=True, check=False)
    return done.stderr.strip()


def pasted(findings: Iterable[Finding]) -> None:
    """Fail where a finding says something to paste that cannot be."""
    wrong = {finding.check: said for finding in findings if (said := faults(finding.fix))}
    assert not wrong, wrong
