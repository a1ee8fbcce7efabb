"""All models on offer: the cards of one or more folders, found by id or by words."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from penstock_catalog import reading
from penstock_catalog.cards import Capability, EndpointKind, ModelCard, Task
from penstock_catalog.errors import CardError, FileProblem
from penstock_catalog.search import Listing

BUILTIN: Final = Path(__file__).parent / "cards"
"""The cards that ship with Penstock."""


class Shelf:
    """An immutable set of checked cards; ids are unique over all folders."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self._by_id = {card.id: card for card in sorted(cards, key=lambda card: card.id)}

    @classmethod
    def open(cls, folders: Iterable[Path], today: datetime.date | None = None) -> Shelf:
        """Read every `*.yaml` of the folders (not of folders in them).

        Raises CardError with all problems of all files, an id in two files among them. `today` bounds
        release dates; it is the current day (UTC) unless a test says otherwise.
        """
        today = today or datetime.datetime.now(datetime.UTC).date()
        found: dict[str, reading.ReadCard] = {}
        problems: list[FileProblem] = []
        for file in _files(folders, problems):
            try:
                read = reading.read(file, today)
            except CardError as error:
                problems += error.problems
                continue
            first = found.setdefault(read.card.id, read)
            if first is not read:
                there = f"{first.file}:{first.id_line}"
                text = f'"{read.card.id}" is already in {there}: give one of the two another id'
                problems.append(FileProblem(file, read.id_line, "id", text))
        if problems:
            raise CardError(problems)
        return cls(read.card for read in found.values())

    @functools.cached_property
    def listing(self) -> Listing:
        """The same cards, to be searched."""
        return Listing(self.cards)

    @property
    def cards(self) -> list[ModelCard]:
        """All cards, by id."""
        return list(self._by_id.values())

    def get(self, model_id: str) -> ModelCard | None:
        """The card of a model id, or None."""
        return self._by_id.get(model_id)

    def search(
        self,
        text: str = "",
        task: Task | None = None,
        capabilities: Iterable[Capability] = (),
        endpoint: EndpointKind | None = None,
    ) -> list[ModelCard]:
        """Cards that have every word of `text` and everything else asked for, best first (see `words`)."""
        matches = self.listing.words.match(text)
        found = [
            (matches[place] if matches is not None else (0, 0), card)
            for place, card in enumerate(self.listing.cards)
            if (matches is None or place in matches)
            and (task is None or card.task is task)
            and set(capabilities) <= set(card.capabilities)
            and (endpoint is None or endpoint in card.endpoints)
        ]
        return [card for (tier, score), card in sorted(found, key=lambda each: (-each[0][0], -each[0][1]))]


def _files(folders: Iterable[Path], problems: list[FileProblem]) -> Iterable[Path]:
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            problems.append(FileProblem(folder, 1, "", "is not a folder; name a folder of model cards"))
            continue
        for file in sorted(folder.iterdir()):
            if file.suffix == ".yml":
                problems.append(FileProblem(file, 1, "", "a card's file ends in .yaml: rename it"))
            elif file.suffix == ".yaml":
                yield file
