"""The `penstock` command: one file per noun."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "up": "run everything on this machine",
    "doctor": "say what is found here and what is missing",
    "keys": "make, list, limit and revoke API keys",
    "people": "who may sign in to the portal: accounts, passwords, operators",
    "projects": "parts of an organisation, and their limits",
    "members": "people of an organisation, and what they may do there",
    "audit": "who changed what, when",
    "plans": "what share of a busy model organisations get, and their limits",
    "usage": "tokens and cost by day and model",
    "requests": "single requests: where their time went, why that engine, what they cost",
    "ledger": "balances, transactions and the requests behind them; corrections and refunds",
    "prices": "show, add and schedule prices; price lists; try prices on recorded usage",
    "credit": "prepaid credit: what there is, top-ups, promotions, how wallets pay",
    "budgets": "what organisations, projects and keys may spend",
    "billing": "closing hours, checking the books, old events in files",
    "models": "the catalog",
    "serverless-endpoint": "models under names, URLs and keys of their own",
    "adapters": "LoRA fine-tunes of models: upload, list, activate, delete",
    "pools": "the shared engines of each model: size, version, scaling",
    "instance-types": "the slices of hardware that engines take, and their prices",
    "gateway": "one gateway process (started by `up`, or by your own supervisor)",
    "controller": "one controller process (started by `up`, or by your own supervisor)",
}


class Lazy(click.Group):
    """Imports a command when it is used: `gateway` must not pay for the tables of `usage`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click says
        """Every command, in the order of the way."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The `command` of the module of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"penstock.cli.{name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=Lazy)
@click.version_option(package_name="penstock")
def main() -> None:
    """Penstock: a per-token model API platform on your own machines."""
