"""Judges Docker: whether it answers, its versions, a second Engine, NVIDIA's runtime, containers that loop. Pure."""

from orchestrator.doctor.box import NONE, Box
from orchestrator.doctor.checks_memory import restart
from orchestrator.doctor.finding import Finding, Status
from orchestrator.versions import number

# The first Engine that knows start_interval of a health check (its API 1.44), and the first Compose whose include takes
# a file that extends services; scripts/setup installs by the same numbers.
ENGINE, COMPOSE = (25, 0), (2, 24)
LOOK = "docker info   # shows whether it runs"
# How the words of the Engine's client begin, that say why it does not answer.
SILENT, NO_COMMAND = "Docker does not answer", "There is no docker command"
NOT_ALLOWED = "Docker's socket may not be used by this user"
TOOLKIT = "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html"


def findings(box: Box) -> list[Finding]:
    """Say what is to be said of Docker; when none answers, only that."""
    if box.docker.fault:
        return [answers(box)]
    return [engine(box), compose(box), buildx(box), one(box), socket(box), toolkit(box), *loops(box)]


def blocking(box: Box) -> list[Finding]:
    """Say what of Docker no start can do without; that it answers, a start finds out by itself."""
    return [] if box.docker.fault else [engine(box), compose(box)]


def answers(box: Box) -> Finding:
    """Say why the Engine does not answer in its client's own words, and what starts it."""
    fault = box.docker.fault
    fact, fix = fault.removesuffix(" 'docker info' shows whether it runs."), LOOK
    if fault.startswith(SILENT):
        start = "sudo systemctl start docker" if box.systemd else "sudo service docker start"
        fact, fix = SILENT, f"{start}   # or start Docker Desktop; scripts/up installs and starts it"
    if fault.startswith(NOT_ALLOWED):
        fact, fix = NOT_ALLOWED, "sudo usermod -aG docker $USER   # then log in again"
    if fault.startswith(NO_COMMAND):
        fact, fix = NO_COMMAND, "scripts/up   # installs it, and asks first"
    return Finding("docker", "bad", fact, "every model runs in a container", fix, blocks=True)


def engine(box: Box) -> Finding:
    """Older Engines refuse what service.yaml and compose.yaml say."""
    version = box.docker.version
    where = f" ({box.docker.system})" if box.docker.system else ""
    if not version:
        return Finding("engine", "unknown", "the Engine does not tell its version")
    if number(version)[:2] >= ENGINE:
        return Finding("engine", "ok", f"{version}{where}")
    why = "healthcheck.start_interval needs 25: older ones refuse to make the containers"
    fix = "update Docker Desktop" if box.docker.is_desktop else "scripts/up   # installs a newer one, and asks first"
    return Finding("engine", "bad", f"{version}{where}; 25.0 or newer is needed", why, fix, blocks=True)


def compose(box: Box) -> Finding:
    """Compose reads compose.yaml, which includes files that extend others."""
    version = box.docker.compose.removeprefix("v")
    fix = "update Docker Desktop" if box.docker.is_desktop else "scripts/up   # installs a newer one, and asks first"
    if version == NONE:
        return Finding("compose", "bad", "not there", "every container is made by it", fix, blocks=True)
    if not number(version):
        return Finding("compose", "unknown", "'docker compose version' says nothing")
    if number(version)[:2] >= COMPOSE:
        return Finding("compose", "ok", version)
    why = "include together with extends needs 2.24: older ones cannot read compose.yaml"
    return Finding("compose", "bad", f"{version}; 2.24 or newer is needed", why, fix, blocks=True)


def buildx(box: Box) -> Finding:
    """Only a build needs it."""
    if box.docker.buildx is None:
        return Finding("buildx", "unknown", "it was not asked")
    if box.docker.buildx:
        return Finding("buildx", "ok", "is there")
    missing = "images" not in box.unlisted and not all(need.built for need in box.usable)
    status: Status = "bad" if missing else "warn"
    fix = "scripts/up   # installs it, and asks first"
    return Finding("buildx", status, "is not there", "images are built with it", fix)


