"""`penstock people`: who may sign in to the portal; for whoever runs the installation."""

from __future__ import annotations

import asyncpg
import click
import msgspec
from rich.console import Console
from rich.table import Table

from penstock.access import keys, passwords, people, second_factor
from penstock.access.people import ListedPerson, Person
from penstock.access.roles import Role
from penstock.cli import database
from penstock.settings import Settings

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of words.")


@click.group()
def command() -> None:
    """Make accounts for people, and help those who cannot sign in.

    People are also invited, by an owner of their organisation in the portal.
    """


@command.command("list")
@click.option("--organisation", help="Only members of this organisation.")
@JSON
def show(organisation: str | None, as_json: bool) -> None:
    """List every account."""

    async def work(_: Settings, connection: asyncpg.Connection) -> list[ListedPerson]:
        if organisation is not None:
            await keys.find_organisation(connection, organisation)
        return await people.listed(connection, organisation)

    found = database.run(work)
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    table = Table(title=f"People of {organisation}" if organisation else "People")
    for heading in ("Email", "Name", "Organisations"):
        table.add_column(heading, overflow="fold")
    for heading in ("Second factor", "Last seen", "State"):
        table.add_column(heading, no_wrap=True)
    for person in found:
        roles = [f"{name} ({role.value})" for name, role in person.organisations.items()]
        table.add_row(
            person.email,
            person.name,
            ", ".join((["the installation (operator)"] if person.operator else []) + roles),
            "on" if person.second_factor else "off",
            f"{person.seen_at:%Y-%m-%d %H:%M}" if person.seen_at else "",
            f"disabled {person.disabled_at:%Y-%m-%d}" if person.disabled_at else "active",
        )
    Console().print(table)


@command.command()
@click.argument("email")
@click.option("--name", help="What to call them; by default what stands before the @.")
@click.option("--organisation", default="default", show_default=True, help="What they belong to.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.DEVELOPER.value,
    show_default=True,
    help="What they may do there.",
)
@click.option("--operator", is_flag=True, help="They run the installation.")
@JSON
def create(email: str, name: str | None, organisation: str, role: str, operator: bool, as_json: bool) -> None:
    """Make an account for EMAIL, with a random password that is shown once."""
    password = passwords.random()

    async def work(_: Settings, connection: asyncpg.Connection) -> None:
        organisation_id = await keys.find_organisation(connection, organisation)
        async with connection.transaction():
            called = name or email.partition("@")[0]
            person_id = await people.create(
                connection, email=email, name=called, password=password, operator=operator
            )
            await people.join(connection, person_id, organisation_id, Role(role))

    database.run(work)
    _say_password(email, password, as_json, f"is {role} of {organisation}")


@command.command("reset-password")
@click.argument("email")
@click.option("--remove-second-factor", is_flag=True, help="For who lost their device and its codes.")
@JSON
def reset_password(email: str, remove_second_factor: bool, as_json: bool) -> None:
    """Give EMAIL a random password, shown once, and end their sessions."""
    password = passwords.random()

    async def work(_: Settings, connection: asyncpg.Connection) -> Person:
        person = await people.find(connection, email)
        async with connection.transaction():
            await people.set_password(connection, person, password)
            if remove_second_factor:
                await second_factor.remove(connection, person.id)
        return person

    person = database.run(work)
    without = "has no second factor any more, and " if remove_second_factor else ""
    _say_password(person.email, password, as_json, f"{without}is signed out everywhere")


@command.command()
@click.argument("email")
@JSON
def disable(email: str, as_json: bool) -> None:
    """Sign EMAIL out everywhere and let them in no more; what they made stays."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Person:
        person = await people.find(connection, email)
        await people.disable(connection, person)
        return person

    _say(database.run(work), as_json, "may not sign in any more; `penstock people enable` undoes it")


@command.command()
@click.argument("email")
@JSON
def enable(email: str, as_json: bool) -> None:
    """Let EMAIL sign in again."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Person:
        person = await people.find(connection, email)
        await people.enable(connection, person)
        return person

    _say(database.run(work), as_json, "may sign in")


@command.command()
@click.argument("email")
@click.option("--no", "revoke", is_flag=True, help="No more.")
@JSON
def operator(email: str, revoke: bool, as_json: bool) -> None:
    """Let EMAIL run the installation: see every organisation, prices and machines."""

    async def work(_: Settings, connection: asyncpg.Connection) -> Person:
        person = await people.find(connection, email)
        await people.set_operator(connection, person, operator=not revoke)
        return msgspec.structs.replace(person, operator=not revoke)

    _say(database.run(work), as_json, "runs the installation no more" if revoke else "runs the installation")


def _say_password(email: str, password: str, as_json: bool, what: str) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"email": email, "password": password}))
        return
    click.echo(f"{email} {what}. The password, shown this once:\n\n  {password}\n")


def _say(person: Person, as_json: bool, what: str) -> None:
    if as_json:
        click.echo(msgspec.json.encode(person))
    else:
        click.echo(f"{person.email} {what}.")
