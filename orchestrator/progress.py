"""Names the phases of a start, and reads its progress from a server's own log lines. Pure."""

import re
from typing import Literal, get_args

Phase = Literal[
    "image", "container", "weights", "queued", "drain", "sleep", "stop", "release", "start", "wake", "prove", "ready"
]
# In the order of a start: the first three are the command line's own, the others the activator's.
PHASES: tuple[Phase, ...] = get_args(Phase)
# What each start has; of the others a start shows those that it comes to.
ALWAYS: frozenset[Phase] = frozenset({"image", "container", "weights", "prove", "ready"})
# Their texts are what other programs print, many lines a second.
CHATTY: frozenset[Phase] = frozenset({"image", "weights"})


# As vLLM 0.19 to 0.32 and our own entrypoint print them. A line that matches none says nothing about progress.
_LINES: tuple[tuple[str, str], ...] = (
    (r"tandem: waiting for (GPU \d+): (.+) is starting on it", "waiting for {0}, where {1} starts"),
    (r"tandem: waiting for memory: (GPU \d+ has [\d.]+ of the [\d.]+ GiB)", "waiting for memory: {0}"),
    (r"tandem: starting ", "importing vLLM"),
    (r"Resolved architecture: (\S+)", "{0}, starting the engine"),
    (r"Initializing a V1 LLM engine", "starting the engine"),
    (r"Starting to load model", "loading weights"),
    (r"Loading \S+ checkpoint shards: +(\d+)% Completed \| (\d+/\d+)", "loading weights {0}% ({1})"),
    (r"Loading weights took ([\d.]+) seconds", "weights loaded in {0} s"),
    (r"Model loading took ([\d.]+) Gi[Bb]", "weights take {0} GiB a GPU"),
    (r"Start compiling|Cache the graph|torch\.compile|Warming up model", "compiling and warming up"),
    (r"Capturing CUDA graphs[^%]*?(\d+)%", "capturing CUDA graphs {0}%"),
    (r"KV cache size: ([\d,]+) tokens", "KV cache holds {0} tokens"),
    (r"init engine .* took ([\d.]+) s", "engine up in {0} s"),
    (r"Starting vLLM (?:API )?server", "starting the API server"),
    (r"Application startup complete", "the API server is up"),
)


def phase(name: str) -> Phase | None:
    """The phase that the activator calls so; None for one that a start does not show."""
    return next((known for known in PHASES if known == name), None)


def read(line: str) -> str | None:
    """Say to a person what a log line means for the start, or None when it means nothing."""
    for pattern, text in _LINES:
        match = re.search(pattern, line)
        if match:
            return text.format(*match.groups())
    return None
