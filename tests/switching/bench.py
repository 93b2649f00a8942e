"""`bench switch` on this machine: the command itself, on a stack of two tiny models whose GPUs are on paper.

    python -m tests.switching.bench --vllm [--rounds 3] [--kinds warm,wake] [--json]

Everything after --vllm, or --standin, goes to the command as it is.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.checkout import Checkout
from tests.switching import stack

PROJECT = "tandem-test-bench"


def main() -> int:
    """Start the stack, run the command on it, and give its exit code."""
    servers, *more = sys.argv[1:] or [""]
    if servers not in ("--vllm", "--standin"):
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        made = stack.copy(Path(folder) / "stack", PROJECT)
        kind: stack.Servers = "vllm" if servers == "--vllm" else "standin"
        with stack.running(stack.fill(made, stack.FOUR[:2], servers=kind)):
            argv = Checkout.argv("bench", "switch", *more)
            return subprocess.run(argv, cwd=made.folder, env=made.env(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
