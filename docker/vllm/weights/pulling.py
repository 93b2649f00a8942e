"""A pull: decides what is missing of a model, has its hub's client fetch it, checks it, gives the model its name."""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from weights import explain
from weights.checking import Checks
from weights.hubs import Hub, RefusedError
from weights.manifest import Model
from weights.meter import Every, Limit, Progress, Teller, Ticker, amount, percent, words
from weights.store import Store, flush, partial

# A line that breaks is tried again as long as something comes, and so often, with so many seconds in between, when
# nothing does. Each try is some five of the client's own; a router may take minutes to start.
PAUSES = (5.0, 15.0, 45.0, 120.0)
# Between two times that what came is written to the disk for good.
SECONDS = 5.0


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
        clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep,
    ) -> None:  # fmt: skip
        """Connect opens the hub's client; it is called when the hub is really needed."""
        self.wish = wish
        self.store = store
        self.teller = teller
        self.limit = limit
        self.clock = clock
        self.pause = pause
        self._connect = connect
        self._hub: Hub | None = None
        self._progress = Progress({}, {}, clock)
        self._known = Model("", "", "", "", {})
        self._checks = Checks(self._known, store, self._say, self._lost)

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
            stack.callback(self._close)
            self._run(now)

    def _run(self, now: Callable[[], str]) -> None:
        wrong = self.store.misplaced()
        if wrong:
            raise RefusedError(
                f"{wrong} is where {self.wish.model} belongs, in the place of the weights (TANDEM_MODELS), and a pull "
                'needs a folder there. Move the model itself there, or name where it is: model = "/its/path"'
            )
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
        self._checks = Checks(known, self.store, self._say, self._lost)
        self._checks.present(self._show, self.clock)
        self._room()
        self._fetch()
        known.pulled = now()
        self.store.publish(known)
        self._complete(known)

    def _say(self, event: str, text: str, **more: Any) -> None:
        self.teller.say(event, text, model=self.wish.model, **more)

    def _close(self) -> None:
        self._checks.close()

    def _show(self, seen: Progress) -> Ticker:
        return Ticker(self.teller, self.wish.model, "checking", seen.snapshot)

    def _lost(self, name: str) -> None:
        """A file that came is none: it begins anew."""
        self._progress.at(name, 0)

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
            hub, why = explain.NAMES[self.wish.source], explain.reason(error)
            self._say("warning", f"whether {self.wish.model} has changed on {hub} is not known: {why}")
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

    def _room(self) -> None:
        files = self._known.files
        need = sum(files[name].size - self.store.present(name, files[name]) for name in self._checks.unfinished())
        free = self.store.free()
        if need > free:
            raise RefusedError(
                f"{self.wish.model} takes {amount(need)} more, and {amount(free)} are free where the weights are. "
                "'python -m orchestrator models' shows what is there, 'models remove NAME' makes room"
            )

    def _fetch(self) -> None:
        """Fetch what is missing until all of it is here and has been checked."""
        self._start_progress(self._known.files)
        if self._checks.unfinished():
            self._say(
                "begin", words(self.wish.model, "pulling", self._progress.snapshot()), **self._progress.snapshot()
            )
        idle = 0
        with Ticker(self.teller, self.wish.model, "pulling", self._progress.snapshot), Every(SECONDS, self._flush):
            while missing := self._checks.unfinished():
                before, bad = self._progress.bytes, dict(self._checks.bad)
                try:
                    self.hub.fetch(self._known, missing, self.store.aside, self)
                    idle = 0
                except Exception as error:  # noqa: BLE001 (the clients raise errors of many libraries)
                    idle = 0 if self._progress.bytes > before else idle + 1
                    self._checks.settle()
                    self._again(error, last=idle > len(PAUSES))
                    self.pause(PAUSES[idle - 1] if idle else 0)
                    continue
                self._checks.settle()
                if self._checks.unfinished() == missing and self._checks.bad == bad:
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
        for name in self._checks.unfinished():
            with suppress(OSError):  # it gets its own name at this moment
                flush(partial(self.store.aside / name))

    def at(self, name: str, size: int) -> None:
        """A client's thread has so many bytes of a file; it waits here to keep to the rate."""
        self.limit.take(self._progress.at(name, size))

    def done(self, name: str, digest: str = "") -> None:
        """A client's thread has put a file in its place, or gave up on it."""
        self._checks.submit(name, digest)


def _difference(before: Model, after: Model) -> str:
    names = sorted(name for name in {*before.files, *after.files} if before.files.get(name) != after.files.get(name))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
