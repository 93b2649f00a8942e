"""What Docker keeps on its disk, for a bundle: images and weights out as streams, and in again."""

import json
import selectors
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.bundle import inside
from orchestrator.bundle.files import told
from orchestrator.engine import NO_COMMAND, Engine, expected
from orchestrator.errors import TandemError
from orchestrator.fit import inside as headers

BLOCK = 1 << 20
LABEL = "com.docker.compose"


@dataclass(frozen=True)
class Stored:
    """An image of this machine: its id and size in bytes."""

    id: str
    size: int


@dataclass(frozen=True)
class Held:
    """What is there of one model: each file's size and time, the text of its manifest, and the bytes free there."""

    files: dict[str, tuple[int, int]]
    manifest: str | None
    free: int


class Storage:
    """The images of an Engine, and the weights in one place: a folder that begins with /, or a volume's name."""

    def __init__(self, engine: Engine, weights: str) -> None:
        """Take what Compose calls the place of weights: TANDEM_MODELS as it is set."""
        self._engine = engine
        self.in_folder = weights.startswith("/")
        self.weights = weights if self.in_folder else f"{engine.project}_{weights}"
        self._volume = weights

    @expected
    def images(self) -> dict[str, Stored]:
        """List the images of this machine by tag."""
        listed = self._engine.client.api.images()
        return {tag: Stored(entry["Id"], entry["Size"]) for entry in listed for tag in entry.get("RepoTags") or ()}

    def root(self) -> tuple[Path, bool]:
        """Name the folder where Docker keeps everything, and say whether it can be seen from here."""
        return self._engine.data_folder()

    @expected
    @expected
    def has_weights(self) -> bool:
        """Say whether the place of weights exists."""
        if self.in_folder:
            with told(Path(self.weights), "read"):
                return Path(self.weights).is_dir()
        found = self._engine.client.api.volumes()["Volumes"] or ()
        return any(volume["Name"] == self.weights for volume in found)

    @expected
    def make_weights(self) -> None:
        """Make the volume of weights as Compose would, so that Compose takes it for its own."""
        labels = {f"{LABEL}.project": self._engine.project, f"{LABEL}.volume": self._volume}
        self._engine.client.api.create_volume(self.weights, labels=labels)

    def save(self, tag: str) -> Generator[bytes, None, None]:
        """Give an image as a tar; an empty chunk for each second in which Docker only gathers it."""
        with self._pipe(["docker", "save", tag], write=False) as pipe, selectors.DefaultSelector() as by:
            by.register(pipe, selectors.EVENT_READ)
            while True:
                chunk = pipe.read(BLOCK) if by.select(timeout=1) else None
                if chunk == b"":
                    return
                yield chunk or b""

    def load(self, chunks: Iterable[bytes], waiting: Callable[[], None]) -> None:
        """Load an image from its tar; waiting() is called each second that Docker takes after the last byte."""
        with self._pipe(["docker", "load", "--quiet"], write=True, waiting=waiting) as pipe:
            for chunk in chunks:
                pipe.write(chunk)

    def look(self, image: str, model: str) -> Held:
        """Look at a model's weights, in a container of an image."""
        return _held(json.loads(self._shown(self._inside(image, "list", model), model)))

    def summary(self, image: str, model: str) -> dict[str, Any]:
        """Sum up a model's config.json and tensors, in a container of an image."""
        shown = self._shown(self._run(image, headers.__file__, [model]), model)
        try:
            return dict(json.loads(shown))
        except (ValueError, TypeError):
            raise TandemError(f"the weights of {model} cannot be looked at: {image} says something else") from None

    def _shown(self, argv: list[str], model: str) -> str:
        """Run what looks at a model's weights; what it prints."""
        done = self._engine.run(argv, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise TandemError(f"the weights of {model} cannot be looked at: {said[-1]}")
        return done.stdout

    def summary_here(self, model: str) -> dict[str, Any]:
        """The same for weights in a folder, from here. Raises OSError where this user may not."""
        return headers.summary(Path(self.weights) / model)

    def see(self, model: str) -> Held | None:
        """Look at a model's weights in a folder from here; None when this user may not."""
        try:
            return _held(inside.listed(Path(self.weights) / model, Path(self.weights)))
        except OSError:
            return None

    def hashes(self, image: str, model: str, names: Sequence[str]) -> Generator[tuple[str, str], None, None]:
        """Hash files of a model where they are; each name with its sha256 as it is known."""
        said: list[str] = []
        with closing(self._engine.stream(self._inside(image, "hash", model, names))) as lines:
            for line in lines:
                if line.startswith("["):
                    name, digest = json.loads(line)
                    yield name, digest
                elif line.startswith("=") and line != "=0":
                    raise TandemError(f"the weights of {model} cannot be read: {' '.join(said)}")
                else:
                    said.append(line)

    @contextmanager
    def give(self, image: str, model: str, names: Sequence[str]) -> Iterator[IO[bytes]]:
        """Open files of a model as a tar to be read."""
        broken = None
        with self._pipe(self._inside(image, "give", model, names), write=False) as pipe:
            try:
                yield pipe
            except tarfile.TarError as error:
                broken = error
            # A tar ends with blocks that its reader may leave; the writer must not find nobody there.
            while pipe.read(BLOCK):
                pass
        if broken is not None:
            raise TandemError(f"the weights of {model} ended early: {broken}")

    @contextmanager
    def take(self, image: str, model: str) -> Iterator[IO[bytes]]:
        """Open a tar to be written, of files that become a model's."""
        with self._pipe(self._inside(image, "take", model, write=True), write=True) as pipe:
            yield pipe

    def _inside(
        self, image: str, action: str, model: str, names: Sequence[str] = (), *, write: bool = False
    ) -> list[str]:
        return self._run(image, inside.__file__, [action, model, json.dumps(list(names))], write=write)

    def _run(self, image: str, program: str, words: list[str], *, write: bool = False) -> list[str]:
        """Run a program of this package, which is sent as text, where the weights are mounted."""
        kind = "bind" if self.in_folder else "volume"
        mount = f"type={kind},source={self.weights},target={inside.MODELS}{'' if write else ',readonly'}"
        text = Path(program).read_text(encoding="utf-8")
        argv = ["docker", "run", "--rm", "--interactive", "--pull", "never", "--network", "none"]
        # Without a log of its own, or the daemon would write every byte to the disk once more.
        argv += ["--log-driver", "none", "--mount", mount, "--entrypoint", "tini", image]
        return [*argv, "--", "python3", "-c", text, *words]

    @contextmanager
    def _pipe(self, argv: list[str], *, write: bool, waiting: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
        """Run a command of Docker's CLI and open one end of it; it dies with the block.

        Raises TandemError when it fails.
        """
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    argv, cwd=self._engine.folder, env=self._engine.environment, stderr=said,
                    stdin=subprocess.PIPE if write else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL if write else subprocess.PIPE,
                    # What is read comes as soon as it is there; what is written must not be cut.
                    bufsize=-1 if write else 0,
                )  # fmt: skip
            except FileNotFoundError:
                raise TandemError(NO_COMMAND) from None
            pipe: Any = process.stdin if write else process.stdout
            try:
                # One that ended early says why itself.
                with suppress(BrokenPipeError):
                    yield pipe
                    pipe.close()
                while process.poll() is None:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(1)
                        break
                    waiting()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
                with suppress(OSError):
                    pipe.close()
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise TandemError(
                    f"'{' '.join(argv[:2])}' failed: {lines[-1] if lines else f'exit code {process.returncode}'}"
                )


def _held(shown: dict[str, Any]) -> Held:
    files = {name: (size, time) for name, (size, time) in shown["files"].items()}
    return Held(files, shown["manifest"], shown["free"])
