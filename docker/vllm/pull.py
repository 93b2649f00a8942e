"""Pulls a model's weights into the shared volume, and looks after those that are there: pull.py --help."""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from weights import care
from weights.authorities import AUTHORITIES, trust
from weights.explain import NAMES, explain
from weights.hubs import RefusedError
from weights.meter import Limit, Teller
from weights.pulling import Pull, Wish
from weights.store import Store

if TYPE_CHECKING:
    from weights.hubs import Hub

SECRETS = {"modelscope": Path("/run/secrets/modelscope-token"), "huggingface": Path("/run/secrets/huggingface-token")}
FILES = {"modelscope": "TANDEM_MODELSCOPE_TOKEN_FILE", "huggingface": "TANDEM_HF_TOKEN_FILE"}
RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([kKMG]?)")
UNITS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


def rate(text: str) -> int:
    """Read a rate in bytes a second, such as 5M; "" and 0 are no limit. Raises ArgumentTypeError."""
    if text in ("", "0"):
        return 0
    found = RATE.fullmatch(text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f'should be bytes a second such as 5M or 800k, got "{text}"')
    return max(1, int(float(found[1]) * UNITS[found[2]]))


def arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line; ends with exit code 2 on a wrong one."""
    parser = argparse.ArgumentParser(prog="pull.py", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True)
    fetch = actions.add_parser("pull", help="fetch a model, or what is missing of it")
    fetch.add_argument("model")
    fetch.add_argument("revision")
    fetch.add_argument("--source", choices=sorted(NAMES), default="modelscope")
    fetch.add_argument(
        "--for-start", action="store_true", help="a server starts: what is whole is enough, no hub is asked"
    )
    fetch.add_argument("--update", action="store_true", help="take what the hub has now, where it changed")
    fetch.add_argument("--unhashed", action="store_true", help="take files that the hub lists without a hash")
    fetch.add_argument("--limit-rate", type=rate, default=os.environ.get("TANDEM_LIMIT_RATE", ""))
    fetch.add_argument("--token-on-stdin", action="store_true")
    actions.add_parser("list", help="show what is there, as JSON").add_argument("models", nargs="*")
    for action in ("verify", "remove"):
        actions.add_parser(action).add_argument("model")
    for parsed in actions.choices.values():
        parsed.add_argument("--events", action="store_true", help="a JSON object a line")
    return parser.parse_args(argv)


def token(given: argparse.Namespace) -> str:
    """Read the token from standard input or the secret file; neither shows in a process list or in `docker inspect`.

    Raises RefusedError.
    """
    if given.token_on_stdin:
        return sys.stdin.readline().strip()
    try:
        words = SECRETS[given.source].read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError(
            f"the file of {FILES[given.source]} cannot be read by user 1000, which pulls: {error}"
        ) from None
    return words[0] if words else ""


def pull(given: argparse.Namespace, teller: Teller) -> int:
    """Return 0 when the whole model is in the volume, 1 after one line that says why not."""
    trust(AUTHORITIES)
    wish = Wish(
        given.source, given.model, given.revision,
        for_start=given.for_start, update=given.update, unhashed=given.unhashed,
    )  # fmt: skip
    store = Store(given.model)
    secret = ""

    def connect(scratch: Path) -> "Hub":
        nonlocal secret
        # Only now: a start of a whole model needs none, whoever may read it.
        secret = token(given)
        return hub(given.source, secret, scratch)

    try:
        with tempfile.TemporaryDirectory() as scratch:
            found = Pull(wish, store, teller, lambda: connect(Path(scratch)), Limit(given.limit_rate))
            found.run(lambda: datetime.now(UTC).isoformat(timespec="seconds"))
        if given.for_start:
            store.touch()
    except Exception as error:  # noqa: BLE001 (the clients raise errors of many libraries; each ends as one line)
        reason = explain(error, given.source, given.model, given.revision)
        reason = reason.replace(secret, "***") if secret else reason
        teller.say("error", f"could not pull {given.model} ({given.revision}): {reason}")
        return 1
    return 0


def hub(source: str, secret: str, scratch: Path) -> "Hub":
    """Open the client of a hub; importing it takes half a second, which a model that is whole does not need."""
    from weights import hubs

    return hubs.ModelScope(secret, scratch) if source == "modelscope" else hubs.HuggingFace(secret, scratch)


def main(argv: list[str]) -> int:
    """Return 0, or 1 after one line that says why not."""
    # Nothing has to be put in order: a pull that is killed goes on all the same.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    given = arguments(argv)
    teller = Teller(events=given.events)
    if given.action == "pull":
        return pull(given, teller)
    try:
        if given.action == "list":
            print(json.dumps(care.listed(given.models)))
            return 0
        store = Store(given.model)
        return care.verify(store, teller, time.monotonic) if given.action == "verify" else care.remove(store, teller)
    except OSError as error:
        of = "the weights" if given.action == "list" else given.model
        teller.say("error", f"{of}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
