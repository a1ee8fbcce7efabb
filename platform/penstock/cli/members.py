"""`penstock members`: people of an organisation, and what they may do there."""

from __future__ import annotations

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import invitations, keys, members, people
from penstock.access.members import Member
from penstock.access.roles import Role
from penstock.cli import database, moments
from penstock.settings import Settings

ORGANISATION = click.option("--organisation", default="default", show_default=True, help="Whose members.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of words.")
ROLE = click.Choice([role.value for role in Role])


@click.group()
def command() -> None:
    """Say who belongs to an organisation, and as what.

    An owner decides who belongs to it; a developer makes keys, endpoints and adapters; a viewer looks. People
    are named by their address.
    """


@command.command("list")
@ORGANISATION
@JSON
def show(organisation: str, as_json: bool) -> None:
    """List an organisation's members, owners first."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[Member]:
        return await members.listed(connection, await keys.find_organisation(connection, organisation))

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title=f"Members of {organisation}")
    table.add_column("Name", overflow="fold")
    table.add_column("Address", overflow="fold")
    table.add_column("Role", no_wrap=True)
    table.add_column("Last seen (UTC)", overflow="fold")
    for each in found:
        seen = moments.shown(each.seen_at) if each.seen_at else ""
        table.add_row(each.name, each.email, each.role.value, "switched off" if each.disabled else seen)
    Console().print(table)


@command.command()
@click.argument("email")
@click.option("--role", type=ROLE, default=Role.DEVELOPER.value, show_default=True)
@ORGANISATION
@JSON
def add(email: str, role: str, organisation: str, as_json: bool) -> None:
    """Make whoever has the account EMAIL a member."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Member:
        async with connection.transaction():
            organisation_id = await keys.find_organisation(connection, organisation)
            person_id = await members.person_of(connection, email)
            await members.check_new(connection, organisation_id, person_id)
            await people.join(connection, person_id, organisation_id, Role(role))
            return await members.find(connection, organisation_id, person_id)

    _say(database.run(work), f"belongs to {organisation} now, as {role}", as_json=as_json)


@command.command()
@click.argument("email")
@click.option("--role", type=ROLE, default=Role.DEVELOPER.value, show_default=True)
@ORGANISATION
@JSON
def invite(email: str, role: str, organisation: str, as_json: bool) -> None:
    """Invite EMAIL: print the link to hand over, this once. Without an account the link makes one."""

    async def work(told: Settings, connection: asyncpg.Connection) -> str:
        organisation_id = await keys.find_organisation(connection, organisation)
        token = await invitations.create(
            connection, organisation_id=organisation_id, email=email, role=Role(role), invited_by=None
        )
        return invitations.address(told.public_url, token)

    link = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode({"email": email, "role": role, "link": link}))
        return
    click.echo(link)
    days = invitations.LASTS.days
    click.echo(f"Hand it to {email}: it works once, for {days} days, and is not shown again.", err=True)


@command.command("role")
@click.argument("email")
@click.argument("role", type=ROLE)
@ORGANISATION
@JSON
def change_role(email: str, role: str, organisation: str, as_json: bool) -> None:
    """Give the member EMAIL another role."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Member:
        organisation_id = await keys.find_organisation(connection, organisation)
        person_id = await members.person_of(connection, email)
        return await members.change_role(connection, organisation_id, person_id, Role(role))

    _say(database.run(work), f"is {role} of {organisation} now", as_json=as_json)


@command.command()
@click.argument("email")
@ORGANISATION
@JSON
def remove(email: str, organisation: str, as_json: bool) -> None:
    """End the membership of EMAIL; the account stays, and what the member did."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Member:
        organisation_id = await keys.find_organisation(connection, organisation)
        person_id = await members.person_of(connection, email)
        return await members.remove(connection, organisation_id, person_id)

    _say(database.run(work), f"belongs to {organisation} no more", as_json=as_json)


def _say(member: Member, what: str, *, as_json: bool) -> None:
    click.echo(msgspec.json.encode(member) if as_json else f"{member.name} <{member.email}> {what}.")
