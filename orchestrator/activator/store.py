"""Owns /var/lib/tandem: what must outlive the activator. One JSON file per thing, replaced in one step."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.switch.world import Footprint

FOLDER = Path("/var/lib/tandem")

_log = logging.getLogger(__name__)


class Store:
    """Values by name. What cannot be read is set aside, and what cannot be written is said: neither ends a switch."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    def read(self, name: str) -> Any:
        """Give what was written under a name; None where there is nothing, or nothing that can be read."""
        path = self._folder / f"{name}.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self.set_aside(name, str(error))
            return None

    def set_aside(self, name: str, why: str) -> None:
        """Move a file that makes no sense out of the way, so that it can be looked at and is not read again."""
        path = self._folder / f"{name}.json"
        _log.warning("%s makes no sense (%s): set aside as %s.broken", path, why, path.name)
        try:
            path.replace(path.with_name(f"{path.name}.broken"))
        except OSError as error:
            _log.warning("%s cannot be set aside: %s", path, error)

    def write(self, name: str, value: Any) -> bool:
        """Keep a value, whole or not at all, also when the machine loses power meanwhile; whether it is kept."""
        path = self._folder / f"{name}.json"
        beside = path.with_name(f".{path.name}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with beside.open("w", encoding="utf-8") as file:
                json.dump(value, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            _log.warning("%s cannot be written: %s", path, error)
            return False
        return True


class Memory:
    """What the activator remembers, by its meaning."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # What stands under "wish", as far as this one put it there: want() comes with every event.
        self._wish: list[str] | None = None

    # --- the wish -------------------------------------------------------------------------------------------------

    def wanted(self) -> list[str]:
        """Name the models that were wanted up."""
        return [name for name in self._list("wish") if isinstance(name, str)]

    def want(self, models: list[str]) -> None:
        """Keep which models are wanted up."""
        if models == self._wish:
            return
        kept = models == self._store.read("wish") or self._store.write("wish", models)
        self._wish = list(models) if kept else None

    def under_way(self) -> str | None:
        """Name the model that a switch was bringing up; None where no switch was under way."""
        found = self._table("switch").get("target")
        return found if isinstance(found, str) else None

    def begin(self, target: str | None) -> None:
        """Keep what a switch brings up; None when it has ended."""
        self._store.write("switch", {"target": target})

    # --- containers -----------------------------------------------------------------------------------------------

    def run_of(self, model: str) -> str:
        """Give the StartedAt of the run of its container that the activator knows of; "" for none."""
        return str(self._table("runs").get(model, ""))

    def saw_run(self, model: str, started_at: str) -> None:
        """Keep that a run of a container is known: found again after a restart it is nobody's new wish."""
        runs = self._table("runs")
        if runs.get(model) != started_at:
            self._store.write("runs", runs | {model: started_at})

    def stood(self, model: str, started_at: str, state: str) -> float | None:
        """Give since when a model is in a state, in Unix seconds; None where it was not in it in this run."""
        found = self._table("since").get(model)
        if not isinstance(found, list) or len(found) != 3 or found[:2] != [started_at, state]:
            return None
        return float(found[2]) if isinstance(found[2], int | float) else None

    def stand(self, models: Mapping[str, tuple[str, str, float]]) -> None:
        """Keep in which run, in which state and since when the models are that are up."""
        self._store.write("since", models)

    def new_start(self, start: str) -> bool:
        """Whether this is another start of the machine, or of the stack, than at the last call."""
        before = self._store.read("start")
        self._store.write("start", start)
        return bool(before != start)

    # --- durations ------------------------------------------------------------------------------------------------

    def history(self) -> Any:
        """Give what history.py wrote."""
        return self._store.read("history")

    def keep_history(self, value: Any) -> None:
        """Keep what history.py wants kept."""
        self._store.write("history", value)

    def forget_history(self, why: str) -> None:
        """Set the history aside: it makes no sense."""
        self._store.set_aside("history", why)

    # --- sleep, by image ------------------------------------------------------------------------------------------

    def sleep_refused(self, model: str, image: str) -> str:
        """Say why the model's sleep is off with this image; "" when it is not."""
        return str(self._sleep(model, image).get("off", ""))

    def refuse_sleep(self, model: str, image: str, why: str) -> None:
        """Turn the model's sleep off until it has another image, or it is allowed again."""
        self._keep_sleep(model, image, {"off": why, "passed": 0})

    def allow_sleep(self, model: str, image: str, cycles: int) -> None:
        """Keep that the model passed a sleep test of so many cycles with this image: nothing stands against it now."""
        self._keep_sleep(model, image, {"off": "", "passed": cycles})

    def sleep_passed(self, model: str, image: str) -> int:
        """Give the cycles of the sleep test that the model passed with this image; 0 where it passed none."""
        found = self._sleep(model, image).get("passed")
        return found if isinstance(found, int) else 0

    def footprint(self, model: str, image: str) -> Footprint | None:
        """Give what the model was measured to keep while it sleeps."""
        found = self._sleep(model, image)
        gpu, host = found.get("gpu"), found.get("host")
        return Footprint(gpu, host) if isinstance(gpu, int) and isinstance(host, int) else None

    def measured(self, model: str, image: str, footprint: Footprint) -> None:
        """Keep what a sleeping model was measured to keep."""
        self._keep_sleep(model, image, {"gpu": footprint.gpu, "host": footprint.host})

    # --- awake, by image and claim ------------------------------------------------------------------------------------

    def awake(self, model: str, image: str, claim: float) -> tuple[int, bool]:
        """Give what the model was measured to hold of each GPU while awake, 0 where not, and whether it starts alone.

        claim is the share of each GPU that it takes: with another one it holds something else.
        """
        found = self._awake(model, image, claim)
        holds = found.get("holds")
        return holds if isinstance(holds, int) else 0, found.get("alone") is True

    def held(self, model: str, image: str, claim: float, holds: int) -> None:
        """Keep what the model was measured to hold of each GPU while awake."""
        self._keep_sleep(model, image, {"awake": {**self._awake(model, image, claim), "claim": claim, "holds": holds}})

    def starts_alone(self, model: str, image: str, claim: float) -> None:
        """Keep that the model starts where nobody sleeps on its GPUs, and ran out of memory where somebody did."""
        self._keep_sleep(model, image, {"awake": {**self._awake(model, image, claim), "claim": claim, "alone": True}})

    def _awake(self, model: str, image: str, claim: float) -> Mapping[str, Any]:
        found = self._sleep(model, image).get("awake")
        return found if isinstance(found, dict) and found.get("claim") == claim else {}

    def _sleep(self, model: str, image: str) -> Mapping[str, Any]:
        found = self._table("sleep").get(model)
        return found if isinstance(found, dict) and found.get("image") == image else {}

    def _keep_sleep(self, model: str, image: str, more: dict[str, Any]) -> None:
        kept = {**self._sleep(model, image), "image": image, **more}
        self._store.write("sleep", self._table("sleep") | {model: kept})

    def _table(self, name: str) -> dict[str, Any]:
        found = self._store.read(name)
        if found is not None and not isinstance(found, dict):
            self._store.set_aside(name, "should be a table")
        return found if isinstance(found, dict) else {}

    def _list(self, name: str) -> list[Any]:
        found = self._store.read(name)
        if found is not None and not isinstance(found, list):
            self._store.set_aside(name, "should be a list")
        return found if isinstance(found, list) else []
