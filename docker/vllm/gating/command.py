"""A server's command line: what it says of the server, and how this machine's vLLM wants it spelt. Pure."""

from collections.abc import Mapping, Sequence

# From this version on a reasoning parser is enough; --enable-reasoning, which those before ask for, is gone.
ENABLED_BY_PARSER = (0, 10)
# Sleep mode is broken from 0.14 to 0.16.
SLEEPS = (0, 17)
# The share of a GPU that vLLM takes when it is not told, from a version on.
SHARES = (((0, 20), 0.92), ((0, 0), 0.9))
PORT = 8000


def release(version: str) -> tuple[int, int]:
    """Read the two numbers of a version that matter: "0.32.0+cpu" is (0, 32)."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def fitting(argv: Sequence[str], version: str, environment: Mapping[str, str], *, cuda: bool) -> list[str]:
    """Spell a command line as this version of vLLM reads it: which one it is, an env file may say."""
    more = []
    if release(version) < ENABLED_BY_PARSER and _has(argv, "reasoning-parser"):
        more.append("--enable-reasoning")
    wanted = environment.get("TANDEM_SLEEP") == "1" and not _has(argv, "enable-sleep-mode")
    # vLLM refuses the flag on CPU.
    if wanted and cuda and release(version) >= SLEEPS:
        more.append("--enable-sleep-mode")
    return [*argv, *more, *_of_the_machine(argv, environment)]


def _of_the_machine(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Give the flags that follow from the machine, as TANDEM_FLAGS has them; what is said of one already holds."""
    wanted = environment.get("TANDEM_FLAGS", "").split()
    return [flag for flag in wanted if not (_has(argv, _flag(flag)) or _has(argv, f"no-{_flag(flag)}"))]


def claim(argv: Sequence[str], version: str) -> float:
    """Say what share of each GPU's memory the server will take."""
    try:
        return float(_value(argv, "gpu-memory-utilization") or "")
    except ValueError:
        # Not said, or vLLM will refuse it.
        return next(share for since, share in SHARES if release(version) >= since)


def name(argv: Sequence[str]) -> str:
    """Give the name that the server will list; without the flag that is its model."""
    return _value(argv, "served-model-name") or argv[2]


def port(argv: Sequence[str]) -> int:
    """Give the port that the server will listen on."""
    said = _value(argv, "port") or ""
    return int(said) if said.isdecimal() else PORT


def _has(argv: Sequence[str], flag: str) -> bool:
    return any(_flag(word) == flag for word in argv)


def _value(argv: Sequence[str], flag: str) -> str | None:
    """Find what follows a flag, in any spelling that argparse reads; the last one counts."""
    found = None
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if _flag(word) == flag:
            found = word.partition("=")[2] if "=" in word else following
    return found


def _flag(word: str) -> str:
    # vLLM takes --gpu_memory_utilization for --gpu-memory-utilization.
    return word.partition("=")[0][2:].replace("_", "-") if word.startswith("--") else ""
