"""Judges where project and weights are, how lines end, and what lies about in the folder of weights. Pure."""

from shlex import quote

from orchestrator.doctor.box import Box, Ends, Place
from orchestrator.doctor.checks_memory import GIB, gib
from orchestrator.doctor.finding import Finding

# File systems of Windows, and those by which WSL shows its drives; elsewhere the latter may be anything.
OF_WINDOWS = frozenset({"fuseblk", "ntfs", "ntfs3", "cifs", "exfat", "vfat"})
OF_DRIVES = frozenset({"9p", "v9fs", "drvfs", "virtiofs"})


def findings(box: Box) -> list[Finding]:
    """Say what is to be said of files."""
    return [project(box), models(box), *ends(box), *left(box)]


def project(box: Box) -> Finding:
    """On a drive of Windows everything is slow, and modes and owners are made up."""
    place = box.files.project
    if not _of_windows(box, place):
        return Finding("project's disk", "ok", f"{place.kind or 'a file system of its own'}, {place.path}")
    why = "a drive of Windows: every file takes many times longer, and who may read what is made up"
    fix = f"cp -a {quote(place.path)} ~/tandem   # then work there"
    return Finding("project's disk", "warn", f"{place.kind}, {place.path}", why, fix)


def _of_windows(box: Box, place: Place) -> bool:
    return place.kind in (OF_WINDOWS | OF_DRIVES if box.wsl.version else OF_WINDOWS)


def models(box: Box) -> Finding:
    """Weights are read at every start."""
    check, place = "weights' disk", box.files.models
    if place is None:
        return Finding(check, "ok", "a Docker volume")
    if box.files.models_missing:
        # The words of a pull, which ends with them.
        fix = f"sudo install -d -o 1000 -g 1000 {quote(place.path)}"
        why = "Docker would make it for root, and a pull runs as user 1000"
        return Finding(check, "bad", f"TANDEM_MODELS: the folder {place.path} is not there", why, fix)
    if _of_windows(box, place):
        why = "a drive of Windows: weights come at a tenth of the disk's speed or less, and a start may run out of time"
        fix = "take TANDEM_MODELS out of .env, for a volume;\nor a folder of Linux's own such as /data/models"
        return Finding(check, "bad", f"{place.kind}, {place.path}", why, fix)
    return Finding(check, "ok", f"{place.kind or 'a file system of its own'}, {place.path}")


def ends(box: Box) -> list[Finding]:
    """Files whose lines end as on Windows: one line for each, and one when there is none."""
    found = [_ends(each) for each in box.files.ends]
    return found or [Finding("line ends", "ok", "no env file, models.toml or script has those of Windows")]


def _ends(each: Ends) -> Finding:
    first = f"line {each.lines[0]}"
    many = f"{first} and {len(each.lines) - 1} more" if len(each.lines) > 1 else first
    found = f"{each.path}: {many} end as on Windows (CRLF)"
    if each.script:
        why = "Linux looks for a program whose name ends with the return, and does not start it"
        fix = f"sed -i 's/\\r$//' {quote(each.path)}   # and git config core.autocrlf input"
        return Finding("line ends", "bad", found, why, fix)
    why = "Tandem and Compose read it; a shell that sources it, or docker run --env-file, gets a return in each value"
    if each.path.endswith("models.toml"):
        why = "Tandem reads it; other tools, and a comparison of two versions, trip over it"
    return Finding("line ends", "warn", found, why, "python -m orchestrator doctor --fix   # keeps a copy beside it")


def left(box: Box) -> list[Finding]:
    """Downloads of ModelScope's own client that did not end: nothing reads them."""
    place = box.files.models
    if place is None or box.files.models_missing:
        return []
    if not box.files.left:
        return [Finding("left downloads", "ok", "none in the folder of weights")]
    total = sum(size for _, size in box.files.left)
    found = f"{len(box.files.left)} of ModelScope's own client, {gib(total)}"
    if total < GIB:
        return [Finding("left downloads", "ok", found)]
    fix = f"rm -r {' '.join(quote(path) for path, _ in box.files.left)}"
    return [Finding("left downloads", "warn", found, "nothing reads them, and they take space", fix)]
