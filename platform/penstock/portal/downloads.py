"""Tables as CSV files: streamed, and safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, date, datetime
from itertools import islice

from litestar.response import Stream

from penstock.portal.rendering import HEADERS

Cell = str | int | date | datetime | None
LEADS_TO_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Spreadsheets run a text that begins so (OWASP, CSV injection)."""

LINES_AT_ONCE = 500
"""Written before others get their turn: the same process streams answers of models."""


def line(cells: Sequence[Cell]) -> str:
    """One line of a file, as RFC 4180 writes it; times in UTC, numbers bare."""
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\r\n").writerow([_text(cell) for cell in cells])
    return written.getvalue()


def file(name: str, parts: AsyncIterator[Iterable[Sequence[Cell]]]) -> Stream:
    """A file to download, sent as its parts come."""

    async def written() -> AsyncIterator[bytes]:
        # Excel takes a file for UTF-8 only with this mark at its beginning.
        yield b"\xef\xbb\xbf"
        async for part in parts:
            lines = iter(part)
            while batch := list(islice(lines, LINES_AT_ONCE)):
                yield "".join(line(cells) for cells in batch).encode()

    headers = HEADERS | {"content-disposition": f'attachment; filename="{name}"'}
    return Stream(written(), media_type="text/csv; charset=utf-8", headers=headers)


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return f"{cell.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if not isinstance(cell, str):
        return str(cell)
    return f"'{cell}" if cell.startswith(LEADS_TO_A_FORMULA) else cell
