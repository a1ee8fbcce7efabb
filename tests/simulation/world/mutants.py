"""Known bugs, put into the tested code on purpose: a simulation that does not find them proves nothing.

A mutant replaces words in a function's source and runs the function so changed. When the words are not there
any more, the code has moved on and the mutant is to be written anew: an error says so.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import msgspec
from world.plan import plan


class Change(msgspec.Struct, frozen=True):
    """Words to be replaced in one function: `module:Class.function`."""

    function: str
    old: str
    new: str


class Mutant(msgspec.Struct, frozen=True):
    """One bug."""

    name: str
    changes: list[Change]
    needs: str = ""
    """The fault without which it does no harm: only worlds that have it are worth looking at."""

    def seeds(self, until: int) -> list[int]:
        """The seeds that may find it."""
        return [
            seed
            for seed in range(until)
            if not self.needs or any(each.kind == self.needs for each in plan(seed).faults)
        ]


WORLD = "__import__('world.substitutes', fromlist=['RUN']).RUN.world"
MEMORY = f"{WORLD}.loop.memory"
"""Where a bug may keep something between two calls of one run."""

MUTANTS = [
    Mutant(
        "the cursor is not advanced in the transaction that adds the events",
        [
            Change(
                "penstock_billing.shipping:ship",
                "        total = len(batch.rows) + len(batch.rejected)\n        if total:\n            await",
                "        total = len(batch.rows) + len(batch.rejected)\n    if total:\n            await",
            )
        ],
    ),
    Mutant(
        "the last byte leaves before the journal has the record",
        [
            Change(
                "penstock.serving.attempt:_end_stream",
                "    try:\n        outcome, _ = attempt.settle(",
                "    if outcome is Outcome.DONE:\n"
                '        last = {"type": "http.response.body", "body": relay.events.held}\n'
                "        await send(last)\n"
                "    try:\n        outcome, _ = attempt.settle(",
            )
        ],
    ),
    Mutant(
        "a shipper goes on where it remembers, not where the database stands",
        [
            Change(
                "penstock_billing.shipping:ship",
                'read_batch, path, cursor["shipped_bytes"]',
                f'read_batch, path, {MEMORY}.get((connection.name, path), cursor["shipped_bytes"])',
            ),
            Change(
                "penstock_billing.shipping:ship",
                "    return Shipment(",
                f"    {MEMORY}[connection.name, path] = batch.end\n    return Shipment(",
            ),
        ],
    ),
    Mutant(
        "a shipper goes on where it remembers, and events have no identity that a replay would meet",
        [
            Change(
                "penstock_billing.shipping:ship",
                'read_batch, path, cursor["shipped_bytes"]',
                f'read_batch, path, {MEMORY}.get((connection.name, path), cursor["shipped_bytes"])',
            ),
            Change(
                "penstock_billing.shipping:ship",
                "    return Shipment(",
                f"    {MEMORY}[connection.name, path] = batch.end\n    return Shipment(",
            ),
            Change(
                "world.statements:take_over",
                'if transaction.get("usage_event", identity) is not None:',
                "if (identity := (ended_at, row[0].bytes, transaction_id)) is None:",
            ),
        ],
    ),
    Mutant(
        "a torn tail is taken for a record",
        [
            Change(
                "penstock_billing.frames:frame_at",
                "return body if zlib.crc32(body) == checksum else None",
                "return body",
            )
        ],
        needs="power_cut_at_append",
    ),
    Mutant(
        "a living process's file is adopted",
        [
            Change("penstock_billing.adoption:Adoption.adopt", "if path == own or", "if"),
            Change("penstock_billing.adoption:Adoption.adopt", "if dead:", "if True:"),
        ],
        needs="second_shipper",
    ),
    Mutant(
        "the cost is rated at the price of now, not at the one fixed at admission",
        [
            Change(
                "penstock.serving.meter:_record",
                "call.price,",
                f"{WORLD}.prices.current(call.card.id),",
            )
        ],
    ),
    Mutant(
        "our own failures are charged what was generated",
        [Change("penstock.serving.meter:_record", "if end.outcome.billable", "if True")],
    ),
    Mutant(
        "a client that leaves pays what it was sent, not what the engine made",
        [
            Change(
                "penstock.serving.conduct:Conductor._run_on",
                "usage = await receipts.fetch(target.address, call.request_id)",
                "usage = None",
            )
        ],
    ),
    Mutant(
        "a client that leaves pays nothing",
        [
            Change(
                "penstock.serving.attempt:_end_stream",
                "    try:\n        outcome, _ = attempt.settle(",
                "    if outcome is Outcome.CLIENT_GONE:\n        return\n"
                "    try:\n        outcome, _ = attempt.settle(",
            )
        ],
    ),
    Mutant(
        "a request that broke off is settled once for each try",
        [
            Change(
                "penstock.serving.conduct:Conductor._run_on",
                "if ending is Ending.UNREACHED:\n",
                "if ending is Ending.UNREACHED:\n            attempt.settle(Outcome.ENGINE_FAILED, None)\n",
            )
        ],
    ),
    Mutant(
        "the disk is not forced before a power cut",
        [Change("penstock_billing.journal:Journal._sync_files", "os.fdatasync(self._file)", "pass")],
        needs="power_cut",
    ),
    Mutant(
        "a full disk swallows the record and the answer goes out",
        [
            Change(
                "penstock_billing.journal:Journal.append",
                "raise self._error(error) from error",
                "return",
            )
        ],
        needs="disk_fails",
    ),
    Mutant(
        "a new process holds credit before its journal is on the disk",
        [Change("penstock_billing.journal:Journal.__init__", "self._sync_files()", "pass")],
        needs="power_cut",
    ),
    Mutant(
        "what was noted of a stream is cleared before its final record is in the journal",
        [
            Change(
                "penstock.serving.meter:Meter.settle",
                "    try:\n        self._journal.append(record)",
                "    if self._progress is not None:\n        self._progress.end(call.event_id)\n"
                "    try:\n        self._journal.append(record)",
            )
        ],
        needs="kill_at_slot",
    ),
    Mutant(
        "what was noted of a stream counts although its final record is there",
        [
            Change(
                "penstock_billing.progress:recover",
                "noted.pop(record.decode(body).event_id, None)",
                "record.decode(body)",
            )
        ],
        needs="kill_at_slot",
    ),
    Mutant(
        "a hold is let go when a request begins",
        [
            Change(
                "penstock.admission.credit.purse:Purse.hold",
                "self.held += amount\n",
                "self.held += 0\n",
            )
        ],
    ),
    Mutant(
        "a file is deleted before all of it is shipped",
        [
            Change(
                "penstock_billing.adoption:Adoption._ship_dead",
                "count, idle = await self.ship(connection, name, path, None)",
                "path.unlink(); return 0",
            )
        ],
    ),
]


# Found in worlds made for them: in random ones they are too rare.
LEASE_RELEASED_EARLY = Mutant(
    "a lease is released when its process is dead, not when all it wrote is shipped",
    [
        Change(
            "world.statements_leases:orphaned",
            'boot is not None and boot["settled"]',
            f"lease['boot_id'] not in {WORLD}.living_boots()",
        )
    ],
)
CREDIT_WITHOUT_END = Mutant(
    "a stream goes on when its credit has ended",
    [
        Change(
            "penstock.admission.credit.charge:Charge.go_on",
            "return purse.ask() and ahead > -step",
            "return purse.ask() or True",
        )
    ],
)


def function_of(path: str) -> FunctionType:
    """Find `module:Class.function`."""
    module_name, _, name = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    if isinstance(found, property):
        found = found.fget
    assert isinstance(found, FunctionType), path
    return found


@contextlib.contextmanager
def mutated(mutant: Mutant) -> Iterator[None]:
    """Have the bug, for a while."""
    changed: dict[str, str] = {}
    for change in mutant.changes:
        source = changed.get(change.function) or textwrap.dedent(
            inspect.getsource(function_of(change.function))
        )
        assert source.count(change.old) == 1, (
            f"the mutant '{mutant.name}' no longer fits {change.function}: write it anew; it looks for\n"
            f"{change.old}"
        )
        changed[change.function] = source.replace(change.old, change.new)
    kept = []
    try:
        for path, text in changed.items():
            function = function_of(path)
            scope: dict[str, Any] = {}
            # Without its decorators, which would do again what they did.
            begins = re.search(r"^(async )?def ", text, re.MULTILINE)
            assert begins is not None
            source = "from __future__ import annotations\n" + text[begins.start() :]
            exec(compile(source, path, "exec"), function.__globals__, scope)
            kept.append((function, function.__code__))
            function.__code__ = scope[function.__name__].__code__
        yield
    finally:
        for function, code in kept:
            function.__code__ = code
