"""Measures images of vLLM: how long builds take, what their size is made of, how soon `vllm serve --help` answers."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import builder, cli_verify, contents, imagestore, project, session
from orchestrator.errors import TandemError
from orchestrator.inventory import size
from orchestrator.project import Project
from orchestrator.session import say
from orchestrator.versions import REPOSITORY, Build

FILES = ("docker/vllm/verify/measure.py", "docker/vllm/verify/inside.py")
MEASURED = "tandem/measured"
SHOWN = 6  # of the packages, the largest


def options(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/measure", description=__doc__)
    parser.add_argument(
        "tags", metavar="TAG", nargs="*", help="images, such as 0.32.0-cpu; both of the default version"
    )
    parser.add_argument("--runs", type=int, default=3, help="of each figure but the cold build; medians are shown (3)")
    parser.add_argument(
        "--empty-build-cache",
        action="store_true",
        help="first: then the first build is a cold one. It is Docker's, all of it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    found = parser.parse_args(argv)
    if found.runs < 1:
        parser.error("--runs: should be 1 or more")
    return found


def chosen(whole: Project, tags: list[str]) -> list[Build]:
    """Find the builds. Raises TandemError with those there are."""
    known = {build.tag: build for found in whole.versions.builds.values() for build in found.values()}
    unknown = [tag for tag in tags if tag not in known]
    if unknown:
        raise TandemError(f"{unknown[0]}: no such image; there are: {', '.join(known)}")
    return [known[tag] for tag in tags] or list(whole.versions.builds[whole.versions.default].values())


def timed_build(whole: Project, build: Build) -> float:
    """Build an image; the seconds that it took."""
    began = time.monotonic()
    with closing(session.engine(whole)) as engine:
        builder.build(whole, engine, [build.image], lambda _: None)
    return round(time.monotonic() - began, 1)


@contextmanager
def copied(whole: Project) -> Iterator[Project]:
    """A copy of docker/ whose images have a name of their own, so that those in use stay as they are."""
    with tempfile.TemporaryDirectory(prefix="tandem-measure-") as folder:
        shutil.copytree(whole.folder / "docker", f"{folder}/docker")
        image = Path(folder, "docker/vllm/image.yaml")
        image.write_text(image.read_text(encoding="utf-8").replace(f"{REPOSITORY}:", f"{MEASURED}:"), encoding="utf-8")
        yield replace(whole, folder=Path(folder))


def changed_patch(whole: Project, build: Build, runs: int) -> list[float]:
    """Change a patch of a build and build it, some times; the seconds of each. Nothing where it has no patch."""
    listed = contents.patched(whole.folder, build)
    if not listed:
        return []
    seconds = []
    with copied(whole) as copy:
        path = copy.folder / "docker/vllm/patches" / listed[-1]
        for _ in range(runs):
            # Words before the first file's name are no part of the change itself.
            path.write_text(f"# {time.time_ns()}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")
            try:
                seconds.append(timed_build(copy, build))
            finally:
                # The next one would take its name and leave it without.
                subprocess.run(["docker", "image", "rm", f"{MEASURED}:{build.tag}"], capture_output=True, check=False)
    return seconds


def measure(whole: Project, build: Build, *, runs: int, cold: bool) -> dict[str, Any]:
    """Measure one image; seconds and bytes by what they are of."""
    found: dict[str, Any] = {"image": build.image}
    if cold:
        say(f"{build.image}: emptying Docker's build cache, then building")
        pruned = subprocess.run(
            ["docker", "builder", "prune", "--all", "--force"], capture_output=True, text=True, check=False
        )
        if pruned.returncode:
            raise TandemError(f"the build cache could not be emptied: {pruned.stderr.strip()}")
    else:
        say(f"{build.image}: building what is not there yet")
    first = timed_build(whole, build)
    found |= {"cold": first} if cold else {}
    say(f"{build.image}: building it again, and with a changed patch")
    found["again"] = [timed_build(whole, build) for _ in range(runs)]
    found["changed patch"] = changed_patch(whole, build, runs)
    with closing(session.engine(whole)) as engine:
        inside = cli_verify.look(engine, whole.folder, build.image, FILES, [str(runs)], say)
        found["size"] = imagestore.size(engine, build.image)
    return found | inside


def machine() -> str:
    """Say what the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    engine = subprocess.run(
        ["docker", "version", "-f", "{{.Server.Version}}"], capture_output=True, text=True, check=True
    )
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), {memory / 2**20:.0f} GiB, {system}, "
        f"Docker {engine.stdout.strip()}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def table(found: dict[str, Any]) -> str:
    """Show what was measured of one image."""
    over = found["size"] - found["packages"]
    largest = list(found["of"].items())[:SHOWN]
    compiled, plain = (found["help"][name] for name in ("compiled", "not compiled"))
    rows = [
        ("build, nothing cached", f"{found['cold']} s" if "cold" in found else "not measured (--empty-build-cache)"),
        ("build again", _seconds(found["again"])),
        ("build, a patch changed", _seconds(found["changed patch"]) if found["changed patch"] else "it has no patch"),
        ("size", size(found["size"])),
        ("  Python packages", f"{size(found['packages'])}, of it byte-compiled {size(found['compiled'])}"),
        *((f"    {name}", size(count)) for name, count in largest),
        ("  all else", f"{size(over)}, {100 * over / found['packages']:.1f} % of the packages"),
        ("vllm serve --help", _seconds(compiled)),
        ("  not byte-compiled", _seconds(plain)),
    ]
    return "\n".join([found["image"], *(f"  {name:<24}{fact}" for name, fact in rows)])


def _seconds(found: list[float]) -> str:
    return f"{statistics.median(found):.1f} s ({min(found):.1f} to {max(found):.1f}, {len(found)} runs)"


def main(argv: list[str]) -> int:
    """Measure and print; 1 and a line where an image cannot be built or looked into."""
    given = options(argv)
    try:
        whole = project.load(project.find(Path.cwd()), [], os.environ)
        builds = chosen(whole, given.tags)
        found = [measure(whole, build, runs=given.runs, cold=given.empty_build_cache) for build in builds]
    except TandemError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    if given.json:
        print(json.dumps({"machine": machine(), "images": found}))
    else:
        print("\n\n".join([machine(), *map(table, found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
