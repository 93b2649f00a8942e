"""Does what a plan says, operation by operation; decides nothing."""

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from itertools import groupby
from typing import Any

from orchestrator import builder, commands, failures, http, project, states
from orchestrator.ask import Activator, Told, silent
from orchestrator.doctor import nccl
from orchestrator.doctor.nccl import Result
from orchestrator.doctor.nccl_run import prove
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.plan import Kind, Operation
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.pulls import Event
from orchestrator.render.activator import PATH as MODELS
from orchestrator.view import View, show
from orchestrator.weights import Weights, follow

POLL_SECONDS = 0.5
# How long the activator may take to answer after its own start, or to come back from its death.
SILENT_SECONDS = 60
# How long an interrupted `up` waits until what it gave up is stopped: a server has 30 s to end.
GIVE_UP_SECONDS = 40
# How often the activator may die during one switch before that is its fault.
DEATHS = 3


def _pulled(whole: Project, engine: Engine, target: Profile) -> Generator[Event, None, None]:
    return Weights(whole, engine).pull(target, ["--for-start"])


class Executor:
    """Runs operations for one target profile."""

    def __init__(  # noqa: PLR0913 (its effects come in one each)
        self,
        whole: Project,
        engine: Engine,
        activator: Activator,
        view: View,
        *,
        builds: Callable[[Project, Engine, list[str], Callable[[str], None]], None] = builder.build,
        pulls: Callable[[Project, Engine, Profile], Generator[Event, None, None]] = _pulled,
        tries: Callable[[Project, Engine, Profile, Callable[[str], None]], tuple[Result, dict[str, str]]] = prove,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.project = whole
        self.engine = engine
        self.activator = activator
        self.view = view
        self._builds = builds
        self._pulls = pulls
        self._tries = tries
        self._force = False
        self._clock = clock
        self._pause = pause

    def run(
        self, target: Profile, operations: Iterable[Operation], files: Sequence[str] = (), *, force: bool = False
    ) -> None:
        """Do the operations in order, with servers made from these Compose files where they are not the usual ones.

        force: go on also where an all-reduce between the target's GPUs hangs.
        Raises TandemError at the first that fails.
        """
        self._force = force
        todo = list(operations)
        if todo and not any(operation.kind == "build" for operation in todo):
            self.view.phase("image", "on this machine")
        # What Compose can do in one go it does in one: each call of it takes half a second.
        for (kind, mine), group in groupby(todo, lambda done: (done.kind, done.subject == target.name)):
            subjects = [operation.subject for operation in group]
            match kind:
                case "start" | "restart":
                    self._start(target, subjects, anew=kind == "restart")
                case "create":
                    self._create(subjects, files, needed=mine)
                case _:
                    for subject in subjects:
                        self._one(kind, subject, target)

    def _one(self, kind: Kind, subject: str, target: Profile) -> None:
        match kind:
            case "render":
                self._render(subject)
            case "build":
                self._build(subject)
            case "check":
                self._check(target)
            case "try":
                self._try(target)
            case "pull":
                self._pull(target)
            case "stop":
                self._stop(subject)
            case "reload":
                self.engine.signal(subject, "SIGHUP")
            case "switch":
                self._switch(target)

    def _render(self, path: str) -> None:
        files = [file for file in project.stale(self.project.folder, self.project.rendered()) if file.path == path]
        project.write(self.project.folder, files)

    def _build(self, tag: str) -> None:
        self.view.phase("image", f"building {tag}")
        self._builds(self.project, self.engine, [tag], lambda line: self.view.phase("image", line))

    def _check(self, target: Profile) -> None:
        refusal = self.engine.gpu_refusal(self.project.images(target)["router"], target.gpus)
        if refusal is not None:
            raise TandemError(f"{target.name} cannot reserve its GPUs: {failures.cause([refusal])}")

    def _try(self, target: Profile) -> None:
        """Try an all-reduce between the target's GPUs: where that hangs, a server does too, and says nothing."""
        try:
            result, variables = self._tries(
                self.project, self.engine, target, lambda line: self.view.phase("container", line)
            )
        except TandemError as error:
            # Of what cannot be tried nothing is known; the server says itself what is wrong.
            self.view.phase("container", f"its GPUs could not be tried together: {error}")
            return
        if result.stops and not self._force:
            raise TandemError(nccl.refusal(target, result, variables))

    def _pull(self, target: Profile) -> None:
        """Pull the weights in a container of their own, which ends with this run; what it fetched stays."""
        self.view.phase("weights", f"looking for {target.model} in the volume")
        try:
            follow(self._pulls(self.project, self.engine, target), lambda event: self.view.phase("weights", event.text))
        except TandemError as error:
            raise TandemError(f"{target.name} has no weights: {error}") from None

    def _start(self, target: Profile, services: list[str], *, anew: bool) -> None:
        """Start services that no model depends on."""
        names = ", ".join(services)
        self.view.phase("container", f"starting {names}")
        self._compose(commands.up(self.project.settings.env_files, target.name, services, anew=anew), "started", names)
        self.view.phase("container", f"{names} started")

    def _create(self, services: list[str], files: Sequence[str], *, needed: bool) -> None:
        """Make containers of servers; those that are not needed now may fail."""
        names = ", ".join(services)
        self.view.phase("container", f"creating {names}")
        try:
            self._compose(commands.create(self.project.settings.env_files, services, files), "created", names)
            self.view.phase("container", f"{names} created")
        except TandemError as error:
            if needed:
                raise
            self.view.phase("container", f"no request can start {names}: {error}")

    def _compose(self, argv: list[str], done: str, names: str) -> None:
        said = list(self.engine.stream(argv))
        if said[-1] != "=0":
            raise TandemError(f"{names} could not be {done}: {failures.cause(said[:-1])}")

    def _stop(self, service: str) -> None:
        """Have the activator drain and stop a server."""
        self._await()
        self.activator.do("down", service, self._show)

    def _await(self) -> None:
        """Return when the activator answers, and goes by the models that are rendered.

        Raises TandemError when it does not within its time; what it has under way is no part of that, as it ends first.
        """
        self.activator.check()
        deadline = self._clock() + SILENT_SECONDS
        while (status := self.activator.status()) is None or self._is_behind(status):
            busy = status is not None and status.get("busy")
            if status is None:
                self.view.phase("container", "waiting for the activator to answer")
            else:
                after = ", after what it has under way" if busy else ""
                self.view.phase("container", f"waiting for the activator to take up the models{after}")
            if busy:
                deadline = self._clock() + SILENT_SECONDS
            elif self._clock() >= deadline:
                raise TandemError(self._unready(status))
            self._pause(POLL_SECONDS)

    def _is_behind(self, status: Mapping[str, Any]) -> bool:
        """Whether the activator is to take up other models: those on the disk, which others may render meanwhile."""
        wanted = project.models_digest(self.project.folder)
        # One of an older version tells of no digest.
        return wanted is not None and status.get("digest", wanted) != wanted

    def _unready(self, status: Mapping[str, Any] | None) -> str:
        if status is None:
            return silent(http.SilentError(f"nothing in {SILENT_SECONDS} s, {self.activator.away}"))
        return (
            f"the activator goes by other models than {MODELS} has, after {SILENT_SECONDS} s too\n"
            "  'python -m orchestrator logs activator' shows why; 'docker compose restart activator' has it begin anew"
        )

    def _switch(self, target: Profile) -> None:
        """Have the activator bring the target up, and return when it is ready.

        An activator that dies meanwhile comes back and goes on; so does this.
        """
        self.view.phase("weights", f"{target.model} {'is a folder here' if target.local else 'is in the volume'}")
        deaths = 0
        while True:
            self._await()
            try:
                last = self._follow_switch(target)
                break
            except http.SilentError as error:
                deaths += 1
                if deaths > DEATHS:
                    raise TandemError(silent(error)) from None
        if last.phase != "ready":
            raise TandemError(
                f"{target.name} is not ready: {last.reason or last.text or 'somebody stopped it'}\n"
                f"  The rest: python -m orchestrator logs {target.name}"
            )

    def _follow_switch(self, target: Profile) -> Told:
        told = Told(target.name, "failed")
        try:
            with closing(self.activator.phases("up", target.name, bound=True)) as phases:
                for told in phases:
                    self._show(told)
        except KeyboardInterrupt:
            self._see_it_given_up(target.name)
            raise
        return told

    def _see_it_given_up(self, model: str) -> None:
        """Wait until the activator, which takes the wish back, has stopped what was coming up; not for ever."""
        deadline = self._clock() + GIVE_UP_SECONDS
        with suppress(TandemError):
            while self._clock() < deadline and _is_coming(model, self.activator.status() or {}):
                self.view.phase("stop", f"giving {model} up")
                self._pause(POLL_SECONDS)

    def _show(self, told: Told) -> None:
        show(self.view, told.phase, told.line)


def _is_coming(model: str, status: Mapping[str, Any]) -> bool:
    """Whether a model that is not ready is on its way up, or down again."""
    told = states.entry(status, model)
    if told.get("state") == "ready" and told.get("open"):
        return False
    switched = (status.get("switch") or {}).get("target") == model
    return switched or model in status.get("wanted", []) or told.get("state") in ("starting", "stopping")
