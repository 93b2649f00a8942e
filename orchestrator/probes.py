"""Tries what network.py lists, as a build or a pull would: through the proxy, with the authorities, within seconds."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator import network
from orchestrator.addresses import HUBS, PROXIES, here, masked
from orchestrator.errors import TandemError
from orchestrator.http import Answer, Way, Worker, get, reachable
from orchestrator.network import OK, Candidate, Row
from orchestrator.settings import Settings
from orchestrator.trust import authorities

IMAGE = "debian:bookworm-slim"


@dataclass(frozen=True)
class Probe:
    """How one address is tried.

    refusal is the Engine's; pins are packages with versions; models names one that is pulled from each kind of hub.
    """

    refusal: Callable[[str, float], str | None]
    way: Way
    seconds: float
    pins: Iterable[tuple[str, str]]
    models: Mapping[str, str]
    clock: Callable[[], float]

    def __call__(self, candidate: Candidate) -> Row:
        """Try one address."""
        row = Row(candidate.kind, candidate.address, candidate.source, network.unusable(candidate) or OK)
        if not row.works:
            return row
        if candidate.kind == "registry":
            return self.image(network.image(candidate.address, IMAGE), row)
        start, answer = self.clock(), OK
        for name, versions in self._wanted(candidate.kind).items():
            left = self.seconds - (self.clock() - start)
            answer = self._page(candidate, name, versions, left)
            if answer != OK:
                break
        answer = network.in_a_container(answer, candidate.address)
        took = round((self.clock() - start) * 1000)
        return Row(row.what, row.address, row.source, answer, took if answer == OK else None)

    def _wanted(self, kind: str) -> dict[str, list[str]]:
        """Name what a mirror of this kind must have, each with its versions."""
        if kind == "debian":
            return {suite: [] for suite in network.SUITES}
        if kind in HUBS:
            return {self.models[kind]: []}
        wanted: dict[str, list[str]] = {}
        for name, version in sorted(self.pins):
            if (name == "torch") == (kind == "torch"):
                wanted.setdefault(name, []).append(version)
        return wanted

    def _page(self, candidate: Candidate, name: str, versions: Iterable[str], left: float) -> str:
        silent = f"no answer in {self.seconds:g} s"
        if left <= 0:
            return silent
        got: Answer = get(here(network.page(candidate, name)), self.way, seconds=left, accept=network.ACCEPT)
        if got.fault.startswith("no answer in "):
            return silent
        if got.fault.startswith("404 "):
            return f"{got.fault}: no {name}"
        return got.fault or network.judge(candidate.kind, got.body, name, versions)

    def image(self, name: str, row: Row) -> Row:
        """Have the daemon ask for an image, which goes through the daemon's own mirrors and proxy."""
        start = self.clock()
        try:
            said = self.refusal(name, self.seconds)
        except TandemError as error:
            said = str(error).split(". ")[0]
        answer = network.refusal(said)
        took = round((self.clock() - start) * 1000)
        return Row(row.what, row.address, row.source, answer, took if answer == OK else None)


def run(candidates: Iterable[Candidate], probe: Callable[[Candidate], Row], say: Callable[[str], None]) -> list[Row]:
    """Try each candidate: kinds side by side, those of one kind one after the other, so that each is timed alone."""
    ordered = list(candidates)
    rows: dict[Candidate, Row] = {}
    lock = threading.Lock()
    interrupted = threading.Event()

    def work(kind: str) -> None:
        for candidate in ordered:
            if candidate.kind == kind:
                with lock:
                    if interrupted.is_set():
                        return
                    say(f"trying {kind}: {masked(candidate.address) or network.DAEMON}")
                rows[candidate] = probe(candidate)

    # Daemon threads: Ctrl-C waits for no silent mirror.
    workers = [Worker(partial(work, kind)) for kind in {c.kind for c in ordered}]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.finish()
    except KeyboardInterrupt:
        # Whatever is said of the interruption is the last that is said.
        with lock:
            interrupted.set()
        raise
    return [rows[candidate] for candidate in ordered]


def surroundings(settings: Settings, bundle: str, source: Callable[[str], str], seconds: float) -> list[Row]:
    """Try what all else goes through: the proxies of the settings, and the bundle of authorities ("" for none)."""
    rows: list[Row] = []
    for name in PROXIES:
        address = settings.get(name)
        if not address or address in (row.address for row in rows):
            continue
        got = reachable(here(address), seconds=seconds)
        answer = network.in_a_container(got.fault or OK, address)
        rows.append(Row("proxy", address, source(name), answer, got.milliseconds if answer == OK else None))
    if bundle:
        found = authorities(Path(bundle))
        answer = f"{OK}, {found} certificates" if isinstance(found, int) and found else str(found or "holds none")
        rows.append(Row("ca bundle", bundle, source("TANDEM_CA_BUNDLE"), answer))
    return rows
