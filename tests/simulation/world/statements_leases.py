"""What the SQL of leases and of gateway boots does, over the model's tables."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from world.postgres import Blocked, Transaction
from world.statements import NOTHING, open_lease, statement

from penstock_billing import boots, leases

LEASE_COLUMNS = (
    "id",
    "granted_nano_usd",
    "promotional_granted_nano_usd",
    "settled_nano_usd",
    "grants",
)


def seen(lease: dict[str, Any]) -> list[dict[str, Any]]:
    """The columns of a lease that its statements return."""
    return [{name: lease[name] for name in LEASE_COLUMNS}]


@statement(leases.SQL["note_boot"])
def note_boot(transaction: Transaction, boot_id: str, host: str) -> Any:
    boot = transaction.get("gateway_boot", boot_id)
    if boot is None:
        transaction.lock("gateway_boot", boot_id)
        boot = transaction.get("gateway_boot", boot_id)
    if boot is None:
        transaction.put("gateway_boot", boot_id, {"settled": False})
        return [{"coalesce": True}]
    return [{"coalesce": not boot["settled"]}]


@statement(boots.SQL["show_up"])
def show_up(transaction: Transaction, boot_id: str, host: str) -> Any:
    transaction.lock("gateway_boot", boot_id)
    boot = transaction.get("gateway_boot", boot_id) or {"settled": False}
    transaction.put("gateway_boot", boot_id, boot)
    return [{"settled": boot["settled"]}]


@statement(boots.SQL["settle"])
def settle(transaction: Transaction, boot_id: str, host: str) -> Any:
    transaction.put("gateway_boot", boot_id, {"settled": True})
    return NOTHING


@statement(leases.SQL["open_lease"])
def open_or_make(
    transaction: Transaction, boot_id: str, organisation_id: int, project_id: int, life: timedelta
) -> Any:
    transaction.lock("lease_open", (boot_id, organisation_id, project_id))
    lease_id = open_lease(transaction, boot_id, organisation_id, project_id)
    number = transaction.server.next("lease")
    if lease_id is None:
        lease_id = number
        transaction.put(
            "lease",
            lease_id,
            {
                "id": lease_id,
                "boot_id": boot_id,
                "organisation_id": organisation_id,
                "project_id": project_id,
                "granted_nano_usd": 0,
                "promotional_granted_nano_usd": 0,
                "settled_nano_usd": 0,
                "grants": 0,
                "released_at": None,
                "recalled_at": None,
            },
        )
    else:
        transaction.lock("lease", lease_id)
    return seen(transaction.get("lease", lease_id))


@statement(leases.SQL["lock_lease"])
def lock_lease(transaction: Transaction, boot_id: str, organisation_id: int, project_id: int) -> Any:
    lease_id = open_lease(transaction, boot_id, organisation_id, project_id)
    if lease_id is None:
        return NOTHING
    transaction.lock("lease", lease_id)
    return seen(transaction.get("lease", lease_id))


@statement(leases.SQL["open_account"])
def open_account(transaction: Transaction, organisation_id: int, project_id: int) -> Any:
    account = (organisation_id, project_id, "lease")
    if transaction.get("account", account) is None:
        # Who comes second waits for who makes it.
        transaction.lock("account", account)
        if transaction.get("account", account) is None:
            transaction.put("account", account, 0)
    return NOTHING


@statement(leases.SQL["lock_credit"])
def lock_credit(transaction: Transaction, organisation_id: int, project_id: int) -> Any:
    found = []
    for kind in ("lease", "prepaid", "promotional"):
        account = (organisation_id, project_id, kind)
        if transaction.get("account", account) is not None:
            transaction.lock("account", account)
            found.append({"kind": kind, "posted_nano_usd": transaction.get("account", account)})
    return found


@statement(leases.SQL["change_lease"])
def change_lease(transaction: Transaction, lease_id: int, amount: int, promotional: int) -> Any:
    transaction.lock("lease", lease_id)
    lease = transaction.get("lease", lease_id)
    transaction.put(
        "lease",
        lease_id,
        lease
        | {
            "granted_nano_usd": lease["granted_nano_usd"] + amount,
            "promotional_granted_nano_usd": lease["promotional_granted_nano_usd"] + promotional,
            "grants": lease["grants"] + 1,
            "recalled_at": lease["recalled_at"] if amount > 0 else None,
        },
    )
    return NOTHING


@statement(leases.SQL["answer_recall"])
def answer_recall(transaction: Transaction, lease_id: int) -> Any:
    transaction.lock("lease", lease_id)
    transaction.put("lease", lease_id, transaction.get("lease", lease_id) | {"recalled_at": None})
    return NOTHING


@statement(leases.SQL["end_lease"])
def end_lease(transaction: Transaction, lease_id: int) -> Any:
    transaction.lock("lease", lease_id)
    ended = {"released_at": transaction.server.now(), "recalled_at": None}
    transaction.put("lease", lease_id, transaction.get("lease", lease_id) | ended)
    return NOTHING


@statement(leases.SQL["recall"])
def recall(transaction: Transaction, organisation_id: int, project_id: int, boot_id: str) -> Any:
    for lease_id, lease in list(transaction.rows("lease")):
        if (
            (lease["organisation_id"], lease["project_id"]) == (organisation_id, project_id)
            and lease["boot_id"] != boot_id
            and lease["released_at"] is None
            and lease["recalled_at"] is None
            and lease["granted_nano_usd"] > lease["settled_nano_usd"]
        ):
            try:
                transaction.put("lease", lease_id, lease | {"recalled_at": transaction.server.now()})
            except Blocked:
                continue  # for update skip locked
    return NOTHING


@statement(leases.SQL["recalled"])
def recalled(transaction: Transaction, boot_id: str) -> Any:
    return [
        {"organisation_id": lease["organisation_id"], "project_id": lease["project_id"]}
        for _, lease in transaction.rows("lease")
        if lease["boot_id"] == boot_id and lease["released_at"] is None and lease["recalled_at"] is not None
    ]


@statement(leases.SQL["recently_used"])
def recently_used(transaction: Transaction, limit: int) -> Any:
    wallets = {
        (lease["organisation_id"], lease["project_id"])
        for _, lease in transaction.rows("lease")
        if lease["released_at"] is None
    }
    return [{"organisation_id": a, "project_id": b} for a, b in sorted(wallets)][:limit]


@statement(leases.SQL["orphaned"])
def orphaned(transaction: Transaction, limit: int) -> Any:
    found = []
    for _, lease in transaction.rows("lease"):
        boot = transaction.get("gateway_boot", lease["boot_id"])
        if lease["released_at"] is None and boot is not None and boot["settled"]:
            found.append({name: lease[name] for name in ("boot_id", "organisation_id", "project_id")})
    return found[:limit]


@statement(leases.SQL["clock"])
def clock(transaction: Transaction) -> Any:
    return [{"now": transaction.server.now()}]


@statement(leases.SQL["wallets"])
def wallets(transaction: Transaction, since: Any) -> Any:
    found = []
    for (organisation_id, project_id), wallet in transaction.rows("wallet"):
        owed_max = wallet["owed_max_nano_usd"]
        if wallet["changed_at"] > since or (wallet["funding"] == "postpaid" and owed_max is not None):
            owed = transaction.get("account", (organisation_id, project_id, "receivable")) or 0
            found.append(
                {
                    "organisation_id": organisation_id,
                    "project_id": project_id,
                    "funding": wallet["funding"],
                    "strict": wallet["strict"],
                    "owed_max_nano_usd": owed_max,
                    "owed_nano_usd": owed,
                }
            )
    return found
