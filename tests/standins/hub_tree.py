"""The repositories of a stand-in of a hub: ROOT/ORG/NAME/FILES, with commits that follow from what the files hold."""

import hashlib
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# What is larger is not remembered.
SMALL = 16 << 20
# Dates are of the quarter of a year from here on.
EPOCH, SPAN = 1_700_000_000, 90 * 86400


@dataclass(frozen=True)
class Item:
    """A file of a tree; commit is the last one that changed it, date that commit's in seconds."""

    path: str
    size: int
    sha256: str
    commit: str
    date: int


@dataclass(frozen=True)
class Tree:
    """All files of a repository at one commit. The newest of them carries the commit."""

    commit: str
    date: int
    items: dict[str, Item]

    def below(self, root: str, *, deep: bool) -> Iterator[tuple[Item, list[str]]]:
        """Every file in a folder, with the folders between the two that a listing of it names."""
        inside = f"{root}/" if root else ""
        for path, item in self.items.items():
            if path.startswith(inside):
                parts = path.removeprefix(inside).split("/")[:-1]
                named = range(1, len(parts) + 1) if deep else range(1, min(len(parts), 1) + 1)
                yield item, [inside + "/".join(parts[:count]) for count in named]


class Repositories:
    """Reads the folders anew for each request. With history, it can give small files as it saw them earlier."""

    def __init__(self, root: Path, *, history: bool = False) -> None:
        self.root, self.history = root, history
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._trees: dict[tuple[str, str], Tree] = {}
        self._contents: dict[str, bytes] = {}
        self._lock = threading.Lock()
        if history:
            for folder in root.glob("*/*"):
                if folder.is_dir():
                    self.head(folder.relative_to(root).as_posix())

    def exists(self, repository: str) -> bool:
        return (self.root / repository).is_dir()

    def sha256(self, path: Path) -> str:
        """A file's SHA-256; computed once, unless it changes."""
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if key not in self._hashes:
                with path.open("rb") as stream:
                    self._hashes[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            return self._hashes[key]

    def head(self, repository: str) -> Tree:
        """The tree as it lies there now."""
        folder = self.root / repository
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        found = {name: (path.stat().st_size, self.sha256(path)) for name, path in sorted(files.items())}
        tree = _tree(found)
        if self.history:
            with self._lock:
                self._trees.setdefault((repository, tree.commit), tree)
                for name, (size, sha256) in found.items():
                    if size <= SMALL and sha256 not in self._contents:
                        self._contents[sha256] = files[name].read_bytes()
        return tree

    def tree(self, repository: str, revision: str, branch: str) -> Tree | None:
        """The tree of a branch or of a whole commit; None for those that are not, or are not known any more."""
        head = self.head(repository)
        if revision in {branch, head.commit}:
            return head
        with self._lock:
            return self._trees.get((repository, revision))

    def open(self, repository: str, item: Item) -> BinaryIO:
        """A file as it was in its tree. Raises OSError when it is not known any more."""
        path = self.root / repository / item.path
        if path.is_file() and self.sha256(path) == item.sha256:
            return path.open("rb")
        kept = self._contents.get(item.sha256)
        if kept is None:
            raise FileNotFoundError(f"{repository}/{item.path} is not what it was in its commit")
        return io.BytesIO(kept)


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _tree(found: dict[str, tuple[int, str]]) -> Tree:
    """Name commits and dates; the same files give the same ones on every machine."""
    head = _sha1("\n".join(f"{name}:{sha256}" for name, (_, sha256) in found.items()))
    commits = {name: _sha1(f"{name}:{sha256}") for name, (_, sha256) in found.items()}
    dates = {name: EPOCH + int(commit[:12], 16) % SPAN for name, commit in commits.items()}
    newest = max(found, key=lambda name: (dates[name], name), default="")
    if newest:
        commits[newest] = head
        # No other may be as new.
        dates[newest] += 1
    items = {name: Item(name, size, sha256, commits[name], dates[name]) for name, (size, sha256) in found.items()}
    return Tree(head, dates.get(newest, EPOCH), items)
