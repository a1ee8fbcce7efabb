"""A client of a model hub (the Hugging Face protocol): what a commit holds, and its files, resumably.

It speaks to the configured address and to where that redirects, and nowhere else; the token goes to the
configured address only (httpx drops it when a redirect leaves the host).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from penstock_catalog.errors import (
    ArtifactError,
    HubNonsenseError,
    HubRefusedError,
    HubUnreachableError,
    NotOnHubError,
)

HUGGING_FACE: Final = "https://huggingface.co"
_PAGES_MAX = 100
_T = TypeVar("_T")


class Hub(NamedTuple):
    """Where weights come from, and how patiently."""

    endpoint: str = HUGGING_FACE
    """Address of the hub or of a mirror of it."""
    token: str | None = None
    """For gated and private repositories."""
    retries: int = 4
    """Tries after the first that bring no further byte before giving up."""
    retry_pause_s: float = 1.0
    """Pause before the first of them; it doubles each time."""


class HubFile(NamedTuple):
    """One file of a commit as the hub lists it."""

    path: str
    size_bytes: int
    sha256: str | None
    """Known for large files only; small ones have git_sha1."""
    git_sha1: str
    """Git's own id of the file's contents (of the pointer, for large files)."""


class _Lfs(msgspec.Struct):
    oid: str
    size: int


class _Entry(msgspec.Struct):
    type: str
    path: str
    oid: str
    size: int = 0
    lfs: _Lfs | None = None


class _Revision(msgspec.Struct):
    sha: str


class Client:
    """Reads one hub; use it as an async context manager."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._base = hub.endpoint.rstrip("/")
        headers = {"User-Agent": "penstock", "Accept-Encoding": "identity"}
        if hub.token:
            headers["Authorization"] = f"Bearer {hub.token}"
        timeout = httpx.Timeout(30, read=60)
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, follow_redirects=True)

    async def __aenter__(self) -> Self:
        """Open the connections' pool."""
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        await self._http.__aexit__(kind, error, trace)

    async def files(self, repository: str, revision: str) -> list[HubFile]:
        """List every file of a commit. Raises ArtifactError where the hub does not have exactly it."""
        url = f"{self._base}/api/models/{repository}"
        stated = _decoded(await self._read(f"{url}/revision/{revision}", {}, repository), _Revision)
        if stated.sha != revision:
            text = f"{self._base} answers commit {stated.sha} of {repository} when asked for {revision}"
            raise HubNonsenseError(text)
        entries: list[_Entry] = []
        query = {"recursive": "true"}
        for _ in range(_PAGES_MAX):
            response = await self._read(f"{url}/tree/{revision}", query, repository)
            entries += _decoded(response, list[_Entry])
            following = response.links.get("next", {}).get("url")
            if not following:
                break
            # Only the cursor is taken from the link: a mirror's may point at another host.
            query = dict(httpx.URL(following).params)
        else:
            raise HubNonsenseError(f"{repository} lists its files in more than {_PAGES_MAX} pages")
        return [_file(entry) for entry in entries if entry.type == "file"]

    async def download(
        self, repository: str, revision: str, file: HubFile, part: Path, arrived: Callable[[int], None]
    ) -> None:
        """Bring a file's bytes into `part`, going on where it ends; `arrived` hears its size as it grows.

        A broken connection is tried again as `Hub` says. The bytes are not verified here.
        Raises ArtifactError, and OSError of the disk; what arrived so far stays in `part`.
        """
        failures = 0
        while (had := _size(part)) < file.size_bytes:
            try:
                await self._stream(repository, revision, file, part, arrived)
            except HubUnreachableError:
                failures = 1 if _size(part) > had else failures + 1
                if failures > self._hub.retries:
                    raise
                await asyncio.sleep(self._hub.retry_pause_s * 2 ** (failures - 1))

    async def _stream(
        self, repository: str, revision: str, file: HubFile, part: Path, arrived: Callable[[int], None]
    ) -> None:
        url = f"{self._base}/{repository}/resolve/{revision}/{quote(file.path)}"
        had = max(_size(part), 0)
        headers = {"Range": f"bytes={had}-"} if had else {}
        async with self._answer(url, {}, headers, f"{repository}/{file.path}") as response:
            _same_commit(response, revision)
            resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                raise HubNonsenseError(f"{url} answers another part of the file than was asked for")
            size = had if resumed else 0
            out = await asyncio.to_thread(part.open, "ab" if resumed else "wb")
            try:
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > file.size_bytes:
                        raise HubNonsenseError(f"{url} is longer than the {file.size_bytes} bytes listed")
                    await asyncio.to_thread(out.write, chunk)
                    arrived(size)
            finally:
                await asyncio.to_thread(out.close)
        if size < file.size_bytes:
            raise HubUnreachableError(
                f"{url} ended after {size} of {file.size_bytes} bytes; start again to go on"
            )

    async def _read(self, url: str, query: dict[str, str], what: str) -> httpx.Response:
        """GET a small answer whole, with the patience `Hub` says."""
        failures = 0
        while True:
            try:
                async with self._answer(url, query, {}, what) as response:
                    await response.aread()
                    return response
            except HubUnreachableError:
                failures += 1
                if failures > self._hub.retries:
                    raise
                await asyncio.sleep(self._hub.retry_pause_s * 2 ** (failures - 1))

    @asynccontextmanager
    async def _answer(
        self, url: str, query: dict[str, str], headers: dict[str, str], what: str
    ) -> AsyncIterator[httpx.Response]:
        """Stream a good answer; every other becomes an ArtifactError that says what to do."""
        try:
            async with self._http.stream("GET", url, params=query, headers=headers) as response:
                if not response.is_success:
                    raise self._refusal(response, what)
                yield response
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            text = (
                f"{self._base} cannot be reached or broke off ({reason}): check the network, then start again"
            )
            raise HubUnreachableError(text) from error
        except (httpx.TooManyRedirects, httpx.DecodingError, httpx.InvalidURL) as error:
            raise HubNonsenseError(f"{url} does not answer as a hub does: {error}") from error

    def _refusal(self, response: httpx.Response, what: str) -> ArtifactError:
        code = response.headers.get("X-Error-Code", "")
        status = response.status_code
        page = f"{self._base}/{'/'.join(what.split('/')[:2])}"
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            if code == "RepoNotFound":
                return HubRefusedError(
                    f"{what} does not exist on {self._base} or is private: check source.repository,"
                    " or set PENSTOCK_HUB_TOKEN to a token that may read it"
                )
            need = (
                "this PENSTOCK_HUB_TOKEN may not read it"
                if self._hub.token
                else "PENSTOCK_HUB_TOKEN is not set"
            )
            return HubRefusedError(
                f"{what} is gated and {need}: accept its terms at {page},"
                " and set PENSTOCK_HUB_TOKEN to a token of the account that accepted them"
            )
        if status == httpx.codes.NOT_FOUND:
            missing = {"RevisionNotFound": "the commit of", "EntryNotFound": "the file"}.get(code, "")
            return NotOnHubError(
                f"{missing} {what} is not on {self._base}: check source.repository and revision".strip()
            )
        if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            return HubUnreachableError(f"{self._base} answers {status} for {what}: start again later")
        return HubNonsenseError(f"{self._base} answers {status} for {what}: is it a model hub?")


def _decoded(response: httpx.Response, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HubNonsenseError(f"{response.url} does not answer as a hub does: {error}") from None


def _file(entry: _Entry) -> HubFile:
    sha256 = entry.lfs.oid.removeprefix("sha256:") if entry.lfs else None
    return HubFile(entry.path, entry.lfs.size if entry.lfs else entry.size, sha256, entry.oid)


def _same_commit(response: httpx.Response, revision: str) -> None:
    """The hub names the commit it serves in its first answer, before any redirect to a store of files."""
    first = (response.history or [response])[0]
    commit = first.headers.get("X-Repo-Commit", revision)
    if commit != revision:
        raise HubNonsenseError(f"{first.url} is of commit {commit}, not of {revision}")


def _size(part: Path) -> int:
    """Bytes that are there; -1 for no file, so that an empty file counts as something to fetch."""
    return part.stat().st_size if part.exists() else -1
