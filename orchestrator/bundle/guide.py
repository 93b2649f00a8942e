"""README.txt of a bundle: what to run on the other machine. Pure."""

from collections.abc import Sequence

_TEXT = """\
Everything that Tandem needs on a machine with no network.

The machine needs Docker Engine 25 or newer with Compose 2.24 or newer, and venv
with one of these Pythons: {pythons}. For models on GPUs it needs
NVIDIA's driver and its Container Toolkit too. Then, with DIR for the place of
this folder there:

  tar -xf DIR/tandem.tar && cd tandem
  scripts/setup --offline DIR
  .venv/bin/python -m orchestrator bundle load DIR
  .venv/bin/python -m orchestrator up {name}

`bundle load` checks every file against manifest.json before it loads the first.
It may be interrupted and run again.

This bundle holds: {names}. docs/offline.md in tandem.tar says more.
"""


def text(profiles: Sequence[str], pythons: Sequence[str]) -> str:
    """Write the text for a bundle of these profiles, with packages for these releases of Python."""
    return _TEXT.format(name=profiles[0], names=", ".join(profiles), pythons=", ".join(pythons))
