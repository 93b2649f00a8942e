"""Runs vLLM's own benchmark in this process, so that what it imports and the tokenizer are read once and not each run.

It is `vllm bench serve` (vllm/benchmarks/serve.py), with the options that `python -m orchestrator bench` gives it; no
figure is reckoned here.
"""

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import commands
from orchestrator.errors import TandemError
from orchestrator.load import results

# Requests to a server of this machine take no proxy.
NEAR = "127.0.0.1,localhost"


@dataclass(frozen=True)
class Answer:
    """A run, and what vLLM says of drafts: how many tokens were drafted and accepted."""

    run: results.Run
    drafts: dict[str, float]


class LateError(Exception):
    """A run was not done within its seconds; nothing of it is kept."""


class Client:
    """vLLM's benchmark, imported at the first use; log is where it may print."""

    def __init__(self, log: Path) -> None:
        # Open until the end: vLLM's logger keeps what it finds as standard output when it is imported.
        self._said = log.open("a", encoding="utf-8")
        self._serve: Any = None
        self._parser: Any = None

    @property
    def ready(self) -> bool:
        return self._serve is not None

    def prepare(self) -> None:
        """Import what it takes, which takes as long as a server's own imports."""
        if self.ready:
            return
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = NEAR
        with self._quiet():
            from vllm.benchmarks import serve
            from vllm.utils.argparse_utils import FlexibleArgumentParser

            # A tokenizer of 152,064 words takes a second to read, for the same each time.
            serve.get_tokenizer = functools.cache(serve.get_tokenizer)
            self._parser = FlexibleArgumentParser()
            serve.add_cli_args(self._parser)
            self._serve = serve

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        with contextlib.redirect_stdout(self._said), contextlib.redirect_stderr(self._said):
            yield

    def ask(
        self, address: str, model: str, tokenizer: Path, *, seed: int, at_once: int, asked: int,
        lengths: tuple[int, int], seconds: float,
    ) -> Answer:  # fmt: skip
        """Ask a server; lengths are the tokens of each prompt and answer. Raises LateError, and TandemError if none."""
        self.prepare()
        argv = commands.bench_serve(
            address, model, ["--tokenizer", str(tokenizer)], seed=seed, at_once=at_once, requests=asked, lengths=lengths
        )
        words = self._parser.parse_args(argv[3:])
        # It is read here, and not from a file.
        words.save_result = False
        with self._quiet():
            try:
                said = asyncio.run(asyncio.wait_for(self._serve.main_async(words), seconds))
            except TimeoutError:
                raise LateError from None
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever vLLM's own code raises is this run's fault)
                raise TandemError(f"vllm bench serve failed: {type(error).__name__}: {error}") from None
        run = results.read(json.dumps(said, default=float), asked=asked, output=lengths[1], seed=seed)
        names = ("drafts", "draft_tokens", "accepted_tokens", "acceptance_length")
        drafts = {name: said[key] for name in names for key in _keys(name) if key in said}
        return Answer(run, drafts)


def _keys(name: str) -> tuple[str, str]:
    return f"spec_decode_{name}", f"spec_decode_num_{name}"
