"""The commands about the keys that clients send: reads arguments, changes the file, says what came of it."""

import json
import os
import secrets
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import session

if TYPE_CHECKING:
    from orchestrator.project import Project

Name = Annotated[str, typer.Argument(metavar="NAME", help="Who has the key; logs and metrics name it.")]
app = typer.Typer(
    help="Make, list or remove the keys that clients send. With none, none is asked for.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip
SOON = "the router takes it up within two seconds, without a restart"


@app.command()
def add(
    context: typer.Context,
    name: Name,
    rate: Annotated[str, typer.Option(help="At most so many requests in a second, minute or hour: 60/m.")] = "",
    concurrent: Annotated[str, typer.Option(help="At most so many requests at once.")] = "",
) -> None:
    """Make a key and print it, this once."""
    from orchestrator import keyfile, keys
    from orchestrator.errors import TandemError

    whole = session.project(context)
    wrong = keys.fault(name, rate, concurrent)
    if wrong:
        raise TandemError(wrong)
    if any(key.name == name for key in whole.client_keys):
        raise TandemError(f"{name}: there is such a key already; 'keys remove {name}' takes it away")
    made = keys.Key(name, keys.PREFIX + secrets.token_urlsafe(32), rate, int(concurrent or 0))
    path, user = whole.keys_file, os.getuid()
    keyfile.write(path, keys.added(keyfile.read(path), made), user=user)
    print(made.key)
    session.say(f"{name}: {SOON}. It is shown this once; clients send it as their API key.")
    if not whole.client_keys:
        session.say("It is the first: from now on every request needs a key, but those for /health and /ready.")
    if keyfile.mode(user) & 0o004:
        session.say(f"The router is user {keyfile.ROUTER} and not you, so every user of this machine can read {path}.")


@app.command("list")
def list_keys(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Name the keys and their limits; never a key, only how it ends."""
    from orchestrator.report import table

    shown = [key.shown for key in session.project(context).client_keys]
    if as_json:
        print(json.dumps(shown))
        return
    if not shown:
        print("no keys: none is asked for. Make one: python -m orchestrator keys add NAME")
        return
    rows = [(str(k["name"]), str(k["rate"] or "-"), str(k["concurrent"] or "-"), f"...{k['ends']}") for k in shown]
    print("\n".join(table(("NAME", "RATE", "AT ONCE", "KEY"), rows)))


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Take a key away: who sends it is refused from then on."""
    from orchestrator import keyfile, keys
    from orchestrator.errors import TandemError

    whole = session.project(context)
    path = whole.keys_file
    left = keys.removed(keyfile.read(path), name, str(path))
    if len(whole.client_keys) == 1 and _needed(whole):
        raise TandemError(
            f"{name}: the last key: TANDEM_BIND={whole.settings.get('TANDEM_BIND')} lets other machines in, and none "
            "would be asked of them.\n  Add another first, or put into .env:  TANDEM_BIND_WITHOUT_KEY=yes"
        )
    keyfile.write(path, left, user=os.getuid())
    session.say(f"removed {name}; {SOON}")
    if len(whole.client_keys) == 1:
        session.say("It was the last: no key is asked for any more.")


def _needed(whole: "Project") -> bool:
    from orchestrator import reach

    settings = whole.settings
    return bool(
        reach.exposed(settings.get("TANDEM_BIND"), keys=False, said_twice=settings.get("TANDEM_BIND_WITHOUT_KEY"))
    )
