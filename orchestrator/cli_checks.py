"""What `doctor` does by itself, and the part of it that `up` begins with: looks, judges, mends, prints."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import typer

from orchestrator import session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.doctor.box import Box
    from orchestrator.doctor.examining import Means
    from orchestrator.doctor.finding import Finding
    from orchestrator.doctor.fixing import Done
    from orchestrator.doctor.smi import Seen
    from orchestrator.engine import Engine
    from orchestrator.profiles import Profile
    from orchestrator.project import Project

# From then on it says what it is at.
PATIENCE_SECONDS = 2.0


class Progress:
    """Says what is being done, once it has taken a while; nothing at all when it is over before."""

    def __init__(self, say: Callable[[str], None], seconds: float = PATIENCE_SECONDS) -> None:
        self._say, self._step, self._late = say, "", False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._now)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, step: str) -> None:
        """Begin a step."""
        with self._lock:
            self._step = step
            if self._late:
                self._say(step)

    def _now(self) -> None:
        with self._lock:
            self._late = True
            if self._step:
                self._say(self._step)

    def close(self) -> None:
        """Say nothing any more."""
        self._timer.cancel()
        with self._lock:
            self._step = ""


def stop(whole: "Project", engine: "Engine") -> None:
    """Raise TandemError with all that stands in the way of any start, as far as a quick look finds it."""
    from orchestrator.doctor import every, words
    from orchestrator.doctor.examining import glance
    from orchestrator.errors import TandemError

    found = every.blocking(glance(whole, engine, means(whole, engine)))
    if found:
        raise TandemError("\n".join(map(words.refusal, found)))


def stop_by_gpus(whole: "Project", engine: "Engine", target: "Profile", seen: "Seen") -> None:
    """Raise TandemError with what of the GPUs, as they were just seen, stands in the way of the target's start.

    A server that runs has started, whatever nvidia-smi says now; and those of a Docker elsewhere are not these.
    """
    from orchestrator.doctor import gpus, words
    from orchestrator.errors import TandemError

    found = gpus.obstacles(seen, target, whole.versions, whole.settings.get)
    if not found or not engine.address().startswith("unix://"):
        return
    container = engine.container(target.name)
    if container is None or not container.alive:
        raise TandemError("\n".join(map(words.refusal, found)))


def doctor(context: typer.Context, target: Callable[[], Path], *, as_json: bool, mend: bool) -> None:
    """Look at everything, mend what may be mended, print; exit with 1 when something stands in the way."""
    from orchestrator.doctor import words
    from orchestrator.errors import ConfigError, TandemError

    progress = Progress(session.say)
    findings: list[Finding] = []
    try:
        box, findings = _look(context, progress)
        done = [*_mend(context, box, target, progress), *_together(context, findings, progress)] if mend else []
        if done:
            box, findings = _look(context, progress)
    except TandemError as error:
        if not as_json:
            raise
        # What was mended before a failure stays so, and was told on standard error.
        problems = error.problems if isinstance(error, ConfigError) else str(error).splitlines()
        rows = [asdict(finding) for finding in findings]
        print(json.dumps({"findings": rows, "fixed": [], "problems": problems}, ensure_ascii=False, indent=2))
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        session.say("interrupted")
        raise typer.Exit(130) from None
    finally:
        progress.close()
    if as_json:
        rows = [asdict(finding) for finding in findings]
        fixed = [asdict(each) for each in done]
        print(json.dumps({"findings": rows, "fixed": fixed, "problems": []}, ensure_ascii=False, indent=2))
    else:
        print("".join(f"{line}\n" for line in _told(done, mend=mend)) + words.table(findings))
    if any(finding.status == "bad" for finding in findings):
        raise typer.Exit(1)


def _told(done: "list[Done]", *, mend: bool) -> list[str]:
    if not mend:
        return []
    lines = [line for each in done for line in (each.text, *([f"  undo: {each.undo}"] if each.undo else []))]
    return [*(lines or ["nothing to mend that is safe to mend from here"]), ""]


def _look(context: typer.Context, progress: Progress) -> "tuple[Box, list[Finding]]":
    """Read the project anew, as something of it may have been mended, and examine the machine."""
    from orchestrator.errors import ConfigError, TandemError

    try:
        whole = session.project(context)
    except ConfigError:
        raise
    except TandemError as error:
        raise ConfigError(str(error).splitlines()) from None
    engine = session.engine(whole)
    return examined(whole, engine, means(whole, engine), progress)


def examined(
    whole: "Project", engine: "Engine", looking: "Means", tell: Callable[[str], None], seen: "Seen | None" = None
) -> "tuple[Box, list[Finding]]":
    """Examine the machine, and judge it; its GPUs too, which may have been seen already. Prints nothing."""
    from orchestrator.doctor import every, nvidia
    from orchestrator.doctor.examining import examine

    box = examine(whole, engine, looking, tell)
    if seen is None:
        tell("asking nvidia-smi")
        seen = nvidia.look()
    return box, every.findings(box, gpus=_gpus(whole, engine, seen))


def _gpus(whole: "Project", engine: "Engine", seen: "Seen") -> "list[Finding]":
    from orchestrator.doctor import gpus, gpus_around
    from orchestrator.errors import TandemError

    try:
        around = gpus_around.around(whole, engine)
    except TandemError:
        # That Docker gives no answer has a row of its own.
        around = gpus.Around(kept=whole.reduced)
    return gpus.findings(seen, whole.profiles.values(), whole.versions, whole.settings.get, around)


def _together(context: typer.Context, findings: "list[Finding]", progress: Progress) -> "list[Done]":
    """Where an all-reduce hung, or was wrong, try what is left to switch off, for each model in whose way that is."""
    from orchestrator.doctor import kept, nccl_run
    from orchestrator.doctor.fixing import Done
    from orchestrator.errors import TandemError

    if not any(finding.check.startswith("nccl") and finding.status == "bad" for finding in findings):
        return []
    whole = session.project(context)
    engine = session.engine(whole)
    done: list[Done] = []
    try:
        idents = engine.image_ids()
    except TandemError as error:
        return [Done(f"no GPUs could be tried together: {error}")]
    for profile in whole.profiles.values():
        result = whole.reduced.get(nccl_run.tried(whole, idents, profile))
        if result is None or not result.stops:
            continue
        progress("")
        try:
            found = nccl_run.mend(whole, engine, profile, session.say)
        except TandemError as error:
            done.append(Done(f"{profile.name}: its GPUs could not be tried together: {error}"))
            continue
        # Another profile may have the same image and GPUs.
        whole = session.project(context)
        undo = f"rm {quote(str(whole.folder / kept.NCCL))}" if found.state == "works" else ""
        done.append(Done(f"{profile.name}: {found}", undo))
    return done


def _mend(context: typer.Context, box: "Box", target: Callable[[], Path], progress: Progress) -> "list[Done]":
    from orchestrator import host
    from orchestrator.doctor.fixing import Done, Hands, fix
    from orchestrator.doctor.remedies import remedies

    def ask(question: str) -> bool:
        progress("")
        return typer.confirm(question, default=False, err=True)

    hands = Hands(target, host.user(), host.shown, ask if host.terminal() else None)
    done: list[Done] = []
    todo = remedies(box)
    try:
        for each in fix(todo, hands):
            done.append(each)  # noqa: PERF402 (what was done is told also when the next fails)
    except BaseException:
        for line in _told(done, mend=bool(done)):
            session.say(line)
        raise
    given = session.project(context).settings if todo else None
    beaten = [r.subject for r in todo if r.kind == "setting" and given and given.get(r.subject) != r.value]
    return [*done, *(Done(f"  but the shell's {name} beats the file: unset {name}") for name in beaten)]


def means(whole: "Project", engine: "Engine") -> "Means":
    """What this machine is looked at with."""
    from orchestrator import ask, host
    from orchestrator.doctor.examining import Means
    from orchestrator.fit.hub import way
    from orchestrator.http import certificate_shown, get
    from orchestrator.trust import Shown

    def shown() -> Shown:
        return certificate_shown(whole.settings.address, whole.settings.certificate, seconds=5)

    def date(address: str, seconds: float) -> float | str:
        answer = get(address, way(whole.settings), seconds=seconds)
        return answer.date if answer.date is not None else answer.fault or "it does not say what time it is"

    return Means(
        root=Path("/"),
        run=host.ran,
        refused=host.refused,
        free=host.free_bytes,
        date=date,
        now=time.time,
        status=lambda: ask.activator(whole).status(),
        listing=lambda: _listing(whole, engine),
        mirror=host.debian_mirror(),
        shown=shown,
    )


def _listing(whole: "Project", engine: "Engine") -> "Mapping[str, Any] | None":
    """Look at what was pulled; None where no image is here that can look. Makes no volume."""
    from orchestrator.storage import Storage
    from orchestrator.weights import Weights

    pulled = [profile for profile in whole.profiles.values() if profile.pulled]
    there = engine.images()
    viewer = next((profile for profile in pulled if whole.wanted(profile).image in there), None)
    if not pulled or not Storage(engine, whole.settings.get("TANDEM_MODELS")).has_weights():
        return {}
    if viewer is None:
        return None
    if viewer.image == "cuda" and viewer.vllm is None:
        engine.environment["TANDEM_VLLM"] = whole.wanted(viewer).tag
    models = sorted({profile.model for profile in pulled})
    found: Mapping[str, Any] = Weights(whole, engine).listing(viewer, models).get("models", {})
    return found
