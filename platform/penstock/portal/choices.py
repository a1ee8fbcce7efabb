"""What an organisation can call here for a task: models, its adapters of them, and its endpoints."""

from __future__ import annotations

import msgspec

from penstock.access.sessions import Visitor
from penstock.edge.models import stood
from penstock.endpoints import serverless
from penstock.portal import formats
from penstock.portal.frame import World
from penstock_catalog.cards import Capability, ModelCard, Task


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of them, with what a page must know to call it and to tell its limits."""

    value: str
    """Tells it from all others, in a list and in a shared link: a model's name, or `@` and an endpoint's."""
    group: str
    label: str
    model: str
    """What requests call it."""
    endpoint: str = ""
    base_url: str
    """Where programs reach it."""
    state: str
    price: str
    """Of tokens, in words; empty while there is none, and nothing is served."""
    context_length: int
    max_output_tokens: int
    dimensions: int | None
    vision: bool
    tools: bool
    structured_output: bool
    reasoning: bool


async def listed(world: World, visitor: Visitor, task: Task) -> list[Choice]:
    """Everything for this task: models by name, then adapters, then endpoints that take requests."""
    organisation_id = visitor.organisation_id
    cards = {
        card.id: card for card in world.shelf.cards if card.task is task and world.directory.offers(card.id)
    }
    plain = f"{world.settings.public_url}/v1"
    found = [
        _choice(world, organisation_id, card, value=card.id, label=card.name, base_url=plain)
        for card in sorted(cards.values(), key=lambda card: card.name.casefold())
    ]
    for adapter in world.adapters.of(organisation_id):
        if adapter.base_model in cards:
            card, model = cards[adapter.base_model], f"{adapter.base_model}:{adapter.name}"
            label = f"{adapter.name} on {card.name}"
            found.append(
                _choice(
                    world,
                    organisation_id,
                    card,
                    value=model,
                    label=label,
                    base_url=plain,
                    group="Adapters",
                )
            )
    for endpoint in await serverless.listed(world.pool, organisation_id):
        if endpoint.model in cards and endpoint.deleted_at is None and endpoint.suspended is None:
            card = cards[endpoint.model]
            found.append(
                _choice(
                    world,
                    organisation_id,
                    card,
                    value=f"@{endpoint.name}",
                    label=f"{endpoint.name} ({card.name})",
                    base_url=f"{world.settings.public_url}/serverless/{endpoint.name}/v1",
                    group="Endpoints",
                    endpoint=endpoint.name,
                )
            )
    return found


def _choice(
    world: World,
    organisation_id: int,
    card: ModelCard,
    *,
    value: str,
    label: str,
    base_url: str,
    group: str = "Models",
    endpoint: str = "",
) -> Choice:
    price = world.prices.current(card.id, organisation_id)
    told = ""
    if price is not None:
        told = f"{formats.per_million(price.input_pico_usd)} in"
        if card.task is Task.CHAT:
            told += f", {formats.per_million(price.output_pico_usd)} out"
        told += " per 1M"
    return Choice(
        value=value,
        group=group,
        label=label,
        model=card.id if endpoint else value,
        endpoint=endpoint,
        base_url=base_url,
        state=str(stood(world.directory.standing(card.id))["state"]),
        price=told,
        context_length=card.context_length,
        max_output_tokens=card.max_output_tokens,
        dimensions=card.embedding_dimensions,
        vision=Capability.VISION in card.capabilities,
        tools=Capability.TOOLS in card.capabilities,
        structured_output=Capability.STRUCTURED_OUTPUT in card.capabilities,
        reasoning=Capability.REASONING in card.capabilities,
    )
