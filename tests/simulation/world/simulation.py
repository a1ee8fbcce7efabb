"""One run: a plan is played over virtual time, everything recovers, and then the accounts must be right."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from world import disk, statements, substitutes
from world.client import Client, End
from world.disk import Disk, Disks, Place
from world.engine import Engine, Job
from world.gateway import Gateway
from world.loop import OUTSIDE, Process, Quiet, VirtualLoop
from world.plan import Fault, Plan
from world.postgres import Server
from world.substitutes import EPOCH, RUN

from penstock_billing import shipper
from penstock_billing.journal import SYNC_INTERVAL_S
from penstock_billing.prices import PriceBook, PriceVersion
from penstock_billing.record import UsageRecord
from penstock_billing.shipper import Shipper

assert statements

THREAD_S = (0.0005, 0.02)
"""How long a thread's work takes: forcing data to the disk, reading a batch."""
POWER_CUT_TAKES_S = SYNC_INTERVAL_S + 2 * THREAD_S[1] + 0.01
"""What a power cut may take, told by how long ago it was written: one round of forcing and the next."""
RECOVERY_S = 300.0
"""By then everything has recovered, or never will."""


class Host:
    """A machine: a disk, a clock, and gateways with whoever starts them again."""

    def __init__(self, world: Simulation, name: str) -> None:
        self.name = name
        self.disk = world.disks.by_name[name] = Disk(name, random.Random(f"{world.plan.seed} disk {name}"))
        self.folder: Any = Place(f"{disk.ROOT}/{name}/journal")
        self.clock_offset_s = 0.0
        self.gateways: list[Gateway | None] = []
        self.down = False
        self.others: list[Process] = []


