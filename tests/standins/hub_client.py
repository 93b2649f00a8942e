"""How tests start a stand-in of a hub, tell it how to misbehave and read what it was asked for."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# It is on this machine, whatever proxy the machine uses.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Hub:
    """A stand-in that runs somewhere."""

    def __init__(self, address: str) -> None:
        self.address = address

    def control(self, **switches: Any) -> dict[str, Any]:
        """Set switches; all of them."""
        return dict(self._json("/control", json.dumps(switches).encode()))

    def start_over(self, **switches: Any) -> None:
        """Make it a good hub but for these switches, with an empty log."""
        self.control(reset=True, reset_log=True, **switches)

    def requests(self, file: str | None = None) -> list[dict[str, Any]]:
        """What it was asked for, or what of a file."""
        return [entry for entry in self._json("/log")["requests"] if file in {None, entry["FilePath"]}]

    def sent(self) -> dict[str, int]:
        """How many bytes of each file it sent."""
        return dict(self._json("/log")["totals"]["by_file"])

    def _json(self, path: str, body: bytes | None = None) -> Any:
        with DIRECT.open(self.address + path, body, timeout=180) as answer:
            return json.load(answer)


@contextmanager
def running(script: str, root: Path, *options: str) -> Iterator[Hub]:
    """Run a stand-in as a process of its own."""
    argv = [sys.executable, str(HERE / script), str(root), *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield Hub(process.stdout.readline().strip() if process.stdout else "")
        finally:
            process.kill()
