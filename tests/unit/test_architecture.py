"""Which module may use what: deciding and rendering are pure, one module talks to Docker, one speaks HTTP."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.unit.values import ROOT

PACKAGE = ROOT / "orchestrator"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PURE = {
    "errors",
    "adapters",
    "profiles",
    "complaints",
    "problems",
    "reach",
    "keys",
    "rules",
    "config",
    "versions",
    "addresses",
    "mirrors",
    "network",
    "patches",
    "plan",
    "states",
    "inventory",
    "inventory_models",
    "pulls",
    "progress",
    "failures",
    "commands",
    "doctor.derived",
    "doctor.finding",
    "doctor.gpus",
    "doctor.gpus_cards",
    "doctor.gpus_servers",
    "doctor.machine",
    "doctor.nccl",
    "doctor.smi",
    "report",
    "bench",
    "foresee",
    "bundle.manifest",
    "bundle.weights",
    "bundle.guide",
    "bundle.meter",
    "doctor.box",
    "doctor.checks_disk",
    "doctor.checks_docker",
    "doctor.checks_files",
    "doctor.checks_memory",
    "doctor.checks_network",
    "doctor.checks_wsl",
    "doctor.every",
    "doctor.reading",
    "doctor.remedies",
    "doctor.words",
    "fit.allocator",
    "fit.flags",
    "fit.gpu",
    "fit.kv",
    "fit.overhead",
    "fit.room",
    "fit.shape",
    "fit.verdict",
    "fit.ways",
    "fit.weights",
    "fit.words",
    "load.chart",
    "load.compare",
    "load.flags",
    "load.results",
    "load.words",
    "proof.answers",
    "proof.checks",
    "proof.prompts",
    "proof.result",
    "proof.texts",
    "proof.wording",
    "telling.known",
    "telling.lines",
    "telling.networks",
    "telling.redaction",
    "telling.shapes",
    "telling.words",
    "switch.backoff",
    "switch.belief",
    "switch.history",
    "switch.plan",
    "switch.queue",
    "switch.scheduler",
    "switch.tunables",
    "switch.wants",
    "switch.world",
    "verify",
    *(name for name in MODULES if name.split(".")[0] == "render"),
}
# Of the standard library and of others, what only turns values into values.
HARMLESS = {
    "base64",
    "collections",
    "collections.abc",
    "dataclasses",
    "difflib",
    "hashlib",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "pydantic",
    "re",
    "shlex",
    "textwrap",
    "tomllib",
    "typing",
    "unicodedata",
    # What it reads is text by then: nvidia-smi's.
    "xml.etree",
}
EFFECTS = {"open", "print", "input", "exec", "eval", "__import__"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; modules of ours begin with `orchestrator.`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            ours = {name for name in names if name.removeprefix("orchestrator.") in MODULES}
            found |= ours if ours else {str(node.module)}
    return found


def ours(name: str) -> set[str]:
    """The modules of ours that a module imports, by their short names."""
    found = {other.removeprefix("orchestrator.") for other in imports(MODULES[name])}
    return {other for other in found if other in MODULES and other != name}


def users(*wanted: str) -> set[str]:
    """The modules that import one of these or something below it."""
    return {
        name
        for name, path in MODULES.items()
        if any(found == word or found.startswith(f"{word}.") for found in imports(path) for word in wanted)
    }


def test_pure_modules_import_only_what_is_pure() -> None:
    allowed = HARMLESS | {f"orchestrator.{name}" for name in PURE}
    beyond = {name: imports(MODULES[name]) - allowed for name in PURE}
    assert {name: found for name, found in beyond.items() if found} == {
        # Their argument's type, and nothing that reads or writes with it.
        "commands": {"pathlib"},
        "report": {"orchestrator.project"},
        "telling.words": {"orchestrator.project"},
        # Not its clock: the day that packages are resolved for.
        "versions": {"datetime"},
    }


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_read_and_print_nothing(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used & EFFECTS == set()


def test_only_the_engine_talks_to_docker() -> None:
    # The activator's has the engine-proxy before it, and another loop around it.
    # imagestore calls the Engine's client; of the SDK itself it has the exceptions alone.
    assert users("docker", "requests") == {"activator.docker", "engine", "imagestore"}


def test_only_what_meets_the_machine_runs_programs() -> None:
    # storage: images and weights go through Docker's CLI as streams; bundle.sources: git and pip.
    assert users("subprocess", "multiprocessing", "pty") == {"base", "bundle.sources", "engine", "host", "storage"}


def test_only_one_module_draws_and_only_when_it_is_asked_to() -> None:
    assert users("matplotlib") == {"load.plot"}
    # It is installed for nothing else, so whoever imports the module must get by without.
    top = ast.parse(MODULES["load.plot"].read_text(encoding="utf-8")).body
    names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith("matplotlib")]


def test_only_one_module_speaks_http() -> None:
    # activator: one module for each kind of server that it speaks to, and its entry, which opens its socket.
    activator = {"__main__", "app", "forwarding", "gpus", "router", "servers", "routes"}
    found = users("urllib", "http", "socket", "httpx", "aiohttp")
    # host: whether a server could listen on a port.
    assert found == {"host", "http", *(f"activator.{name}" for name in activator)}


def test_only_the_command_line_and_what_meets_the_machine_read_the_environment() -> None:
    # bundle.inside walks folders with it; activator.store puts a file on the disk for good.
    # weights, load.run: the id of its own process is in the names of its containers; view: how wide a terminal is;
    # cli_keys and keyfile: who the user is, and whose a file shall be; doctor.kept puts a file on the disk for good.
    # interrupts: writes nowhere once the terminal has gone.
    assert users("os") == {
        "activator.__main__", "activator.store",
        "base", "bundle.inside", "bundle.sources", "cli", "cli_bench", "cli_doctor", "cli_keys", "cli_report",
        "cli_switch", "cli_weights", "doctor.kept", "host", "interrupts", "keyfile", "load.run", "session", "view",
        "weights",
    }  # fmt: skip


def test_nothing_imports_the_command_line_but_the_entry() -> None:
    assert {name for name in MODULES if "cli" in ours(name)} == {"__main__"}


def test_imports_run_in_no_circle() -> None:
    graph = {name: ours(name) for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_stays_below_320_lines(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) < 320


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_begins_by_saying_what_it_owns(name: str) -> None:
    said = ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))
    assert said is not None
    assert "\n" not in said.split("\n\n")[0]
