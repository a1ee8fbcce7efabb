"""What can be wrong with an adapter, one class per decision a caller can take.

AdapterError
├── AdapterRefused       it cannot be served: another file, base or name is needed
│   └── AdapterTooLarge  it is larger than is taken here
├── UnknownAdapter       the organisation has none of this name
├── TooManyUploads       the organisation sends others at this moment
└── NoRoom               this machine's disk is full: not the caller's mistake
"""

from __future__ import annotations


class AdapterError(Exception):
    """Something is wrong with an adapter."""


class AdapterRefused(AdapterError):
    """It cannot be taken as it is; `field` is the part of the upload that is wrong."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


class AdapterTooLarge(AdapterRefused):
    """A file, or all files of an organisation together, are larger than is accepted."""


class UnknownAdapter(AdapterError):
    """The organisation has no adapter of this name, or not this version of it."""

    def __init__(self, name: str, version: int | None = None) -> None:
        what = f"version {version} of " if version is not None else ""
        super().__init__(f"there is no {what}adapter named {name[:40]!r} here; see `penstock adapters list`")


class TooManyUploads(AdapterError):
    """The organisation uploads as many at once as it may."""

    def __init__(self, most: int) -> None:
        super().__init__(f"{most} uploads of yours are running, the most at once: wait for one to end")
        self.retry_after_s = 5


class NoRoom(AdapterError):
    """The disk that adapters are kept on is full; nothing of the upload is left on it."""
