"""A proposed price list: a YAML file for backtests, read as strictly as a model card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import yaml
from msgspec import Meta

from penstock_billing import price_units
from penstock_billing.errors import PriceError
from penstock_billing.price_changes import ENDPOINT_KINDS, near
from penstock_billing.price_units import UNITS
from penstock_billing.prices import PriceVersion
from penstock_catalog import nodes
from penstock_catalog.cards import Checked, Line, UsdPerMillion
from penstock_catalog.errors import FileProblem
from penstock_catalog.structures import MISSING, StructReader

Usd = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9]{1,6}(\.[0-9]{1,12})?\Z",
        description="a decimal number such as 0.04, in quotes, with at most 12 decimals",
    ),
]
UsdPerMinute = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9]{1,6}(\.[0-9]{1,9})?\Z",
        description="a decimal number such as 0.02, in quotes, with at most 9 decimals",
    ),
]
Percent = Annotated[
    str,
    Meta(
        pattern=r"\A(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%\Z",
        description='a discount from "0%" to "100%", with at most 4 decimals',
    ),
]

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
"""In place of the moment from which a proposal would hold."""


class ProposedPrices(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model would cost, in US dollars as text so that no float ever touches money."""

    input: Annotated[UsdPerMillion, Meta(description="per 1M prompt tokens")]
    cached_input: Annotated[UsdPerMillion, Meta(description="per 1M prompt tokens found in the cache")]
    output: Annotated[UsdPerMillion, Meta(description="per 1M tokens made, thoughts included")]
    image: Annotated[Usd, Meta(description="per image")] = "0"
    audio_minute: Annotated[Usd, Meta(description="per minute of audio")] = "0"
    document: Annotated[Usd, Meta(description="per document that is ranked")] = "0"
    batch_discount: Annotated[Percent, Meta(description="what a batch endpoint pays less")] = "0%"

    def relations(self) -> Iterator[tuple[str, str]]:
        """Say so where a price cannot be charged, or a cached token costs more than a fresh one."""
        pico: dict[str, int] = {}
        for unit in UNITS:
            try:
                pico[unit.name] = price_units.pico_usd(unit, getattr(self, unit.name))
            except ValueError as error:
                yield unit.name, str(error)
        if pico.get("cached_input", 0) > pico.get("input", 0):
            yield (
                "cached_input",
                f"{self.cached_input} is more than input ({self.input}); at most that is accepted",
            )

    def version(self, model: str) -> PriceVersion:
        """The price version that these would be; its id is 0 and its time none that counts."""
        free = PriceVersion(0, model, 0, 0, 0, UNDATED)
        pico = {unit.field: price_units.pico_usd(unit, getattr(self, unit.name)) for unit in UNITS}
        discount = price_units.discount_ppm(self.batch_discount)
        return msgspec.structs.replace(free, **pico, batch_discount_ppm=discount)


class ProposedMinutes(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What minutes would cost, in US dollars per minute."""

    endpoint: Annotated[dict[str, UsdPerMinute], Meta(description="endpoint kind to price")] = msgspec.field(
        default_factory=dict
    )
    instance: Annotated[dict[str, UsdPerMinute], Meta(description="instance type to price")] = msgspec.field(
        default_factory=dict
    )

    def relations(self) -> Iterator[tuple[str, str]]:
        """Refuse kinds of endpoint that there are not."""
        for kind in self.endpoint:
            if kind not in ENDPOINT_KINDS:
                yield f"endpoint.{kind}", f"is no kind of endpoint: {', '.join(ENDPOINT_KINDS)}"


class Proposal(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price list as somebody thinks of it; what it does not name keeps its price."""

    name: Annotated[Line, Meta(description="what you call it")] = "proposed prices"
    models: Annotated[dict[str, ProposedPrices], Meta(description="model id to its prices")] = msgspec.field(
        default_factory=dict
    )
    minutes: Annotated[ProposedMinutes, Meta(description="prices of minutes")] = ProposedMinutes()

    def relations(self) -> Iterator[tuple[str, str]]:
        """Refuse a list that proposes nothing."""
        if not self.models and not self.minutes.endpoint and not self.minutes.instance:
            yield "models", "nothing is proposed: name at least one model, or the price of a minute"

    @property
    def versions(self) -> list[PriceVersion]:
        """What each model would cost."""
        return [prices.version(model) for model, prices in self.models.items()]

    @property
    def minute_prices(self) -> list[tuple[str, str, int]]:
        """Kind, subject and nano-dollars of each minute that is proposed."""
        return [
            (kind, subject, price_units.nano_usd_per_minute(usd))
            for kind, prices in (("endpoint", self.minutes.endpoint), ("instance", self.minutes.instance))
            for subject, usd in prices.items()
        ]


class ProposalError(PriceError):
    """The file is no price list; its text has one line per problem: file:line: field: what is wrong."""

    def __init__(self, problems: list[FileProblem]) -> None:
        self.problems = sorted(problems, key=lambda each: each.line)
        super().__init__("\n".join(map(str, self.problems)))


def read(file: Path, known: Iterable[str]) -> Proposal:
    """Read and check a file; `known` are the models that there are. Raises ProposalError."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ProposalError([FileProblem(file, 1, "", f"cannot be read: {error.strerror}")]) from None
    return parse(file, data, known)


def parse(file: Path, data: bytes, known: Iterable[str]) -> Proposal:
    """Check the bytes as if they were in `file`. Raises ProposalError with every problem found."""
    try:
        root = nodes.compose(data)
    except nodes.YamlRefusedError as error:
        raise ProposalError([FileProblem(file, error.line, "", str(error))]) from None
    reader = StructReader(file)
    proposal = reader.struct(root, Proposal, "")
    _check_models(reader, root, list(known))
    if reader.problems or proposal is MISSING:
        raise ProposalError(reader.problems)
    checked: Proposal = proposal
    return checked


def _check_models(reader: StructReader, root: yaml.Node, known: list[str]) -> None:
    """Note models that there are not, each at its own line."""
    top = root.value if isinstance(root, yaml.MappingNode) else []
    for models in (value for key, value in top if key.value == "models"):
        for key, _ in models.value if isinstance(models, yaml.MappingNode) else []:
            if key.value not in known:
                reader.note(
                    nodes.line_of(key),
                    f"models.{key.value}",
                    f"is no model here{near(str(key.value), known)}",
                )