def one(box: Box) -> Finding:
    """Two Engines hold two sets of images, volumes and ports."""
    docker, check = box.docker, "one engine"
    others = "desktop-linux" in docker.contexts and not docker.is_desktop
    if not (docker.daemon and (docker.desktop or docker.is_desktop or others)):
        return Finding(check, "ok", "Docker Desktop alone" if docker.is_desktop else "no second one was seen")
    used = "Docker Desktop's" if docker.is_desktop else "the one here"
    seen = "Docker Desktop" if docker.desktop or docker.is_desktop else "a context of Docker Desktop (desktop-linux)"
    why = "what one pulled, built or started the other does not see, and both want the same ports and memory"
    fix = (
        "to keep Docker Desktop:\nsudo systemctl disable --now docker.service docker.socket\n"
        "to keep the one here:\ndocker context use default\n"
        "and in Docker Desktop: Settings, Resources, WSL integration: off"
    )
    return Finding(check, "warn", f"{seen} and an Engine here; in use is {used}", why, fix)


def socket(box: Box) -> Finding:
    """The engine-proxy mounts the socket that the settings name; the Engine may listen on another."""
    docker, check = box.docker, "docker socket"
    listens = docker.address.removeprefix("unix://")
    if not docker.address.startswith("unix://"):
        return Finding(check, "ok", f"Docker is at {docker.address}, its own socket serves there")
    if not docker.local or _same(listens, box.socket):
        return Finding(check, "ok", box.socket)
    why = "the activator reaches Docker through that of the settings, and would find another Engine or none"
    fix = f"TANDEM_DOCKER_SOCKET={listens} in .env, or\npython -m orchestrator doctor --fix"
    return Finding(check, "bad", f"Docker listens on {listens}, the settings say {box.socket}", why, fix)


def _same(one_path: str, other: str) -> bool:
    """/var/run is a link to /run everywhere."""
    return one_path.replace("/var/run/", "/run/", 1) == other.replace("/var/run/", "/run/", 1)


def toolkit(box: Box) -> Finding:
    """Docker passes NVIDIA GPUs through a program of NVIDIA's Container Toolkit, which it looks for when it starts."""
    docker, check = box.docker, "nvidia runtime"
    if not box.gpus:
        why = "no NVIDIA GPU is here" if not box.nvidia else "no profile uses GPUs"
        return Finding(check, "ok", f"does not apply: {why}")
    if "nvidia" in docker.runtimes or docker.is_desktop:
        return Finding(check, "ok", "Docker has it" if "nvidia" in docker.runtimes else "Docker Desktop brings its own")
    why = "Docker cannot give GPUs to a container: 'could not select device driver \"nvidia\"'"
    configure = f"sudo nvidia-ctk runtime configure --runtime=docker && {restart(box)}"
    if docker.rootless:
        # NVIDIA's install guide, "Rootless mode".
        configure = (
            "nvidia-ctk runtime configure --runtime=docker --config=$HOME/.config/docker/daemon.json\n"
            "systemctl --user restart docker\n"
            "sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups --in-place"
        )
    if docker.hook:
        # The hook alone does where dockerd found it when it started, and nobody can see whether it did.
        why = "an Engine that started before the toolkit came gives no GPU to a container"
        return Finding(check, "warn", "the toolkit is here, its runtime is not configured in Docker", why, configure)
    return Finding(check, "bad", "no NVIDIA Container Toolkit", why, f"install it: {TOOLKIT}\n{configure}")


def loops(box: Box) -> list[Finding]:
    """A container that ends again and again has its reason in its log."""
    if "containers" in box.unlisted:
        return [Finding("restarts", "unknown", f"could not look: {box.unlisted['containers']}", "", LOOK)]
    if not box.loops:
        return [Finding("restarts", "ok", "no container of ours starts again and again")]
    return [
        Finding(
            "restarts",
            "bad",
            f"{loop.name} was started again {loop.restarts} times; its last exit code was {loop.exit_code}",
            "it ends right after each start, and nothing behind it works",
            f"docker logs --tail 50 {loop.name}",
        )
        for loop in box.loops
    ]
