"""What the stand-in servers saw happen: switches, and what must never happen. Pure but for reading the file."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]
# What no server may ever see, by the name of the event.
NEVER = {
    "asked-asleep": "a request was sent to a server that sleeps or is about to",
    "no-memory": "a server was started on memory that another held",
}


def read(folder: Path) -> list[Event]:
    """Read every event so far, the oldest first."""
    try:
        lines = (folder / "events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def switches(events: Iterable[Event]) -> Counter[str]:
    """Count how often a model came up: "start" (it loaded) or "wake"."""
    kinds = {"ready": "start", "awake": "wake"}
    return Counter(kinds[event["event"]] for event in events if event["event"] in kinds)


def direct(events: Iterable[Event], routers: Collection[str]) -> set[str]:
    """Name the requests that came to a server from one of the router's addresses, and not by way of the activator."""
    return {event["ident"] for event in events if event["event"] == "asked" and event["peer"] in routers}


def faults(events: Iterable[Event], excused: Collection[str] = ()) -> list[str]:
    """Say what happened that never may, and which answers a server was made to cut off.

    excused names models that were killed on purpose: their requests may be aborted.
    """
    found = []
    for event in events:
        name, kind = event["name"], event["event"]
        if kind in NEVER:
            found.append(f"{name}: {NEVER[kind]} ({event.get('ident') or event})")
        elif kind == "stopped" and event["running"] and name not in excused:
            found.append(f"{name}: was stopped with {event['running']} requests in flight")
        elif kind == "died" and name not in excused:
            found.append(f"{name}: died: {event['line']}")
    return found
