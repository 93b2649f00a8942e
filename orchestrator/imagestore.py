"""The images and volumes of ours that Docker keeps: lists, removes, looks into them."""

import io
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from orchestrator.engine import Engine, expected
from orchestrator.errors import TandemError
from orchestrator.states import Image

# What our images are called; one that lost its name still has a label of ours.
REPOSITORIES = ("tandem/vllm:", "tandem/router:", "tandem/activator:", "tandem/base:")
LABEL = "tandem.inputs"


@expected
def images(engine: Engine) -> list[Image]:
    """List our images, newest first; an image with two names is listed twice."""
    used: dict[str, list[str]] = {}
    for container in engine.client.api.containers(all=True):
        # One that is being removed may have no name any more.
        names = container["Names"] or [container["Id"][:12]]
        used.setdefault(container["ImageID"], []).append(names[0].lstrip("/"))
    found = []
    for entry in engine.client.api.images():
        labels = entry.get("Labels") or {}
        names = [name for name in entry.get("RepoTags") or () if name.startswith(REPOSITORIES)]
        if not names and LABEL in labels and not entry.get("RepoTags"):
            names = [""]
        users = tuple(sorted(used.get(entry["Id"], ())))
        found += [Image(entry["Id"], name, entry["Size"], entry["Created"], labels, users) for name in names]
    return sorted(found, key=lambda image: (-image.created, image.name))


@expected
def build_cache(engine: Engine) -> int:
    """Say how many bytes Docker keeps of earlier builds."""
    api = engine.client.api
    # The SDK's df() asks for the size of every volume too, and those hold weights.
    address = f"{api.base_url}/v{api.api_version}/system/df"
    answer = api.get(address, params={"type": "build-cache"}, timeout=api.timeout)
    answer.raise_for_status()
    return sum(entry["Size"] for entry in answer.json().get("BuildCache") or ())


@expected
def remove_image(engine: Engine, image: Image) -> None:
    """Take away an image's name, and with its last name the image."""
    engine.client.api.remove_image(image.name or image.ident)


@expected
def remove_volume(engine: Engine, name: str) -> None:
    """Remove a volume."""
    engine.client.api.remove_volume(name)


@expected
def cache_volumes(engine: Engine) -> list[str]:
    """Name the project's volumes of compiled kernels that no container has."""
    filters = {"label": f"com.docker.compose.project={engine.project}", "dangling": "true"}
    found = engine.client.api.volumes(filters=filters)["Volumes"] or []
    return sorted(volume["Name"] for volume in found if volume["Name"].startswith(f"{engine.project}_cache-"))


@expected
def run_in(engine: Engine, image: str, argv: list[str], files: Mapping[str, bytes], said: Callable[[str], None]) -> str:
    """Run a program in a container of an image, with no network and no GPU, and give what it prints.

    files are put into the container by their paths: the daemon, which may be another machine's, need not see ours.
    said() gets each line of stderr. The container is gone afterwards, also after Ctrl-C. Raises TandemError when the
    program fails.
    """
    from docker.errors import NotFound
    from docker.types import LogConfig

    api = engine.client.api
    name = f"{engine.project}-run-{uuid.uuid4().hex[:12]}"
    # What it prints is read from the log, whatever log the daemon would keep by itself.
    host = api.create_host_config(network_mode="none", log_config=LogConfig(type="json-file"))
    # Compose puts its labels on images too, and a container with them would pass for a service of the project.
    labels = {"com.docker.compose.project": "", "com.docker.compose.service": ""}
    try:
        api.create_container(image, entrypoint=argv, command=[], name=name, host_config=host, labels=labels)
        api.put_archive(name, "/", _archive(files))
        api.start(name)
        lines = []
        for chunk in api.logs(name, stdout=False, stderr=True, stream=True, follow=True):
            lines.append(chunk.decode(errors="replace").rstrip())
            said(lines[-1])
        code = api.wait(name)["StatusCode"]
        if code:
            raise TandemError(
                f"{image}: {' '.join(argv)} failed (exit {code}): {lines[-1] if lines else 'it said nothing'}"
            )
        return bytes(api.logs(name, stdout=True, stderr=False)).decode(errors="replace")
    finally:
        with suppress(NotFound):
            api.remove_container(name, force=True)


@dataclass(frozen=True)
class Ran:
    """How a program in a container ended: its exit code, None where its time was over, and what it printed."""

    code: int | None
    out: str
    errors: str


@expected
def run_for(
    engine: Engine, image: str, argv: list[str], files: Mapping[str, bytes], *,
    seconds: float, gpus: Sequence[int] = (), environment: Mapping[str, str] | None = None, shm: str = "64m",
) -> Ran:  # fmt: skip
    """Run a program in a container as a server is run: on GPUs, with its variables and shared memory, no network.

    For at most so many seconds; the container is gone afterwards, also after Ctrl-C. Its program's failure is the
    caller's to judge. Raises TandemError when the Engine cannot start it.
    """
    from docker.errors import APIError
    from docker.types import DeviceRequest, LogConfig
    from requests.exceptions import RequestException

    api = engine.client.api
    name = f"{engine.project}-run-{uuid.uuid4().hex[:12]}"
    request = DeviceRequest(driver="nvidia", device_ids=[str(gpu) for gpu in gpus], capabilities=[["gpu"]])
    host = api.create_host_config(
        network_mode="none", log_config=LogConfig(type="json-file"), shm_size=shm, cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"], device_requests=[request] if gpus else None,
    )  # fmt: skip
    labels = {"com.docker.compose.project": "", "com.docker.compose.service": ""}
    try:
        api.create_container(
            image, entrypoint=argv, command=[], name=name, host_config=host, labels=labels,
            environment=dict(environment or {}),
        )  # fmt: skip
        api.put_archive(name, "/", _archive(files))
        api.start(name)
        end = time.monotonic() + seconds
        try:
            code = int(api.wait(name, timeout=ceil(seconds))["StatusCode"])
        except RequestException:
            # The daemon may have gone, too.
            if time.monotonic() < end:
                raise
            return Ran(None, "", "")
        out, errors = (
            bytes(api.logs(name, stdout=each, stderr=not each)).decode(errors="replace") for each in (True, False)
        )
        return Ran(code, out, errors)
    finally:
        # A container whose processes cannot be ended stays until they can; its name is of no other's.
        with suppress(APIError, RequestException):
            api.remove_container(name, force=True)


@expected
def running(engine: Engine) -> dict[str, str]:
    """Name all containers that run on this machine by their whole ids, with their service; "" for other projects'."""
    project, service = "com.docker.compose.project", "com.docker.compose.service"
    listed = [(each["Id"], each.get("Labels") or {}) for each in engine.client.api.containers()]
    return {ident: labels.get(service, "") if labels.get(project) == engine.project else "" for ident, labels in listed}


@expected
def log(engine: Engine, container: str, lines: int) -> str:
    """Give the last lines of a container's log, of both its outputs, by the container's name."""
    said: bytes = engine.client.api.logs(container, stdout=True, stderr=True, tail=lines)
    return said.decode(errors="replace")


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Pack files so that every user may read them, whatever their modes are here."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@expected
def size(engine: Engine, image: str) -> int | None:
    """Say how many bytes an image has; None when there is no such image."""
    from docker.errors import ImageNotFound

    try:
        return int(engine.client.api.inspect_image(image)["Size"])  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
