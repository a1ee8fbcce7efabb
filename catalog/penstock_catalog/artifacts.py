"""The weights of a model as a folder that is complete, safe to load and exactly what the card names."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from penstock_catalog import digest
from penstock_catalog.cards import FolderSource, HubSource, ModelCard
from penstock_catalog.errors import (
    DigestMismatchError,
    DiskFullError,
    FolderUnusableError,
    NotOnHubError,
    NotPinnedError,
)
from penstock_catalog.hub import Client, Hub, HubFile

PICKLED: Final = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Weights in these are Python pickles: loading one runs whatever its author wrote into it."""

_WANTED: Final = re.compile(
    # The top of the repository, and the numbered module folders of sentence-transformers (1_Pooling).
    r"([0-9]{1,2}_[A-Za-z]+/)?[A-Za-z0-9_][A-Za-z0-9_.-]*"
    r"\.(safetensors|json|txt|jinja|tiktoken|model|model\.v[0-9]+)"
)
_ROOM_BYTES: Final = 256 * 2**20
"""Left free beside the weights, so that a full disk does not stop the database next to them."""


class Progress(NamedTuple):
    """How far one model's download is."""

    model: str
    file: str
    done_bytes: int
    """Of all files together, those of an earlier, interrupted start included."""
    total_bytes: int


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


async def locate(
    card: ModelCard, models_folder: Path, progress: Callable[[Progress], None], hub: Hub | None = None
) -> Path:
    """Give the folder with a card's weights, downloading them first where they are on a hub.

    A download goes to `models_folder/<publisher>--<name>/<commit>/`, which appears only once every file is
    there and verified; an interrupted one goes on where it stopped. Where that folder is already there, the
    hub is not asked. Raises ArtifactError.
    """
    if isinstance(card.source, FolderSource):
        return await asyncio.to_thread(_local, card, card.source)
    hub = hub or Hub()
    if card.source.revision is None:
        commits = f"{hub.endpoint}/{card.source.repository}/commits/main"
        raise NotPinnedError(
            f"{card.id} names no commit of {card.source.repository}, so it cannot be deployed: copy its card"
            " into a folder of your own (PENSTOCK_CARDS), give it an id of your own, and set"
            f" source.revision to a commit listed at {commits}"
        )
    folder = models_folder / card.file_stem / card.source.revision
    try:
        if not folder.exists():
            await _fill(card, card.source, folder, progress, hub)
    except OSError as error:
        text = f"{card.id}: cannot write {error.filename or folder}: {error.strerror or error}"
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise (DiskFullError if full else FolderUnusableError)(text) from error
    await asyncio.to_thread(check_folder, folder)
    return folder


def check_folder(folder: Path) -> None:
    """Raise FolderUnusableError unless vLLM can load the folder and nothing in it can run code."""
    if not folder.is_dir():
        raise FolderUnusableError(f"{folder} is not a folder: it should hold config.json and *.safetensors")
    names = {path.name for path in folder.iterdir()}
    if pickled := sorted(name for name in names if name.endswith(PICKLED)):
        raise FolderUnusableError(
            f"{folder} holds {', '.join(pickled)}: loading pickled weights can run code;"
            " convert them to safetensors, or remove them where *.safetensors lie beside them"
        )
    if "config.json" not in names:
        raise FolderUnusableError(f"{folder} has no config.json")
    if not any(name.endswith(".safetensors") for name in names):
        raise FolderUnusableError(f"{folder} has no *.safetensors")
    for index in sorted(name for name in names if name.endswith(".safetensors.index.json")):
        if missing := sorted(_shards(folder / index) - names):
            raise FolderUnusableError(f"{folder} lacks {', '.join(missing)}, which {index} names")