class Simulation:
    """The world of one run."""

    def __init__(self, plan: Plan, *, tracing: bool = False) -> None:
        self.plan = plan
        self.tracing = tracing
        self.trace: list[str] = []
        self.problems: list[str] = []
        """What must not be."""
        self.rng = random.Random(f"{plan.seed} world")
        self.loop = VirtualLoop()
        self.disks = Disks(self.loop)
        self.begun = EPOCH.replace(hour=0, minute=0) + timedelta(minutes=plan.options.begin_minute)
        RUN.loop, RUN.rng, RUN.begun = self.loop, random.Random(f"{plan.seed} code"), self.begun
        disk.DISKS[:] = [self.disks]
        thread_rng = random.Random(f"{plan.seed} threads")
        self.loop.thread_delay_s = lambda: thread_rng.uniform(*THREAD_S)
        self.database = Server(self.loop, random.Random(f"{plan.seed} database"), substitutes.database_now)
        RUN.database = self.database
        self.prices = PriceBook()
        self.price_versions = [
            PriceVersion(1, "sim/chat", 150_000, 75_000, 600_000, EPOCH - timedelta(days=30)),
            PriceVersion(2, "sim/chat", 18_750, 9_375, 33_333, self.begun + timedelta(seconds=3)),
        ]
        self.prices.fill(self.price_versions)
        RUN.prices = self.prices
        self.made: dict[str, list[Job]] = {}
        self.engines = [
            Engine(self.loop, random.Random(f"{plan.seed} engine {number}"), f"engine-{number}", self.made)
            for number in range(plan.options.engines)
        ]
        self.hosts = [Host(self, f"h{number}") for number in range(plan.options.hosts)]
        self.clients: list[Client] = []
        self.by_request: dict[str, tuple[Client, Gateway]] = {}
        self.records: dict[str, tuple[float, UsageRecord, Host]] = {}
        """What was in a journal, when, and on which host, by request."""
        self.killed_with: dict[str, str] = {}
        """Requests that were under way in a process that was killed, and how."""
        self.may_be_lost: set[str] = set()
        """Requests whose records a power cut took within its bound."""
        self.admitted: dict[str, int] = {}
        self.restored = False
        self.backup: Any = None
        self.conflicts = 0
        self.lives = 0
        self.ending = False
        self.killed_at_s: dict[Gateway, float] = {}
        self.kill_at_append: set[Gateway] = set()

    # What the run is told.

    def say(self, text: str) -> None:
        """Add a line to the trace, where one is wanted."""
        if self.tracing:
            self.trace.append(f"{self.loop.time():10.4f}  {text}")

    def problem(self, text: str) -> None:
        """Something that must not be."""
        self.say(f"PROBLEM {text}")
        self.problems.append(text)

    def begin(self, client: Client, gateway: Gateway) -> None:
        """A request was taken."""
        self.by_request[client.request_id] = (client, gateway)
        if self.tracing:
            self.say(f"{gateway.process} takes {client.request_id[-6:]} (request {client.asked.number})")

    def settled(self, gateway: Gateway, record: UsageRecord) -> None:
        """A record is in the journal, its response has not ended."""
        if record.request_id in self.records:
            self.problem(f"{record.request_id} is settled twice")
        self.records[record.request_id] = (self.loop.time(), record, gateway.process.host)
        if self.tracing:
            self.say(
                f"{gateway.process} settles {record.request_id[-6:]}: {record.outcome}, "
                f"{record.input_tokens}+{record.output_tokens} tokens, {record.cost_nano_usd} n$"
            )
        if gateway in self.kill_at_append:
            self.kill_at_append.discard(gateway)
            self.kill(gateway, "killed between journal and last byte")

    def note_shipper(self, gateway: Gateway) -> None:
        """What a shipper counted until its end."""
        self.conflicts += gateway.shipper.state.conflicts

    def admitted_price(self, client: Client) -> int | None:
        """The price version that was in force when a request was let in."""
        return self.admitted.get(client.request_id)

    @property
    def engine_trouble(self) -> bool:
        """Whether an engine died or stalled: then the last count seen on a stream may have to stand."""
        return any(each.kind in {"engine_dies", "engine_stalls"} for each in self.plan.faults)

    @property
    def disk_trouble(self) -> bool:
        """Whether a disk refused: then a record may not be written, and its response fails."""
        return any(each.kind in {"disk_full", "disk_fails"} for each in self.plan.faults)

    # The run.

    def run(self) -> list[str]:
        """Play the plan; returns what was wrong, [] when nothing was."""
        kept = shipper.BATCH_FRAMES
        shipper.BATCH_FRAMES = self.plan.options.batch_frames
        try:
            OUTSIDE.copy().run(self._play)
        finally:
            shipper.BATCH_FRAMES = kept
            for process in self._processes():
                process.dead = True
            self.loop.finish()
        self.problems += self.loop.problems
        return self.problems

    def _processes(self) -> list[Process]:
        found = [each for host in self.hosts for each in host.others]
        return found + [each.process for host in self.hosts for each in host.gateways if each is not None]

    def _play(self) -> None:
        from world import check

        loop, plan = self.loop, self.plan
        for host in self.hosts:
            host.gateways = [None] * plan.options.gateways
            for place in range(plan.options.gateways):
                self._start(host, place)
        for asked in plan.requests:
            loop.outside(asked.at_s, self._arrive, asked)
        for fault in plan.faults:
            loop.outside(fault.at_s, self._strike, fault)
        last_s = max([0.0, *[each.at_s for each in plan.requests], *[each.at_s for each in plan.faults]])
        try:
            loop.run_while(lambda: True, last_s + 0.001)
            self._heal()
            self._await("every client has an end", lambda: all(c.end is not End.OPEN for c in self.clients))
            self._await("a gateway lives on every host", self._all_ready)
            self._await("every journal is shipped to its end", lambda: check.all_shipped(self), 0.5)
            self.ending = True
            for host in self.hosts:
                for gateway in host.gateways:
                    if gateway is not None:
                        gateway.stopping.set()
            self._await("every gateway ends when told", lambda: all(p.dead for p in self._processes()))
        except Quiet:
            return
        check.check(self)

    def _await(self, what: str, done: Any, every_s: float = 0.02) -> None:
        """Let time pass until something holds; that it never does is a failure (liveness)."""
        begun_s, asked_s = self.loop.time(), -1.0

        def wanted() -> bool:
            nonlocal asked_s
            if self.loop.time() - asked_s < every_s:
                return True
            asked_s = self.loop.time()
            return not done()

        try:
            self.loop.run_while(wanted, begun_s + RECOVERY_S)
        except Quiet:
            pass
        if not done():
            self.problem(f"never: {what}")
            raise Quiet

    def _all_ready(self) -> bool:
        return all(any(g is not None and g.ready for g in host.gateways) for host in self.hosts)

    def _start(self, host: Host, place: int) -> None:
        """Start a gateway, and start another when it is gone."""
        now = host.gateways[place]
        if host.down or self.ending or (now is not None and not now.process.dead):
            return
        self.lives += 1
        gateway = host.gateways[place] = Gateway(self, host, f"{host.name}/gateway-{self.lives}")
        self.say(f"{gateway.process} starts")

        def again() -> None:
            host.others.append(gateway.process)
            self.loop.outside(self.rng.uniform(0.05, 1.0), self._start, host, place)

        gateway.process.at_death.append(again)

    def _arrive(self, asked: Any) -> None:
        client = Client(self.loop, asked)
        self.clients.append(client)
        ready = [g for host in self.hosts for g in host.gateways if g is not None and g.ready]
        if not ready:
            client.settle(End.REFUSED, "no gateway")
            return
        ready[asked.number % len(ready)].take(client)
        if asked.leave_after_s is not None:
            self.loop.outside(asked.leave_after_s, client.leave)

    # What goes wrong.

    def _gateway(self, number: int) -> Gateway | None:
        living = [g for host in self.hosts for g in host.gateways if g is not None and not g.process.dead]
        return living[number % len(living)] if living else None

    def kill(self, gateway: Gateway, how: str = "kill -9") -> None:
        """SIGKILL, between two instructions."""
        self.say(f"{how}: {gateway.process}")
        for client in gateway.requests.values():
            if client.request_id not in self.records:
                self.killed_with[client.request_id] = how
        self.killed_at_s[gateway] = self.loop.time()
        if gateway.ready:
            self.note_shipper(gateway)
        gateway.process.kill()

    def _strike(self, fault: Fault) -> None:
        self.say(f"fault {fault.kind} {fault.target} for {fault.for_s} s ({fault.amount})")
        getattr(self, f"_{fault.kind}")(fault)

    def _kill_gateway(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            self.kill(gateway)

    def _kill_at_append(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            self.kill_at_append.add(gateway)

    def _stop_gateway(self, fault: Fault) -> None:
        if (gateway := self._gateway(fault.target)) is not None:
            gateway.stopping.set()

    def _second_shipper(self, fault: Fault) -> None:
        """Another process that ships a host's journals, as an operator may start."""
        host = self.hosts[fault.target % len(self.hosts)]
        if host.down:
            return
        process = Process(f"{host.name}/shipper", host)
        process.at_death.append(lambda: self.disks.close_all_of(process))
        host.others.append(process)

        async def ship() -> None:
            other = Shipper("simulated", host.folder, keep=timedelta(seconds=self.plan.options.keep_s))
            await other.run()

        self.loop.spawn(process, ship())
        self.loop.outside(fault.for_s + 1.0, process.kill)

    def _power_cut(self, fault: Fault) -> None:
        host = self.hosts[fault.target % len(self.hosts)]
        if host.down:
            return
        self.say(f"power cut: {host.name}")
        host.down = True
        for gateway in host.gateways:
            if gateway is not None and not gateway.process.dead:
                self.kill(gateway, "power cut")
        for process in host.others:
            process.kill()
        host.disk.power_cut()
        self._note_losses(host)
        self.loop.outside(min(fault.for_s, 5.0), self._power_back, host)

    def _note_losses(self, host: Host) -> None:
        from world import check

        kept = check.journalled(host) | check.events(self).keys()
        for request_id, (settled_at_s, _, where) in self.records.items():
            if where is host and request_id not in kept and request_id not in self.may_be_lost:
                writer = self.by_request[request_id][1]
                age_s = min(self.loop.time(), self.killed_at_s.get(writer, self.loop.time())) - settled_at_s
                if age_s > POWER_CUT_TAKES_S and not host.disk.failing:
                    self.problem(
                        f"{request_id} was journalled {age_s:.3f} s before the power cut, and is lost"
                    )
                self.may_be_lost.add(request_id)

    def _power_back(self, host: Host) -> None:
        host.down = False
        for place in range(len(host.gateways)):
            gateway = host.gateways[place]
            if gateway is None or gateway.process.dead:
                self._start(host, place)

    def _disk_full(self, fault: Fault) -> None:
        host = self.hosts[fault.target % len(self.hosts)]
        host.disk.full = True

        def room() -> None:
            host.disk.full = False

        self.loop.outside(fault.for_s, room)

    def _disk_fails(self, fault: Fault) -> None:
        host = self.hosts[fault.target % len(self.hosts)]
        host.disk.failing = True

        def repaired() -> None:
            host.disk.failing = False

        self.loop.outside(fault.for_s, repaired)

    def _clock_jump(self, fault: Fault) -> None:
        self.hosts[fault.target % len(self.hosts)].clock_offset_s += fault.amount

    def _database_away(self, fault: Fault) -> None:
        self.database.stop()
        self.loop.outside(fault.for_s, self.database.start)

    def _database_frozen(self, fault: Fault) -> None:
        self.database.freeze()
        self.loop.outside(fault.for_s, self.database.thaw)

    def _database_slow(self, fault: Fault) -> None:
        usual_s = self.database.latency_s
        self.database.latency_s = (fault.amount / 10, fault.amount)

        def usual() -> None:
            self.database.latency_s = usual_s

        self.loop.outside(fault.for_s, usual)

    def _cut_connections(self, fault: Fault) -> None:
        self.database.cut_all()

    def _cut_after_commit(self, fault: Fault) -> None:
        self.database.cut_after_commit += int(fault.amount)

    def _cut_before_commit(self, fault: Fault) -> None:
        self.database.cut_before_commit += int(fault.amount)

    def _restore(self, fault: Fault) -> None:
        """A backup is made now, and the database is set back to it later."""
        if self.plan.options.keep_s < RECOVERY_S:
            return
        backup = self.database.backup()

        def restored() -> None:
            self.say("the database is restored from a backup")
            self.restored = True
            self.database.restore(backup)

        self.loop.outside(fault.for_s, restored)

    def _engine_dies(self, fault: Fault) -> None:
        engine = self.engines[fault.target % len(self.engines)]
        engine.die()
        self.loop.outside(fault.for_s, engine.start)

    def _engine_stalls(self, fault: Fault) -> None:
        engine = self.engines[fault.target % len(self.engines)]
        engine.stalled = True

        def goes_on() -> None:
            engine.stalled = False

        self.loop.outside(fault.for_s, goes_on)

    def _heal(self) -> None:
        """Whatever is still wrong ends: faults with an end of their own end, the others here."""
        self.database.cut_after_commit = self.database.cut_before_commit = 0
        self.kill_at_append.clear()
