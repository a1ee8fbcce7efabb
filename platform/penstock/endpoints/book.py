"""The serverless endpoints a gateway knows, in memory; refreshed from Postgres."""

from __future__ import annotations

import asyncpg

from penstock.access.keyring import Principal
from penstock.endpoints import serverless
from penstock.endpoints.serverless import Live, UnknownEndpoint


class EndpointSuspended(Exception):
    """The endpoint takes no requests at present."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the endpoint {name} is suspended ({reason}); nothing was billed")


class WrongEndpoint(Exception):
    """The key opens one endpoint, and this is not it."""


class EndpointBook:
    """Every live endpoint, by its organisation and name, and by its id."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[int, str], Live] = {}
        self._by_id: dict[int, Live] = {}

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Read them all; there are few compared with requests."""
        self.update(await serverless.live(pool))

    def update(self, live: list[Live]) -> None:
        """Take over what there is."""
        self._by_name = {(each.organisation_id, each.name): each for each in live}
        self._by_id = {each.id: each for each in live}

    def open(self, principal: Principal, name: str) -> Live:
        """The endpoint that a principal calls by name.

        Raises UnknownEndpoint, WrongEndpoint, EndpointSuspended.
        """
        found = self.find(principal, name)
        if found.suspended is not None:
            raise EndpointSuspended(name, found.suspended)
        return found

    def find(self, principal: Principal, name: str) -> Live:
        """The endpoint of a name, whether it takes requests or not.

        Raises UnknownEndpoint where the principal's organisation has none of that name, WrongEndpoint where
        its key opens another one.
        """
        found = self._by_name.get((principal.organisation_id, name))
        if found is None:
            raise UnknownEndpoint(name)
        if principal.endpoint_id not in {None, found.id}:
            raise WrongEndpoint("this key opens another endpoint and nothing else")
        return found

    def check_plain(self, principal: Principal) -> None:
        """Raise WrongEndpoint where a principal's key opens an endpoint only, and none was called."""
        if principal.endpoint_id is None:
            return
        own = self._by_id.get(principal.endpoint_id)
        where = f"call it at /serverless/{own.name}/v1" if own is not None else "which is gone"
        raise WrongEndpoint(f"this key opens one endpoint and nothing else: {where}")