def _shards(index: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FolderUnusableError(f"{index} is not readable: {error}") from None


def _local(card: ModelCard, source: FolderSource) -> Path:
    folder = Path(source.path)
    try:
        check_folder(folder)
    except FolderUnusableError as error:
        raise FolderUnusableError(f"{card.id}: {error}") from None
    if source.digest is not None and (found := digest.of_folder(folder)) != source.digest:
        raise DigestMismatchError(
            f"{card.id}: {folder} has digest {found}, but its card says {source.digest}"
        )
    return folder


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Hold a lock so that of several processes one downloads and the others find it done."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(0.2)
        yield
    finally:
        os.close(lock)


async def _fill(
    card: ModelCard, source: HubSource, folder: Path, progress: Callable[[Progress], None], hub: Hub
) -> None:
    async with _alone(folder):
        if await asyncio.to_thread(folder.exists):
            return
        partial = folder.with_name(f"{folder.name}.partial")
        await _download(card, source, partial, progress, hub)
        partial.rename(folder)


async def _download(
    card: ModelCard, source: HubSource, partial: Path, progress: Callable[[Progress], None], hub: Hub
) -> None:
    revision = source.revision or ""
    async with Client(hub) as client:
        files = wanted(card, source, await client.files(source.repository, revision))
        total = sum(file.size_bytes for file in files)
        done = 0
        _make_room(card, partial, files)
        for file in files:
            target = partial / file.path
            if not target.exists():
                part = target.with_name(f"{target.name}.part")

                def arrived(size: int, file: HubFile = file, before: int = done) -> None:
                    progress(Progress(card.id, file.path, before + size, total))

                await client.download(source.repository, revision, file, part, arrived)
                await asyncio.to_thread(_verify, card, part, file, source.digests.get(file.path))
                part.rename(target)
            done += file.size_bytes
            progress(Progress(card.id, file.path, done, total))


def wanted(card: ModelCard, source: HubSource, files: list[HubFile]) -> list[HubFile]:
    """Choose from a repository what an engine loads: weights once, and safely; no code, no pickles.

    Raises FolderUnusableError where config.json or safetensors are missing, NotOnHubError where the card
    has a digest of a file that is not there.
    """
    chosen = {file.path: file for file in files if _WANTED.fullmatch(file.path)}
    top = {path for path in chosen if ".safetensors" in path and "/" not in path}
    mistral = card.engine.extra.get("load-format") == "mistral"
    ours = {path for path in top if path.startswith("consolidated") == mistral}
    if "config.json" not in chosen or not any(path.endswith(".safetensors") for path in top):
        raise FolderUnusableError(
            f"{source.repository} has no config.json or no *.safetensors at its top:"
            " Penstock loads no other weights, as pickles can run code"
        )
    # Some publishers store the same weights twice, as model-* and as consolidated*.
    for path in top - (ours or top):
        del chosen[path]
    if absent := sorted(set(source.digests) - set(chosen)):
        raise NotOnHubError(
            f"{card.id}: source.digests names {', '.join(absent)}, not among {source.repository}'s files"
        )
    return sorted(chosen.values())


def _make_room(card: ModelCard, partial: Path, files: list[HubFile]) -> None:
    for file in files:
        (partial / file.path).parent.mkdir(parents=True, exist_ok=True)
    here = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    need = sum(file.size_bytes for file in files) - here + _ROOM_BYTES
    free = shutil.disk_usage(partial).free
    if need > free:
        raise DiskFullError(
            f"{card.id} needs {need / 2**30:.1f} GiB more on the disk of {partial.parent}, which has"
            f" {free / 2**30:.1f} GiB free: make room, or move the state folder (PENSTOCK_HOME)"
        )


def _verify(card: ModelCard, part: Path, file: HubFile, promised: str | None) -> None:
    """Compare bytes on the disk with every digest known of them, and make them durable."""
    sha256 = digest.of_file(part)
    checks = [("the card", promised, sha256), ("the hub", file.sha256, sha256)]
    if file.sha256 is None:
        checks.append(("the commit", file.git_sha1, _git_sha1(part)))
    for who, said, found in checks:
        if said is not None and said != found:
            part.unlink()
            raise DigestMismatchError(
                f"{card.id}: {file.path} has digest {found}, but {who} says {said}; the file was removed:"
                " start again, and if it comes back, do not trust that hub"
            )
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _git_sha1(file: Path) -> str:
    # Git names a file's contents so; it is the hub's only digest of small files.
    summed = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    summed.update(file.read_bytes())
    return summed.hexdigest()
