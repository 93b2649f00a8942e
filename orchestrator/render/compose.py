"""compose.models.yaml: one service per model profile, each a few lines that extend docker/vllm/service.yaml. Pure."""

from collections.abc import Iterable

from orchestrator.problems import quoted
from orchestrator.profiles import Profile
from orchestrator.pulls import wish
from orchestrator.render.file import NOTICE, File
from orchestrator.render.serve import OVERRIDABLE, folder, serve, variable
from orchestrator.versions import ACTIVATOR, REPOSITORY, Versions

BASE = "docker/vllm/service.yaml"
# What a server that fetches its model itself has of this machine's settings.
NETWORK = ("MODELSCOPE_ENDPOINT", "HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def compose(profiles: Iterable[Profile], versions: Versions) -> File:
    """Render the services of all profiles."""
    listed = list(profiles)
    services = "\n".join([*(_service(profile, versions) for profile in listed), *_gpus(listed)])
    caches = {_cache(profile, versions): _tag(profile, versions) for profile in listed}
    volumes = "".join(
        f'  {_quote(cache)}:\n    name: "${{COMPOSE_PROJECT_NAME}}_cache-{tag}"\n' for cache, tag in caches.items()
    )
    text = f"# {NOTICE}\n# compose.yaml includes it.\nservices:\n{services}"
    # Kernels that a server compiled are of use to the same version of vLLM alone.
    return File("compose.models.yaml", f"{text}\nvolumes:\n{volumes}")


def _tag(profile: Profile, versions: Versions) -> str:
    """The tag of a profile's image; one that nothing pins is this machine's to choose."""
    if profile.vllm is not None:
        return versions.find(profile.vllm, profile.image).tag
    usual = versions.usual(profile.image).tag
    return f"${{TANDEM_VLLM:-{usual}}}" if profile.image == "cuda" else usual


def _cache(profile: Profile, versions: Versions) -> str:
    """The key of the volume that holds the kernels which a profile's server compiled."""
    chosen_here = profile.vllm is None and profile.image == "cuda"
    return "cache" if chosen_here else f"cache-{_tag(profile, versions)}"


def _quote(text: str) -> str:
    """A YAML scalar that Compose reads back as it is: JSON's quoting, and no variables."""
    return quoted(text).replace("$", "$$")


def _words(words: Iterable[str], indent: str) -> str:
    return "".join(f"\n{indent}- {word}" for word in words)


def _command(profile: Profile) -> list[str]:
    values = {key: f"${{{variable(profile, key)}:-{getattr(profile, key)}}}" for key in OVERRIDABLE}
    # A name that no argument can have stands for each variable, so that quoting leaves the variables alone.
    quoted = [_quote(word) for word in serve(profile, lambda key: f"\0{key}")]
    marks = {_quote(f"\0{key}"): f'"{text}"' for key, text in values.items()}
    return [marks.get(word, word) for word in quoted]


def environment(profile: Profile) -> dict[str, str]:
    """Name the variables of a profile's server; those of models.toml come last and win."""
    hub = {}
    if not profile.pull:
        # What a server fetches itself stays with the kernels that it compiled: its container goes with each change.
        hub = {"HF_HUB_OFFLINE": "0", "HF_HOME": "/cache/huggingface", "MODELSCOPE_CACHE": "/cache/modelscope"}
        if profile.source == "modelscope":
            # By id, vLLM lists the hub itself; up to 0.24.0 it takes no other spelling than "true".
            hub["VLLM_USE_MODELSCOPE"] = "true"
    return hub | profile.env


def wiring(profile: Profile) -> dict[str, str]:
    """Name the variables that a server's gate goes by, and what its sleep needs; nothing of models.toml sets them."""
    found = {"TANDEM_PROFILE": profile.name}
    if profile.gpus:
        found["TANDEM_GPUS"] = ",".join(map(str, profile.gpus))
    if profile.sleep == "auto":
        # vLLM answers /sleep and /wake_up in its development mode alone; the router keeps them from clients.
        found |= {"TANDEM_SLEEP": "1", "VLLM_SERVER_DEV_MODE": "1"}
    return found


def _service(profile: Profile, versions: Versions) -> str:
    tag = _tag(profile, versions)
    build = f'    image: "{REPOSITORY}:{tag}"\n    build:\n      args:\n        VLLM_BUILD: "{tag}"\n'
    text = f"  {_quote(profile.name)}:\n    extends:\n      file: {BASE}\n      service: {profile.image}\n"
    text += f"    profiles: [{_quote(profile.name)}]\n"
    # Compose's name for the project, then the profile's: two checkouts on one machine stay apart.
    text += f'    container_name: "${{COMPOSE_PROJECT_NAME}}-{profile.name}"\n' + build
    text += f"    shm_size: {profile.shm_size}\n    command:{_words(_command(profile), '      ')}\n"
    variables = [f"{_quote(key)}: {_quote(value)}" for key, value in (environment(profile) | wiring(profile)).items()]
    if not profile.pull:
        # From the shell or .env, as for a pull; a value of models.toml's own comes before.
        variables += [f"{name}:" for name in NETWORK if name not in profile.env]
        text += f"    secrets: [ca]\n    extra_hosts: [{_quote('host.docker.internal:host-gateway')}]\n"
    text += "    environment:" + "".join(f"\n      {line}" for line in variables) + "\n"
    text += _labels(profile) + _health(profile)
    text += f"    volumes:\n      - {_quote(_cache(profile, versions) + ':/cache')}\n"
    if profile.local:
        text += _mount(profile)
    if profile.gpus:
        text += _devices(profile.gpus, "gpu")
    if not profile.pulled:
        return text
    text += f"    depends_on:\n      pull-{profile.name}:\n        condition: service_completed_successfully\n"
    return text + _pull(profile, build)


def _labels(profile: Profile) -> str:
    gpus = ",".join(map(str, profile.gpus))
    return f"    labels:\n      tandem.profile: {_quote(profile.name)}\n      tandem.gpus: {_quote(gpus)}\n"


def _health(profile: Profile) -> str:
    probe = ["CMD", "python3", "/opt/tandem/healthcheck.py", profile.served_model_name]
    return (
        f"    healthcheck:\n      test: [{', '.join(map(_quote, probe))}]\n"
        f"      start_period: {profile.ready_timeout}s\n"
    )


def _mount(profile: Profile) -> str:
    # A folder that is not there fails the start; Docker would otherwise make an empty one.
    return (
        f"      - type: bind\n        source: {_quote(profile.model)}\n"
        f"        target: {_quote(folder(profile))}\n        read_only: true\n"
        "        bind: {create_host_path: false}\n"
    )


def _devices(gpus: Iterable[int] | None, capabilities: str) -> str:
    """Reserve these GPUs, or, for None, all that the machine has."""
    which = "count: all" if gpus is None else f"device_ids: [{', '.join(_quote(str(gpu)) for gpu in gpus)}]"
    return (
        "    deploy:\n      resources:\n        reservations:\n          devices:\n"
        f"            - driver: nvidia\n              {which}\n"
        f"              capabilities: [{capabilities}]\n"
    )


def _gpus(profiles: Iterable[Profile]) -> list[str]:
    """The reader of GPU memory, for the profiles that have GPUs: it sees all of them and every process on them."""
    those = [profile for profile in profiles if profile.gpus]
    if not those:
        return []
    names = ", ".join(_quote(profile.name) for profile in those)
    return [
        f'  gpus:\n    image: "{ACTIVATOR}"\n    profiles: [{names}]\n'
        '    container_name: "${COMPOSE_PROJECT_NAME}-gpus"\n'
        '    entrypoint: ["python3", "/opt/tandem/gpus.py"]\n    restart: always\n'
        # Processes of other containers: to name them, and to end those that a stopped server left behind.
        '    user: "0:0"\n    pid: host\n    network_mode: none\n    read_only: true\n'
        "    cap_drop: [ALL]\n    cap_add: [KILL, DAC_READ_SEARCH, SYS_PTRACE]\n"
        '    security_opt: ["no-new-privileges:true"]\n    volumes:\n      - "gpus:/run/gpus"\n'
        # All of them: by their ids it would not start where one profile names a GPU that the machine lacks, and would
        # count what it sees from 0.
        + _devices(None, "gpu, utility")
        + '    logging:\n      driver: json-file\n      options: {max-size: 20m, max-file: "3"}\n'
    ]


def _pull(profile: Profile, build: str) -> str:
    return (
        f"\n  pull-{profile.name}:\n    extends:\n      file: {BASE}\n      service: pull\n"
        f"    profiles: [{_quote(profile.name)}]\n{build}        VARIANT: {profile.image}\n"
        f"    command: [{', '.join(map(_quote, wish(profile, way='--for-start')))}]\n"
    )
