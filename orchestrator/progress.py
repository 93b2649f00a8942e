"""Reads the progress of a start from a server's own log lines. Pure."""

import re
from typing import Literal, NamedTuple

Phase = Literal["image", "container", "weights", "engine", "ready"]
PHASES: tuple[Phase, ...] = ("image", "container", "weights", "engine", "ready")


class Progress(NamedTuple):
    """What a log line says: the phase that it belongs to, and words for a person."""

    phase: Phase
    text: str


# As vLLM 0.19 to 0.32 and our own entrypoint print them. A line that matches none says nothing about progress.
_LINES: tuple[tuple[str, Phase, str], ...] = (
    (r"tandem: starting ", "engine", "importing vLLM"),
    (r"Resolved architecture: (\S+)", "engine", "{0}, starting the engine"),
    (r"Initializing a V1 LLM engine", "engine", "starting the engine"),
    (r"Starting to load model", "engine", "loading weights"),
    (r"Loading \S+ checkpoint shards: +(\d+)% Completed \| (\d+/\d+)", "engine", "loading weights {0}% ({1})"),
    (r"Loading weights took ([\d.]+) seconds", "engine", "weights loaded in {0} s"),
    (r"Model loading took ([\d.]+) Gi[Bb]", "engine", "weights take {0} GiB a GPU"),
    (r"Start compiling|Cache the graph|torch\.compile|Warming up model", "engine", "compiling and warming up"),
    (r"Capturing CUDA graphs[^%]*?(\d+)%", "engine", "capturing CUDA graphs {0}%"),
    (r"KV cache size: ([\d,]+) tokens", "engine", "KV cache holds {0} tokens"),
    (r"init engine .* took ([\d.]+) s", "engine", "engine up in {0} s"),
    (r"Starting vLLM (?:API )?server", "engine", "starting the API server"),
    (r"Application startup complete", "ready", "asking for a first token"),
)


def read(line: str) -> Progress | None:
    """Say what a log line means for the start, or None when it means nothing."""
    for pattern, phase, text in _LINES:
        match = re.search(pattern, line)
        if match:
            return Progress(phase, text.format(*match.groups()))
    return None
