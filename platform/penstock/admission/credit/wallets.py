"""Which wallet pays for whom, in memory: read anew every second with the keys, so admission asks nobody."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import asyncpg

from penstock.access.keyring import Principal
from penstock_billing import leases
from penstock_billing.leases import Terms, Wallet
from penstock_billing.record import Funding

OVERLAP = timedelta(seconds=30)
"""How far each refresh looks back behind the last: longer than any transaction that changes a wallet."""


class Tab:
    """What a postpaid wallet with a limit owes, as far as this gateway knows."""

    __slots__ = ("max_nano_usd", "owed_nano_usd")

    def __init__(self, owed_nano_usd: int, max_nano_usd: int) -> None:
        self.owed_nano_usd = owed_nano_usd
        self.max_nano_usd = max_nano_usd


class Payer:
    """How one wallet pays."""

    __slots__ = ("funding", "strict", "tab", "wallet")

    def __init__(self, wallet: Wallet, funding: Funding, strict: bool, tab: Tab | None) -> None:
        self.wallet = wallet
        self.funding = funding
        self.strict = strict
        self.tab = tab


class Wallets:
    """Every wallet that is not the plain one, which is postpaid and without limit."""

    def __init__(self) -> None:
        self._payers: dict[tuple[int, int], Payer] = {}
        self._plain: dict[int, Payer] = {}
        self._since = datetime.fromtimestamp(0, UTC)
        self.loaded = False

    def of(self, principal: Principal) -> Payer:
        """Who pays for a principal: its project's wallet where that has one, else its organisation's."""
        organisation_id = principal.organisation_id
        payer = self._payers.get((organisation_id, principal.project_id)) or self._payers.get(
            (organisation_id, 0)
        )
        if payer is None:
            payer = self._plain.get(organisation_id)
            if payer is None:
                payer = Payer(Wallet(organisation_id, 0), Funding.POSTPAID, False, None)
                self._plain[organisation_id] = payer
        return payer

    def payer(self, wallet: Wallet) -> Payer | None:
        """How a wallet pays, where that is written down."""
        return self._payers.get((wallet.organisation_id, wallet.project_id))

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Learn what changed since the last refresh, and what wallets with a limit owe now."""
        async with pool.acquire() as connection:
            clock: datetime = await connection.fetchval(leases.SQL["clock"])
            changed = await leases.terms(cast("asyncpg.Connection", connection), self._since)
        for terms in changed:
            self.learn(terms)
        self._since = clock - OVERLAP
        self.loaded = True

    def learn(self, terms: Terms) -> None:
        """Take over how a wallet pays from now on."""
        tab = None
        if terms.funding is Funding.POSTPAID and terms.owed_max_nano_usd is not None:
            tab = Tab(terms.owed_nano_usd, terms.owed_max_nano_usd)
        key = terms.wallet.organisation_id, terms.wallet.project_id
        self._payers[key] = Payer(terms.wallet, terms.funding, terms.strict, tab)
