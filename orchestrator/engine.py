"""The one module that talks to Docker: the Engine through its SDK, Compose and buildx through Docker's CLI."""

import functools
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from orchestrator.errors import TandemError
from orchestrator.states import ALONE, Container, inspected

if TYPE_CHECKING:
    from docker import DockerClient

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

NOT_RUNNING = (
    "Docker does not answer. Start it ('sudo systemctl start docker', or Docker Desktop); "
    "scripts/up installs and starts it."
)
NO_COMMAND = "There is no docker command. Run scripts/up, which installs it."
NOT_ALLOWED = "Docker's socket may not be used by this user. Run 'sudo usermod -aG docker $USER', then log in again."
# Seconds that the daemon may take for one answer; starting a container may take long on a busy disk.
TIMEOUT = 60


def expected(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Turn what the Engine refuses, or does not answer, into a TandemError; a bug keeps its traceback."""

    @functools.wraps(method)
    def checked(*arguments: Arguments.args, **more: Arguments.kwargs) -> Result:
        from docker.errors import APIError
        from requests.exceptions import RequestException

        try:
            return method(*arguments, **more)
        except APIError as error:
            raise TandemError(f"Docker refused: {error.explanation}") from None
        except RequestException as error:
            raise TandemError(f"Docker gave no answer: {error}. 'docker info' shows whether it runs.") from None

    return checked


class Published(NamedTuple):
    """A container that has a port of this machine, on an address; its service, "" where it is of another project."""

    name: str
    service: str
    address: str


class Engine:
    """Docker as one Compose project sees it."""

    def __init__(self, folder: Path, project: str, environment: Mapping[str, str], *, seconds: float = TIMEOUT) -> None:
        """Connect on first use. folder is the project's; environment is what Docker's CLI runs with.

        An answer of the daemon may take so many seconds.
        """
        self.seconds = seconds
        # Why nobody is to wait for the daemon again; "" where it may answer.
        self.gone = ""
        # The group of processes that Docker's CLI runs in: ours, or (0) one of its own, which no Ctrl-C reaches.
        self.group: int | None = None
        self.folder = folder
        self.project = project
        self.environment = dict(environment)
        self._client: DockerClient | None = None

    @property
    def client(self) -> "DockerClient":
        """The SDK's client. Raises TandemError when no daemon answers."""
        if self.gone:
            raise TandemError(self.gone)
        if self._client is None:
            self._client = self.connect(self.seconds)
        return self._client

    def check(self) -> None:
        """Raise TandemError when Docker does not answer."""
        self.client.ping()

    def another(self) -> "Engine":
        """The same on a connection of its own, for another thread."""
        other = Engine(self.folder, self.project, self.environment, seconds=self.seconds)
        other.gone = self.gone
        return other

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._client is not None:
            self._client.close()

    def connect(self, seconds: float) -> "DockerClient":
        """Open a connection of its own, on which an answer may take so long. Raises TandemError when none answers."""
        from docker.errors import DockerException

        import docker

        client = None
        try:
            client = docker.DockerClient(base_url=self._host(), timeout=seconds)  # type: ignore[arg-type]  # fractions too
            client.ping()
        except DockerException as error:
            if client is not None:
                client.close()
            raise TandemError(NOT_ALLOWED if "permission denied" in str(error).lower() else NOT_RUNNING) from None
        return client

    def registry_refusal(self, image: str, seconds: float) -> str | None:
        """Ask the image's registry whether it is there, with the daemon's own mirrors and proxy.

        None when it is, else why not; a registry that is shut often does not refuse but stays silent.
        """
        from docker.errors import APIError
        from requests.exceptions import RequestException

        try:
            with closing(self.connect(seconds)) as client:
                client.api.inspect_distribution(image)  # type: ignore[no-untyped-call]
        except APIError as error:
            return f"the image registry does not answer ({_first(str(error.explanation or ''))})"
        except RequestException:
            return f"the image registry gave no answer in {seconds:g} s"
        return None

    def _host(self) -> str | None:
        """Ask Docker's CLI where the daemon is: the SDK knows DOCKER_HOST but no contexts."""
        if self.environment.get("DOCKER_HOST"):
            return self.environment["DOCKER_HOST"]
        argv = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
        shown = self.run(argv, check=False, seconds=self.seconds)
        return shown.stdout.strip() or None

    @expected
    def containers(self) -> dict[str, Container]:
        """List the project's containers, running or not, by service."""
        label = f"com.docker.compose.project={self.project}"
        listed = self.client.api.containers(all=True, filters={"label": label})
        # Pulls and the like that a command runs beside what is up are no part of that.
        found = [entry for entry in listed if ALONE not in entry["Labels"]]
        containers = [inspected(details) for entry in found if (details := self._inspect(entry["Id"]))]
        # A pull may have left an older container; of several, the one that runs is the one that counts.
        containers.sort(key=lambda container: container.alive)
        return {container.service: container for container in containers}

    def container(self, service: str) -> Container | None:
        """Look at one service's container."""
        return self.containers().get(service)

    def processes(self, name: str) -> frozenset[int]:
        """Name the processes in a container by their ids on the machine; none when it does not run any more."""
        from docker.errors import APIError

        try:
            shown = self.client.api.top(name, "-eo pid")
        except APIError:
            return frozenset()
        return frozenset(int(row[0]) for row in shown["Processes"] or () if row and row[0].isdigit())

    def _inspect(self, ident: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            return dict(self.client.api.inspect_container(ident))
        except NotFound:
            return None  # it went between the list and this look

    @expected
    def images(self) -> frozenset[str]:
        """List the tags of all images on this machine."""
        return frozenset(self.image_ids())

    @expected
    def image_ids(self) -> dict[str, str]:
        """Give the id of each image on this machine by its tags."""
        return {tag: image["Id"] for image in self.client.api.images() for tag in image.get("RepoTags") or ()}

    @expected
    def data_folder(self) -> tuple[Path, bool]:
        """Name the folder where Docker keeps everything, and say whether it can be seen from here."""
        api = self.client.api
        folder = Path(api.info()["DockerRootDir"])
        # The same path on another machine, or in a virtual one, is another disk.
        return folder, str(api.base_url) == "http+docker://localhost" and folder.is_dir()

    @expected
    def info(self) -> dict[str, Any]:
        """Give what the Engine says of itself."""
        return dict(self.client.api.info())

    def address(self) -> str:
        """Name where the Engine listens, such as unix:///var/run/docker.sock."""
        return self._host() or "unix:///var/run/docker.sock"

    @expected
    def publishing(self, port: int) -> list[Published]:
        """Name the running containers of any project that have a port of this machine."""
        return [
            Published(entry["Names"][0].lstrip("/"), self._service(entry), given.get("IP") or "0.0.0.0")  # noqa: S104 (read)
            for entry in self.client.api.containers()
            for given in entry.get("Ports") or ()
            if entry.get("Names") and given.get("PublicPort") == port
        ]

    def _service(self, entry: Mapping[str, Any]) -> str:
        """Name the service of this project that a listed container is of; "" for another's."""
        labels = entry.get("Labels") or {}
        mine = labels.get("com.docker.compose.project") == self.project
        return str(labels.get("com.docker.compose.service", "")) if mine else ""

    @expected
    def gpu_refusal(self, image: str, gpus: Sequence[int]) -> str | None:
        """Start a container that reserves GPUs and does nothing; None when the Engine can, else its own words."""
        from docker.errors import APIError
        from docker.types import DeviceRequest

        request = DeviceRequest(driver="nvidia", device_ids=[str(gpu) for gpu in gpus], capabilities=[["gpu"]])
        host = self.client.api.create_host_config(device_requests=[request], network_mode="none")
        probe = self.client.api.create_container(image, entrypoint=["/usr/bin/busybox", "true"], host_config=host)["Id"]
        try:
            self.client.api.start(probe)
        except APIError as error:
            return str(error.explanation)
        finally:
            self.client.api.remove_container(probe, force=True)
        return None

    @expected
    def discard(self, container: str) -> None:
        """Remove one container by its name, running or not, and return when it is gone."""
        from docker.errors import APIError, NotFound

        with suppress(NotFound):
            try:
                self.client.api.remove_container(container, force=True)
            except APIError as error:
                if error.status_code != 409:
                    raise
                # Whoever ran it with --rm removes it at this moment.
                self.client.api.wait(container, timeout=TIMEOUT, condition="removed")

    @expected
    def signal(self, service: str, signal: str) -> None:
        """Send a signal to a service's main process."""
        container = self.container(service)
        if container is not None:
            self.client.api.kill(container.name, signal)

    def run(
        self, argv: list[str], *, check: bool = True, seconds: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of Docker's CLI to its end, for at most so many seconds, and keep what it says.

        Raises TandemError when there is no CLI, when it takes too long, or, with check, when it fails.
        """
        try:
            done = subprocess.run(
                argv, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", check=False, timeout=seconds, process_group=self.group,
            )  # fmt: skip
        except FileNotFoundError:
            raise TandemError(NO_COMMAND) from None
        except subprocess.TimeoutExpired:
            raise TandemError(f"'{' '.join(argv)}' gave no answer in {seconds:g} s") from None
        if check and done.returncode:
            raise TandemError(f"'{' '.join(argv)}' failed: {_last(done.stderr)}")
        return done

    def stream(self, argv: list[str], given: str | None = None) -> Generator[str, None, None]:
        """Run a command of Docker's CLI and give its lines as they come; the last item is its exit code as `=N`.

        It reads what is given, if anything is. The command dies with the generator: an interrupted `up` leaves no build
        or start behind.
        """
        process = subprocess.Popen(
            argv, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # Nobody's input by accident: `up` may stand in a shell's loop that reads.
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE, text=True, errors="replace",
            process_group=self.group,
        )  # fmt: skip
        try:
            if process.stdin:
                with suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(given or "")
            for line in process.stdout or ():
                yield line.rstrip("\n")
            yield f"={process.wait()}"
        finally:
            if process.poll() is None:
                # What sudo runs is not ours to end; sudo passes the terminal's own signal on.
                with suppress(PermissionError):
                    process.terminate()
                process.wait()
            if process.stdout:
                process.stdout.close()

    def wanted_hashes(self, argv: list[str]) -> dict[str, str]:
        """Read what `docker compose config --hash` prints: a config hash by service."""
        lines = self.run(argv).stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines)


def _first(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip() or "it said nothing"


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
