"""From the text of a card to a checked ModelCard, or to every problem in it with its line."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from penstock_catalog import cards, nodes
from penstock_catalog.errors import CardError, FileProblem
from penstock_catalog.structures import MISSING, StructReader


class ReadCard(NamedTuple):
    """A card, the file it came from and the line of its id."""

    card: cards.ModelCard
    file: Path
    id_line: int


def read(file: Path, today: datetime.date) -> ReadCard:
    """Read and check one card file. Raises CardError with every problem found in it."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise CardError([FileProblem(file, 1, "", f"cannot be read: {error.strerror}")]) from None
    return parse(file, data, today)


def parse(file: Path, data: bytes, today: datetime.date) -> ReadCard:
    """Check the bytes of a card as if they were in `file`. Raises CardError with every problem found.

    `today` bounds the release date. The path of a folder source comes back absolute.
    """
    try:
        root = nodes.compose(data)
    except nodes.YamlRefusedError as error:
        raise CardError([FileProblem(file, error.line, "", str(error))]) from None
    reading = _Reading(file)
    card = reading.struct(root, cards.ModelCard, "")
    if card is not MISSING:
        reading.surroundings(root, card, today)
    if reading.problems:
        raise CardError(reading.problems)
    return ReadCard(_placed(card, file), file, reading.line(root, "id"))


def _placed(card: cards.ModelCard, file: Path) -> cards.ModelCard:
    if not isinstance(card.source, cards.FolderSource):
        return card
    # normpath and not resolve(): a link to the weights may be moved later.
    path = os.path.normpath(file.parent.absolute() / Path(card.source.path).expanduser())
    return msgspec.structs.replace(card, source=msgspec.structs.replace(card.source, path=path))


class _Reading(StructReader):
    """A card's way from nodes to structs."""

    def surroundings(self, root: yaml.Node, card: cards.ModelCard, today: datetime.date) -> None:
        """Check what the card alone cannot know: its file's name and the date."""
        if self.file.name != f"{card.file_stem}.yaml":
            self.note(
                self.line(root, "id"), "id", f'"{card.id}" belongs in a file named {card.file_stem}.yaml'
            )
        if card.released > today:
            self.note(
                self.line(root, "released"),
                "released",
                f"{card.released} is in the future (today is {today})",
            )
