"""Looks after the weights that are there: lists them, hashes them again, removes them."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from weights import hashes, manifest
from weights.checking import HASHERS
from weights.meter import Progress, Teller, Ticker, amount
from weights.store import OWN, ROOT, Store, bytes_in


def listed(models: Iterable[str], root: Path = ROOT) -> dict[str, Any]:
    """Give each model's state and bytes, those of others that lie there, and the bytes that are free.

    A state is complete, partial, pulling (a process is at it), unchecked (a folder that nobody pulled) or missing.
    """
    asked = list(models)
    others = sorted(found for found in _names(root) | _names(root / OWN / "pulling") if found not in asked)
    return {
        "models": {model: _row(Store(model, root)) for model in asked},
        "others": {model: _row(Store(model, root)) for model in others},
        "free": Store("", root).free(),
    }


def _names(root: Path) -> set[str]:
    return {
        f"{folder.parent.name}/{folder.name}"
        for folder in root.glob("*/*")
        if folder.is_dir() and not folder.parent.name.startswith(".")
    }


def _row(store: Store) -> dict[str, Any]:
    whole, state = store.whole(), store.state()
    known = whole or state
    size = known.size if known else 0
    have, aside = size, 0
    if whole is not None:
        word = "complete"
        aside = bytes_in(store.aside)
    elif state is not None:
        word = "pulling" if store.busy else "partial"
        have = sum(store.present(name, file) for name, file in state.files.items())
    else:
        have = bytes_in(store.final) + bytes_in(store.aside)
        word = "unchecked" if have else "pulling" if store.busy else "missing"
    return {
        "state": word,
        "bytes": have,
        "aside": aside,
        "total": size or None,
        "source": known.source if known else None,
        "revision": known.revision if known else None,
        "resolved": (known.resolved or None) if known else None,
        "pulled": (known.pulled or None) if known else None,
        "used": store.used(),
    }


def verify(store: Store, teller: Teller, clock: Callable[[], float]) -> int:
    """Hash a whole model again; return 1 when a file is not what was pulled, and serve none of it until it is.

    `pull` then fetches that file alone.
    """
    with store.lock() as idle:
        if not idle:
            teller.say("error", f"a pull of {store.model} is under way: it checks every file itself")
            return 1
        model = store.whole()
        if model is None:
            teller.say("error", f"{store.model} is not complete: pull it first, which checks every file")
            return 1
        damaged = _damaged(store, model, teller, clock)
        if not damaged:
            teller.say("verified", f"{store.model} is as it was pulled: {len(model.files)} files, {amount(model.size)}")
            return 0
        _give_up(store, model, damaged)
    names = f"{damaged[0]} and {len(damaged) - 1} more" if len(damaged) > 1 else damaged[0]
    teller.say(
        "error", f"{store.model} is damaged: {names}. It is not served any more; pulling it again fetches "
        f"{'that file' if len(damaged) == 1 else 'those files'} alone", files=damaged,
    )  # fmt: skip
    return 1


def _give_up(store: Store, model: manifest.Model, damaged: list[str]) -> None:
    """Take its name from a model, and keep for the next pull what is right of it."""

    def save(known: manifest.Model) -> None:
        good = {name: digest for name, digest in known.checked.items() if name not in damaged}
        store.save(replace(known, checked=good))

    if not store.aside.exists():
        store.set_aside()
        save(model)
        return
    # An update that did not end: it goes on, and has files in common with what is damaged.
    state = store.state()
    if state is not None:
        save(state)
    (store.final / manifest.NAME).unlink(missing_ok=True)


def _damaged(store: Store, model: manifest.Model, teller: Teller, clock: Callable[[], float]) -> list[str]:
    seen = Progress({name: file.size for name, file in model.files.items()}, {}, clock)

    def agrees(name: str) -> bool:
        file = replace(model.files[name], sha256=model.checked[name])
        return hashes.followed(store.final / name, file, lambda read: seen.at(name, read)) is not None

    with Ticker(teller, store.model, "checking", seen.snapshot), ThreadPoolExecutor(HASHERS) as pool:
        return [name for name, right in zip(model.files, pool.map(agrees, model.files), strict=True) if not right]


def remove(store: Store, teller: Teller) -> int:
    """Remove a model, finished or not."""
    with store.lock() as idle:
        if not idle:
            teller.say("error", f"a pull of {store.model} is under way: stop it first")
            return 1
        if not any(map(os.path.lexists, (store.final, store.aside))):
            teller.say("error", f"{store.model} is not there")
            return 1
        freed = store.remove()
    teller.say("removed", f"removed {store.model}: {amount(freed)} are free again", bytes=freed)
    return 0
