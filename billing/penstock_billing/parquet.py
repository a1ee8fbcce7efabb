"""Events in Parquet files, written in batches and read back to be believed: what knows pyarrow."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from penstock_billing.errors import ArchiveDamaged, ArchiveError, ArchiveUnavailable

ROWS_A_GROUP = 65_536
"""Read and written at once: some ten megabytes."""
COLUMNS = {
    "event_id": "id",
    "ended_at": "moment",
    "organisation_id": "int64",
    "project_id": "int64",
    "key_id": "text",
    "request_id": "text",
    "client_request_id": "text",
    "surface": "text",
    "model": "text",
    "price_version": "int64",
    "input_tokens": "int32",
    "cached_tokens": "int32",
    "output_tokens": "int32",
    "reasoning_tokens": "int32",
    "outcome": "text",
    "status": "int16",
    "streamed": "bool",
    "queue_us": "int64",
    "first_token_us": "int64",
    "duration_us": "int64",
    "replica": "text",
    "cost_nano_usd": "int64",
    "ledger_transaction_id": "int64",
    "images": "int32",
    "audio_ms": "int32",
    "documents": "int32",
    "batch": "bool",
    "endpoint": "text",
    "funding": "text",
    "wallet_project_id": "int64",
    "admit_us": "int64",
    "wait_us": "int64",
    "wake_us": "int64",
    "retries": "int32",
    "policy": "text",
    "candidates": "int32",
    "pool_version": "int32",
    "hedged": "bool",
}
"""Of usage_event, every one, with its kind: a file is the whole truth about its events."""
SUMMED = (
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "images",
    "audio_ms",
    "documents",
    "cost_nano_usd",
)
UNTOLD = {"ledger_transaction_id", "client_request_id"}
"""Columns that may be null."""


class Content(msgspec.Struct, frozen=True):
    """What a file holds, as it was read back from the disk."""

    size_bytes: int
    sha256: bytes
    sums: list[int]
    """Number of events, then the sums of SUMMED: as `billing.usage_sums`."""
    ids: bytes
    """Digest of the events' ids and costs, in the file's order."""


class Writer:
    """Writes one file; it is there for good, and forced to the disk, when `close` has returned.

    Until then it bears another name, so a broken-off try leaves nothing that could be taken for a file.
    Raises ArchiveUnavailable, and ArchiveError when the disk does not take it.
    """

    def __init__(self, path: Path, notes: dict[str, str]) -> None:
        self._arrow, self._parquet = library()
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._schema = schema(self._arrow).with_metadata(notes)
        with writing(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._writer = self._parquet.ParquetWriter(self._partial, self._schema, compression="zstd")
        self._digest = Digest()

    def add(self, rows: Sequence[Iterable[Any]]) -> None:
        """Write rows, laid out as COLUMNS."""
        arrays = []
        for (name, kind), values in zip(COLUMNS.items(), zip(*rows, strict=True), strict=True):
            cells = [each.bytes for each in values] if kind == "id" else values
            arrays.append(self._arrow.array(cells, type=self._schema.field(name).type))
        batch = self._arrow.record_batch(arrays, schema=self._schema)
        with writing(self._path):
            self._writer.write_batch(batch)
        self._digest.add(batch)

    def close(self) -> Content:
        """Finish the file, read it back and give it its name; raises ArchiveDamaged if it reads otherwise."""
        with writing(self._path):
            self._writer.close()
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
        content = read_back(self._partial)
        if content.ids != self._digest.value():
            raise ArchiveDamaged(f"{self._partial} does not hold what was written to it: look after the disk")
        with writing(self._path):
            self._partial.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return content

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            with contextlib.suppress(OSError):  # a full disk takes no end either
                self._writer.close()
        self._partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of which file it was that the disk did not take something."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be written ({error.strerror or error}): make room, or set PENSTOCK_ARCHIVE_FOLDER"
        ) from error


class Digest:
    """Of ids and costs in their order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, batch: Any) -> None:
        """Take in a batch of rows."""
        self._hash.update(b"".join(batch.column("event_id").to_pylist()))
        self._hash.update(
            b"".join(cost.to_bytes(8, "big") for cost in batch.column("cost_nano_usd").to_pylist())
        )

    def value(self) -> bytes:
        """The digest of all that was taken in."""
        return self._hash.digest()


def read_back(path: Path) -> Content:
    """Read a whole file and sum it up; raises ArchiveDamaged when it is missing or cannot be read."""
    sums = [0] * (1 + len(SUMMED))
    digest = Digest()
    for batch in _batches(path):
        sums[0] += batch.num_rows
        for place, name in enumerate(SUMMED, 1):
            sums[place] += sum(batch.column(name).to_pylist())
        digest.add(batch)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").digest()
    return Content(path.stat().st_size, sha256, sums, digest.value())


def rows(path: Path) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """Read a file's columns and rows, some at a time, as Postgres takes them; raises as `read_back`."""
    for batch in _batches(path):
        yield batch.schema.names, list(zip(*(column.to_pylist() for column in batch.columns), strict=True))


def schema(arrow: Any) -> Any:
    """The file's columns and their types."""
    kinds = {
        "id": arrow.binary(16),
        "moment": arrow.timestamp("us", tz="UTC"),
        "text": arrow.string(),
        "bool": arrow.bool_(),
        "int16": arrow.int16(),
        "int32": arrow.int32(),
        "int64": arrow.int64(),
    }
    return arrow.schema([arrow.field(name, kinds[kind], name in UNTOLD) for name, kind in COLUMNS.items()])


def library() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, which take a third of a second; raises ArchiveUnavailable."""
    try:
        import pyarrow  # noqa: PLC0415 - see above
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError as error:
        raise ArchiveUnavailable(
            "old events go to Parquet files, which needs pyarrow: pip install 'penstock[archive]'"
        ) from error
    return pyarrow, pyarrow.parquet


def _batches(path: Path) -> Iterator[Any]:
    arrow, parquet = library()
    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=ROWS_A_GROUP)
    except FileNotFoundError as error:
        raise ArchiveDamaged(f"{path} is not there: put it back, or set PENSTOCK_ARCHIVE_FOLDER") from error
    except (arrow.ArrowException, OSError) as error:
        raise ArchiveDamaged(f"{path} cannot be read ({error}): bring back a copy of it") from error
