"""A gateway process: the real journal, shipper, meter, conductor and relays, wired as in the application."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
from world.client import Client, End
from world.loop import Process
from world.substitutes import TIME

from penstock.access.keyring import Principal
from penstock.admission.room import Overloaded
from penstock.routing.directory import Directory, NoEngine
from penstock.serving.call import Call, Surface, UsageView
from penstock.serving.conduct import Conductor, EngineFailed, EngineRefused, MeteringFailed
from penstock.serving.meter import Meter
from penstock.serving.relay import Patience
from penstock_base import ids
from penstock_billing.journal import Journal
from penstock_billing.record import UsageRecord
from penstock_billing.shipper import Shipper
from penstock_engines.registry import Registered

if TYPE_CHECKING:
    from world.simulation import Host, Simulation

REFUSALS = (NoEngine, Overloaded, EngineRefused, EngineFailed, MeteringFailed)
"""What the edge puts into words."""


class Gateway:
    """One life of one gateway."""

    def __init__(self, world: Simulation, host: Host, name: str) -> None:
        self.world = world
        self.process = Process(name, host)
        self.process.at_death.append(self._gone)
        self.stopping = asyncio.Event()
        self.ready = False
        self.requests: dict[asyncio.Task[None], Client] = {}
        self.journal: Journal
        self.shipper: Shipper
        self.failed_to_start = False
        world.loop.spawn(self.process, self._live())

    def _gone(self) -> None:
        """The kernel cleans up behind it."""
        self.ready = False
        self.world.disks.close_all_of(self.process)
        for client in self.requests.values():
            client.broken()

    async def _live(self) -> None:
        world, options = self.world, self.world.plan.options
        try:
            self.journal = Journal(
                self.process.host.folder, part_bytes=options.part_bytes, reserve_bytes=options.reserve_bytes
            )
        except Exception:
            # A full or failing disk: the parent tries again.
            self.process.kill()
            return
        self.shipper = Shipper(
            "simulated", self.process.host.folder, self.journal, keep=timedelta(seconds=options.keep_s)
        )
        self.directory = Directory()
        self.directory.update(
            [
                Registered(engine.name, "sim/chat", "ready", engine.socket, 8, None)  # type: ignore[arg-type]
                for engine in world.engines
            ]
        )
        self.conductor = Conductor(
            self.directory, Meter(self.journal), Patience(options.first_byte_s, options.stall_s)
        )
        loops = [self._guarded(self.journal.run()), self._guarded(self.shipper.run())]
        tasks = [asyncio.create_task(loop) for loop in loops]
        self.ready = True
        await self.stopping.wait()
        self.ready = False
        await self._drain(options.grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            self.journal.close()
        except Exception:
            world.say(f"{self.process} could not close its journal")
        await self.shipper.drain(5.0)
        await self.shipper.close()
        self.directory.close()
        world.note_shipper(self)
        self.process.kill()

    async def _drain(self, grace_s: float) -> None:
        """What the server does when told to stop: let requests end, for a while."""
        if self.requests:
            await asyncio.wait(list(self.requests), timeout=grace_s)
        for task in list(self.requests):
            task.cancel()
        if self.requests:
            await asyncio.wait(list(self.requests))

    async def _guarded(self, loop: Coroutine[Any, Any, None]) -> None:
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.world.say(f"{self.process}: a loop ended, so it stops: {error!r}")
            self.stopping.set()

    def take(self, client: Client) -> None:
        """A client's request arrives."""
        task = self.world.loop.spawn(self.process, self._answer(client))
        self.requests[task] = client
        task.add_done_callback(lambda done: self.requests.pop(done, None))

    async def _answer(self, client: Client) -> None:
        asked = client.asked
        event_id = ids.uuid7_bytes()
        request_id = client.request_id = f"req_{event_id.hex()}"
        self.world.begin(client, self)
        try:
            if not self.journal.healthy:
                client.settle(End.REFUSED, "the journal is not healthy")
                return
            price = self.world.prices.current(asked.model)
            if price is None:
                client.settle(End.REFUSED, "no price")
                return
            self.world.admitted[request_id] = price.id
            call = Call(
                event_id=event_id,
                request_id=request_id,
                client_request_id=None,
                surface=Surface.CHAT,
                principal=Principal(asked.organisation_id, 1, f"key_{asked.organisation_id}"),
                card=SimpleNamespace(id=asked.model),  # type: ignore[arg-type]
                price=price,
                body=msgspec.json.encode(asked.ask),
                streamed=asked.ask.stream,
                usage_view=UsageView[asked.usage_view],
                prompts=1,
                n=asked.ask.n,
                started_ns=TIME.perf_counter_ns(),
                on_settled=self._settled,
            )
            await self.conductor.run(call, client.receive, client.send, [])
        except REFUSALS as refusal:
            client.settle(End.FAILED, type(refusal).__name__)
        except asyncio.CancelledError:
            client.settle(End.BROKEN, "the gateway stopped")
            raise
        except Exception as error:
            client.settle(End.FAILED, repr(error))
            self.world.problem(f"{request_id}: unforeseen {error!r}")
        else:
            if client.end is End.OPEN:
                self.world.problem(f"{request_id} was answered without an end")

    def _settled(self, record: UsageRecord) -> None:
        self.world.settled(self, record)
