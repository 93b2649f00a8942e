"""Does what a plan says, operation by operation; decides nothing."""

import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Literal, NoReturn

from orchestrator import builder, commands, failures, http, progress, project
from orchestrator.engine import Engine
from orchestrator.errors import TandemError
from orchestrator.plan import Operation
from orchestrator.profiles import Profile
from orchestrator.project import Project
from orchestrator.pulls import Event
from orchestrator.states import Container
from orchestrator.view import View
from orchestrator.weights import Weights, follow

POLL_SECONDS = 0.5
# The restart policy of service.yaml, which a server gets back once it is ready.
KEPT: Literal["unless-stopped"] = "unless-stopped"
# What a failed server said last; its cause is within these lines, a traceback of several processes included.
LOG_LINES = 600


def _pulled(whole: Project, engine: Engine, target: Profile) -> Generator[Event, None, None]:
    return Weights(whole, engine).pull(target, ["--for-start"])


class Executor:
    """Runs operations for one target profile."""

    def __init__(
        self,
        whole: Project,
        engine: Engine,
        view: View,
        *,
        answers: Callable[[str, str], str | None] = http.answers,
        builds: Callable[[Project, Engine, list[str], Callable[[str], None]], None] = builder.build,
        pulls: Callable[[Project, Engine, Profile], Generator[Event, None, None]] = _pulled,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.project = whole
        self.engine = engine
        self.view = view
        self._answers = answers
        self._builds = builds
        self._pulls = pulls
        self._clock = clock
        self._pause = pause
        # Set when nobody watches the progress of a start any more.
        self._done = threading.Event()
        # The service that this run started and that is not ready yet.
        self.unfinished: str | None = None

    def run(self, target: Profile, operations: Iterable[Operation]) -> None:
        """Do the operations in order. Raises TandemError at the first that fails."""
        todo = list(operations)
        if todo and not any(operation.kind == "build" for operation in todo):
            self.view.phase("image", "on this machine")
        for operation in todo:
            match operation.kind:
                case "render":
                    self._render(operation.subject)
                case "build":
                    self._build(operation.subject)
                case "check":
                    self._check(target)
                case "pull":
                    self._pull(target)
                case "stop":
                    self.view.phase("container", f"stopping {operation.subject}, which {operation.cause}")
                    self.engine.stop(operation.subject)
                case "start":
                    self._start(target, operation.subject)
                case "reload":
                    self.engine.signal("router", "SIGHUP")
                case "wait":
                    self._wait(target)
                case "keep":
                    self.engine.restarts(operation.subject, KEPT)

    def abandon(self) -> None:
        """After an interruption: take away the server that was being started, if this run started it."""
        self._done.set()
        if self.unfinished is not None:
            self.engine.remove(self.unfinished)
        self.unfinished = None

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

    def _pull(self, target: Profile) -> None:
        """Pull the weights in a container of their own, which ends with this run; what it fetched stays."""
        self.view.phase("weights", f"looking for {target.model} in the volume")
        try:
            follow(self._pulls(self.project, self.engine, target), lambda event: self.view.phase("weights", event.text))
        except TandemError as error:
            raise TandemError(f"{target.name} has no weights: {error}") from None

    def _start(self, target: Profile, service: str) -> None:
        if service == target.name:
            self.unfinished = service
            self.view.phase("container", f"creating {service}")
        said = list(self.engine.stream(commands.up(self.project.settings.env_files, target.name, [service])))
        if said[-1] != "=0":
            self.abandon()
            raise TandemError(f"{service} could not be started: {failures.cause(said[:-1])}")
        if service == target.name:
            # One that dies while it starts stays dead, with its own exit code, until it has been ready once.
            self.engine.restarts(service, "no")
        self.view.phase("container", f"{service} created")

    def _follow(self, service: str) -> None:
        """Feed the view from a container's log, on a thread of its own, from the time that the container exists."""

        def read() -> None:
            began = time.time()
            try:
                with closing(self.engine.another()) as engine:
                    self._tell(engine, service, began)
            except Exception:  # noqa: S110, BLE001 (progress is a courtesy: the start goes on and tells of its own faults)
                pass

        threading.Thread(target=read, daemon=True).start()

    def _tell(self, engine: Engine, service: str, began: float) -> None:
        """Show the progress that a container's log tells, once it runs, until it ends or nobody watches any more."""
        while not self._done.is_set():
            container = engine.container(service)
            if container is not None and container.status == "running":
                for line in engine.log(container.name, since=began - 5, follow=True):
                    found = progress.read(line)
                    if self._done.is_set():
                        return
                    if found:
                        self.view.phase(found.phase, found.text)
                return
            self._done.wait(POLL_SECONDS)

    def _wait(self, target: Profile) -> None:
        """Return when the server is ready: healthy, and it has answered one token through the router."""
        ours = self.unfinished == target.name
        self.view.phase("weights", f"{target.model} {'is a folder here' if target.local else 'is in the volume'}")
        self.view.phase("engine", "waiting for the server")
        self._follow(target.name)
        deadline = self._clock() + target.ready_timeout
        reason = "it never became healthy"
        deaths: int | None = 0 if ours else None
        while True:
            container = self.engine.container(target.name)
            if container is None:
                raise TandemError(f"{target.name} was removed while it started")
            deaths = container.restarts if deaths is None else deaths
            if container.state in ("failed", "stopped") or container.restarts > deaths:
                self._fail(target, container, "died while starting")
            if container.state == "ready":
                self.view.phase("ready", "asking for a first token")
                fault = self._answers(self.project.settings.address, target.served_model_name)
                if fault is None:
                    if ours or not container.restarts_itself:
                        self.engine.restarts(target.name, KEPT)
                    self.unfinished = None
                    self._done.set()
                    return
                reason = f"it is healthy but does not answer: {fault}"
            if self._clock() >= deadline:
                self._fail(target, container, f"was not ready in {target.ready_timeout} s: {reason}")
            self._pause(POLL_SECONDS)

    def _fail(self, target: Profile, container: Container, what: str) -> NoReturn:
        """Stop a server that failed, so that it does not restart for ever, and raise with the line that says why."""
        lines = list(self.engine.log(container.name, tail=LOG_LINES))
        if container.oom_killed:
            lines.append("OOMKilled: the kernel ended it, as the machine ran out of memory")
        self.engine.stop(target.name)
        self.unfinished = None
        self._done.set()
        raise TandemError(
            f"{target.name} {what}: {failures.cause(lines)}\n  The rest: python -m orchestrator logs {target.name}"
        )
