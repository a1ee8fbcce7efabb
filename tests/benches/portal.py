"""The portal on a real gateway, with people in it and a model that answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import asyncpg
import httpx
from benches.gateway import EMBED, MODEL, PEPPER, Bench, open_bench

from penstock.access import keys, people
from penstock.access.roles import Role

PASSWORD = "correct horse battery"
OPERATOR = "operator"
"""In place of a role: somebody who runs the installation, and owns the organisation too."""


@dataclass
class Tenant:
    """An organisation with a key; its people are made when they are asked for."""

    site: Site
    name: str
    id: int
    key: str
    _people: dict[str, int] = field(default_factory=dict)

    def email(self, role: str) -> str:
        """The address of the one person who has this role."""
        return f"{role}@{self.name}.example"

    async def person(self, role: str = "owner") -> int:
        """The id of the person with a role, or of the operator."""
        if role not in self._people:
            name = f"{role.title()} of {self.name}"
            async with self.site.bench.database.acquire() as connection:
                made = await people.create(
                    connection,
                    email=self.email(role),
                    name=name,
                    password=PASSWORD,
                    operator=role == OPERATOR,
                )
                await people.join(connection, made, self.id, Role.OWNER if role == OPERATOR else Role(role))
            self._people[role] = made
        return self._people[role]

    async def client(self, role: str = "owner") -> httpx.AsyncClient:
        """A browser without a window that this person has signed in with; closed after the test."""
        await self.person(role)
        client = await self.site.visitor()
        form = {"email": self.email(role), "password": PASSWORD}
        answer = await client.post("/portal/sign-in", data=form)
        assert answer.status_code == 303, answer.text
        return client

    def api(self) -> httpx.AsyncClient:
        """A program that uses the organisation's key."""
        return httpx.AsyncClient(
            base_url=self.site.url, headers={"authorization": f"Bearer {self.key}"}, timeout=20
        )


@dataclass
class Site:
    """The portal under test. `site.client(role)` and `site.key` are those of the organisation `acme`."""

    bench: Bench
    _closing: contextlib.AsyncExitStack
    acme: Tenant = field(init=False)

    @property
    def url(self) -> str:
        return self.bench.url

    @property
    def key(self) -> str:
        return self.bench.key

    @property
    def database(self) -> asyncpg.Pool:
        return self.bench.database

    async def client(self, role: str = "owner") -> httpx.AsyncClient:
        """Somebody of `acme`: owner, developer, viewer or operator. It follows no redirect by itself."""
        return await self.acme.client(role)

    async def visitor(self) -> httpx.AsyncClient:
        """A browser without a window, that nobody has signed in with."""
        client = httpx.AsyncClient(base_url=self.url, headers={"sec-fetch-site": "same-origin"}, timeout=20)
        return await self._closing.enter_async_context(client)

    async def organisation(self, name: str) -> Tenant:
        """Another organisation with a key: `await (await site.organisation("globex")).client("viewer")`."""
        async with self.database.acquire() as connection:
            key = await keys.create(connection, PEPPER, name="its key", organisation=name)
            found = await keys.find_organisation(connection, name)
        await self.bench.gateway.keyring.refresh()
        return Tenant(self, name, found, key)


@contextlib.asynccontextmanager
async def open_site(database_url: str, database: asyncpg.Pool) -> AsyncIterator[Site]:
    """A gateway with a simulated engine for the chat model, which has a pool."""
    async with (
        open_bench(database_url, database, (MODEL, EMBED)) as bench,
        contextlib.AsyncExitStack() as closing,
    ):
        await bench.set_pool()
        await bench.start_engine()
        site = Site(bench, closing)
        async with database.acquire() as connection:
            site.acme = Tenant(site, "acme", await keys.find_organisation(connection, "acme"), bench.key)
        yield site
