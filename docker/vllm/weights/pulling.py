"""A pull: decides what is missing of a model, has its hub's client fetch it, checks it, gives the model its name."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from weights import explain, hashes
from weights.hubs import Hub, RefusedError
from weights.manifest import Model
from weights.meter import Every, Limit, Progress, Teller, Ticker, amount, percent, words
from weights.store import Store, flush, partial

# A line that breaks is tried again as long as something comes; after so many tries in which nothing did, it is down.
TRIES = 2
# A file that arrives changed is fetched so often in all.
FETCHES = 3
# Between two times that what came is written to the disk for good.
SECONDS = 5.0
# Threads that hash; beside the transfer, one keeps up with any line, and all files at rest go at the disk's speed.
HASHERS = 4


@dataclass(frozen=True)
class Wish:
    """What is to be pulled: for_start wants it whole and no more, update takes what the hub has now."""

    source: str
    model: str
    revision: str
    for_start: bool = False
    update: bool = False
    unhashed: bool = False


class Pull:
    """One model's way into the volume."""

    def __init__(
        self, wish: Wish, store: Store, teller: Teller, connect: Callable[[], Hub], limit: Limit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Connect opens the hub's client; it is called when the hub is really needed."""
        self.wish = wish
        self.store = store
        self.teller = teller
        self.limit = limit
        self.clock = clock
        self._connect = connect
        self._hub: Hub | None = None
        self._progress = Progress({}, {}, clock)
        self._known = Model("", "", "", "", {})
        self._hashers = ThreadPoolExecutor(HASHERS)
        self._checks: list[Future[None]] = []
        self._bad: dict[str, int] = {}

    @property
    def hub(self) -> Hub:
        """The hub's client."""
        if self._hub is None:
            self._hub = self._connect()
        return self._hub

    def run(self, now: Callable[[], str]) -> None:
        """Return when the model is whole. Raises what the client raises, OSError, and RefusedError."""
        there = self.store.whole()
        if self.wish.for_start and there is not None and there.is_what(self.wish.source, self.wish.revision):
            # No lock: a start waits for no update of what it has, and needs no place that it may write to.
            self._complete(there)
            return
        with ExitStack() as stack:
            if not stack.enter_context(self.store.lock()):
                self._say("waiting", f"another pull of {self.wish.model} is under way; waiting for what it fetches")
                with Ticker(self.teller, self.wish.model, "waiting for", self._look):
                    stack.enter_context(self.store.lock(wait=True))
            # Before the lock is let go of: a check that is under way may remove a file.
            stack.callback(self._hashers.shutdown, cancel_futures=True)
            self._run(now)

    def _run(self, now: Callable[[], str]) -> None:
        if self.store.finished():
            self.store.swap()
        self.store.sweep()
        there = self.store.whole()
        if there is not None and there.is_what(self.wish.source, self.wish.revision):
            newer = None if self.wish.for_start else self._newer(there)
            if newer is None or not self.wish.update:
                self._complete(there)
                return
        self._known = known = self._listing()
        self.store.adopt(known)
        self.store.save(known)
        self._check_present()
        self._room()
        self._fetch()
        known.pulled = now()
        self.store.publish(known)
        self._complete(known)

    def _say(self, event: str, text: str, **more: Any) -> None:
        self.teller.say(event, text, model=self.wish.model, **more)

    def _complete(self, model: Model) -> None:
        commit = f", commit {model.resolved[:12]}" if model.resolved not in ("", model.revision) else ""
        self._say(
            "complete", f"{model.model} is complete: {amount(model.size)}, {model.revision}{commit}",
            bytes=model.size, revision=model.revision, resolved=model.resolved,
        )  # fmt: skip

    def _newer(self, there: Model) -> Model | None:
        """Tell when the hub has another version than the one that is here, which stays unless it is to be updated."""
        if there.resolved == self.wish.revision:
            return None
        try:
            found = self.hub.listing(self.wish.model, self.wish.revision)
        except Exception as error:
            if self.wish.update:
                raise
            why = explain.explain(error, self.wish.source, self.wish.model, self.wish.revision)
            self._say("warning", f"whether {self.wish.model} has changed upstream is not known: {why}")
            return None
        if found.files == there.files:
            return None
        hub = explain.NAMES[self.wish.source]
        stays = "" if self.wish.update else "; what is here stays, --update takes the new"
        text = f"{there.model} has changed on {hub} since {there.pulled[:10]} ({_difference(there, found)}){stays}"
        self._say("changed", text, resolved=found.resolved)
        return found

    def _listing(self) -> Model:
        """Give what is to be here: what an unfinished pull began with, else what the hub lists now."""
        wish, state = self.wish, self.store.state()
        goes_on = state is not None and state.is_what(wish.source, wish.revision) and not wish.update
        if state is not None and goes_on and state.resolved:
            return state
        self._say("listing", f"asking {explain.NAMES[wish.source]} for {wish.model} ({wish.revision})")
        found = self.hub.listing(wish.model, wish.revision)
        if state is not None and goes_on and found.files != state.files:
            raise RefusedError(
                f"{wish.model} changed on {explain.NAMES[wish.source]} while it was being pulled "
                f"({_difference(state, found)}). Take what is there now with --update; files that are the same are kept"
            )
        unhashed = [name for name, file in found.files.items() if not file.hashed]
        if unhashed and not wish.unhashed:
            raise RefusedError(
                f"the hub gives no hash for {len(unhashed)} of {len(found.files)} files of {wish.model} "
                f"({unhashed[0]}): what arrives could not be checked. Take it by its sizes alone with --unhashed"
            )
        if state is None:
            return found
        same = {name for name, file in found.files.items() if state.files.get(name) == file}
        self.store.forget(set(state.files) - same)
        return replace(found, checked={name: digest for name, digest in state.checked.items() if name in same})

    def _look(self) -> dict[str, Any]:
        """See how far another process's pull is."""
        state = self.store.state()
        files = state.files if state else {}
        if self._progress.total != sum(file.size for file in files.values()):
            self._start_progress(files)
        for name, file in files.items():
            self._progress.at(name, self.store.present(name, file))
        return self._progress.snapshot()

    def _start_progress(self, files: dict[str, Any]) -> None:
        sizes = {name: file.size for name, file in files.items()}
        self._progress = Progress(
            sizes, {name: self.store.present(name, file) for name, file in files.items()}, self.clock
        )

    def _unfinished(self) -> list[str]:
        return [name for name in self._known.files if name not in self._known.checked]

    def _at_rest(self, name: str) -> bool:
        path = self.store.aside / name
        return path.is_file() and path.stat().st_size == self._known.files[name].size

    def _check_present(self) -> None:
        """Check files that are here and that nobody has checked yet: adopted, or of a pull that was killed."""
        for name in self._unfinished():
            path = self.store.aside / name
            if path.exists() and not self._at_rest(name):
                path.unlink()  # a client would take it for finished, or refuse to begin
        waiting = [name for name in self._unfinished() if self._at_rest(name)]
        if not waiting:
            return
        files = {name: self._known.files[name] for name in waiting}
        seen = Progress({name: file.size for name, file in files.items()}, {}, self.clock)
        with Ticker(self.teller, self.wish.model, "checking", seen.snapshot):
            tasks = {name: self._hashers.submit(self._hash, name, seen) for name in waiting}
            for name, task in tasks.items():
                if not task.result():
                    self._say("damaged", f"{name} is not what the hub lists: it is fetched again", file=name)
                    (self.store.aside / name).unlink(missing_ok=True)
        self.store.save(self._known)

    def _hash(self, name: str, seen: Progress | None = None) -> bool:
        """Hash a file, and note it when it is right."""
        read = [0]

        def tell(size: int) -> None:
            read[0] += size
            if seen is not None:
                seen.at(name, read[0])

        try:
            digest = hashes.sha256(self.store.aside / name, self._known.files[name], tell)
        except OSError:
            digest = None  # what the disk cannot read is as good as gone
        if digest is not None:
            self._known.checked[name] = digest
        return digest is not None

    def _room(self) -> None:
        need = sum(
            file.size - self.store.present(name, file)
            for name, file in self._known.files.items()
            if name not in self._known.checked
        )
        free = self.store.free()
        if need > free:
            raise RefusedError(
                f"{self.wish.model} takes {amount(need)} more, and {amount(free)} are free where the weights are. "
                "'python -m orchestrator models' shows what is there, 'models remove NAME' makes room"
            )

    def _fetch(self) -> None:
        """Fetch what is missing until all of it is here and has been checked."""
        self._start_progress(self._known.files)
        if self._unfinished():
            self._say(
                "begin", words(self.wish.model, "pulling", self._progress.snapshot()), **self._progress.snapshot()
            )
        idle = 0
        with Ticker(self.teller, self.wish.model, "pulling", self._progress.snapshot), Every(SECONDS, self._flush):
            while missing := self._unfinished():
                before, bad = self._progress.bytes, dict(self._bad)
                try:
                    self.hub.fetch(self._known, missing, self.store.aside, self)
                    idle = 0
                except Exception as error:  # noqa: BLE001 (the clients raise errors of many libraries)
                    idle = 0 if self._progress.bytes > before else idle + 1
                    self._settle()
                    self._again(error, last=idle >= TRIES)
                    continue
                self._settle()
                if self._unfinished() == missing and self._bad == bad:
                    raise RefusedError(f"{missing[0]} of {self.wish.model} was fetched and is not there: see the log")

    def _again(self, error: Exception, *, last: bool) -> None:
        """Say that the line broke and that it goes on; raise what another try cannot mend."""
        if explain.missing(error) and self._known.resolved not in ("", self.wish.revision):
            raise RefusedError(
                f"{explain.NAMES[self.wish.source]} no longer has what this pull of {self.wish.model} began with, "
                f"commit {self._known.resolved[:12]} of {self.wish.revision}. Take what is there now with --update; "
                "files that are the same are kept"
            ) from error
        if last or not explain.transient(error):
            raise error
        why = explain.reason(error)
        at = percent(self._progress.bytes, self._progress.total)
        self._say("retry", f"the line broke at {at} of {self.wish.model} ({why}); going on")

    def _flush(self) -> None:
        """Have what came so far on the disk: the power may go, and the end need not wait for gigabytes."""
        for name in self._unfinished():
            with suppress(OSError):  # it gets its own name at this moment
                flush(partial(self.store.aside / name))

    def at(self, name: str, size: int) -> None:
        """A client's thread has so many bytes of a file; it waits here to keep to the rate."""
        self.limit.take(self._progress.at(name, size))

    def done(self, name: str, digest: str = "") -> None:
        """A client's thread has put a file in its place, or gave up on it."""
        if self._at_rest(name):
            self._checks.append(self._hashers.submit(self._check, name, digest))

    def _check(self, name: str, digest: str = "") -> None:
        """See that a file is what the hub lists; digest is its sha256 where it was hashed as it came."""
        if name in self._known.checked:
            return
        flush(self.store.aside / name)
        if digest:
            self._known.checked[name] = digest
        if digest or self._hash(name):
            self._say("file", f"pulled {name}", file=name, bytes=self._known.files[name].size)
            return
        (self.store.aside / name).unlink(missing_ok=True)
        self._progress.at(name, 0)
        self._bad[name] = self._bad.get(name, 0) + 1
        self._say("damaged", f"{name} arrived damaged: it is fetched again", file=name)

    def _settle(self) -> None:
        """Wait for the checks and write down what they found. Raises RefusedError for a file that never comes right."""
        while self._checks:
            self._checks.pop().result()
        for name in self._unfinished():
            if self._at_rest(name):
                self._check(name)
        self.store.save(self._known)
        worst = [name for name, times in self._bad.items() if times >= FETCHES]
        if worst:
            raise explain.damaged(worst[0], self.wish.source)


def _difference(before: Model, after: Model) -> str:
    names = sorted(name for name in {*before.files, *after.files} if before.files.get(name) != after.files.get(name))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
