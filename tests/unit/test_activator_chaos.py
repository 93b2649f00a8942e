"""Anything at any moment, by chance: no never is broken, and everybody gets an answer. TANDEM_EXAMPLES tries more."""

import asyncio
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activator.docker import DockerError, Happening
from orchestrator.activator.driver import Driver
from orchestrator.activator.gpus import Card, Process
from orchestrator.switch.world import Forward
from tests.unit.activator_strict import Strict
from tests.unit.activator_world import GIB, Server, card, driving, play
from tests.unit.test_activator_driver import ask, killed, told

EXAMPLES = int(os.environ.get("TANDEM_EXAMPLES", "20"))
ACTIONS = 25


class Chaos:
    """One sequence of things that happen; did tells them."""

    def __init__(self, world: Strict, seed: int) -> None:
        self.world, self.rng = world, random.Random(seed)
        self.did: list[str] = []
        self.tickets: list[Any] = []
        self.streams: list[asyncio.Future[Any]] = []
        self.dying: list[asyncio.Future[None]] = []
        self.driver: Driver
        self.task: asyncio.Task[None]
        # With 24 GiB there is no room for sleepers.
        self.total = self.rng.choice([24, 80])
        world.cards = self.free()

    def free(self, *holders: Process) -> dict[int, Card]:
        """The GPUs, with others' programs on the first."""
        return {0: card(0, *holders, total=self.total), 1: card(1, total=self.total)}

    async def play(self) -> None:
        self.driver, self.task = driving(self.world)
        for _ in range(ACTIONS):
            name = self.rng.choice([name for name in dir(Chaos) if name.startswith("do_")])
            model = self.rng.choice(list(self.world.models))
            self.did.append(f"{self.world.clock.now:.2f} {name.removeprefix('do_')} {model}")
            await getattr(self, name)(model)
            await self.world.clock.passes(self.rng.choice([0, 0.05, 0.3, 1, 4]))
            self.look()
        await self.settle()

    def look(self) -> None:
        """Hold what is now against what must never be."""
        assert self.world.faults == []
        up = self.world.open()
        assert not {"a", "b"} <= up, "two on the same memory"
        for ticket in self.tickets:
            if (
                ticket.outcome.done()
                and not ticket.outcome.cancelled()
                and isinstance(ticket.outcome.result(), Forward)
            ):
                ticket.close()

    async def settle(self) -> None:
        """Leave everything in peace, and see that everybody got an answer."""
        self.world.away, self.world.cards = False, self.free()
        for server in self.world.at.values():
            server.hangs = False
            server.faults.clear()
        waiting = [ticket for ticket in self.tickets if not ticket.outcome.done()]
        for _ in range(100):
            await self.world.clock.passes(1)
            self.look()
            if all(each.outcome.done() for each in waiting) and all(each.done() for each in self.streams):
                break
        assert all(each.outcome.done() for each in waiting), "a request was never answered"
        assert all(each.done() for each in self.streams), "who asked for a model was never told"
        await self.world.clock.passes(5)
        for model in self.world.open():
            assert self.world.awake(model), f"{model} is open, and is not awake"
        ticket = ask(self.driver, "a")
        await self.world.clock.until(ticket.outcome.done, 400)

    # --- what may happen ----------------------------------------------------------------------------------------------

    async def do_ask(self, model: str) -> None:
        self.tickets.append(ask(self.driver, model))

    async def do_ask_again(self, model: str) -> None:
        self.tickets.append(ask(self.driver, model, unreachable=True))

    async def do_leave(self, _: str) -> None:
        for ticket in self.rng.sample(self.tickets, len(self.tickets) // 2):
            ticket.close()

    async def do_up(self, model: str) -> None:
        self.streams.append(asyncio.ensure_future(told(self.driver.up(model, "up"))))

    async def do_down(self, model: str) -> None:
        self.streams.append(asyncio.ensure_future(told(self.driver.down(model, "down"))))

    async def do_sleep(self, model: str) -> None:
        self.streams.append(asyncio.ensure_future(told(self.driver.sleep(model, "sleep"))))

    async def do_take_back(self, model: str) -> None:
        self.driver.take_back(model)

    async def do_die(self, model: str) -> None:
        if self.world.at[model].status == "running":
            self.world.dies(model, self.rng.choice([1, 137]), oom=self.rng.random() < 0.2)

    async def do_start_by_hand(self, model: str) -> None:
        if not self.world.away and self.world.at[model].status != "running":
            with suppress(DockerError):
                await self.world.by_hand(model, "start")

    async def do_stop_by_hand(self, model: str) -> None:
        if not self.world.away and self.world.at[model].status == "running":
            await self.world.by_hand(model, "stop")

    async def do_term(self, model: str) -> None:
        if not self.world.away and self.world.at[model].status == "running":
            self.world.tell(Happening("kill", model, signal=15))
            self.dying.append(asyncio.ensure_future(self.ends(model, self.world.at[model].started)))

    async def ends(self, model: str, started: float) -> None:
        """A server that was told to end takes its time."""
        await self.world.clock.pause(3)
        if self.world.at[model].status == "running" and self.world.at[model].started == started:
            self.world.dies(model, self.rng.choice([1, 143]))

    async def do_hang(self, model: str) -> None:
        self.world.at[model].hangs = self.world.at[model].status != "running" and not self.world.at[model].hangs

    async def do_fault(self, model: str) -> None:
        self.world.at[model].faults[self.rng.choice(["start", "prove", "sleep", "wake"])] = "broken"

    async def do_greedy(self, model: str) -> None:
        self.world.at[model].greedy = not self.world.at[model].greedy

    async def do_clock(self, _: str) -> None:
        self.world.clock.set += self.rng.choice([-3600, 60, 86400])

    async def do_remove(self, model: str) -> None:
        if not self.world.away:
            if self.world.at[model].status == "running":
                self.world.dies(model, 137)
            self.world.at[model] = Server()
            self.world.let_in.pop(model, None)
            self.world.tell(Happening("destroy", model))

    async def do_silence(self, _: str) -> None:
        listeners, self.world.listeners = self.world.listeners, []
        for queue in listeners:
            queue.put_nowait(None)

    async def do_daemon(self, _: str) -> None:
        if self.world.away:
            self.world.away = False
        else:
            self.world.proven.clear()
            self.world.daemon_goes()

    async def do_router(self, _: str) -> None:
        self.world.routed = None if self.world.routed == {} else {}

    async def do_memory(self, _: str) -> None:
        took = Process(4242, "blender", 20 * GIB, "")
        taken = self.world.cards and self.world.cards[0].processes
        self.world.cards = self.free(*([] if taken else [took]))

    async def do_kill(self, _: str) -> None:
        for stream in self.streams:
            stream.cancel()
        await asyncio.gather(*self.streams, return_exceptions=True)
        self.tickets, self.streams = [], []
        await killed(self.world, self.task)
        self.driver, self.task = driving(self.world)


@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_chaos(tmp_path: Path, seed: int) -> None:
    chaos = Chaos(Strict(tmp_path), seed)
    try:
        play(chaos.play)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *chaos.did])) from error
