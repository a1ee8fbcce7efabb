"""Who runs the servers that refuse to run as root, and which folders that account can enter."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from penstock.local import problems

PREFERRED = ("penstock", "nobody")
"""An account made for Penstock is used where there is one; `nobody` exists on every Linux."""


@dataclass(frozen=True)
class Account:
    """An unprivileged account that a child process changes to."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Choose the account for PostgreSQL and Valkey; None when we are not root and need no other.

    Raises LocalError when root has no such account, or we run under a number that has no name:
    PostgreSQL's initdb looks its own name up and refuses without.
    """
    uid = os.geteuid()
    if uid != 0:
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise problems.LocalError(
                f"PostgreSQL needs a named account, but user id {uid} is not in /etc/passwd: "
                "run as a named account, or set PENSTOCK_DATABASE_URL to a database of your own"
            ) from None
        return None
    for name in PREFERRED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise problems.LocalError(
        "PostgreSQL never runs as root and neither `penstock` nor `nobody` exists: "
        "create one with `useradd --system penstock`"
    )


def can_enter(account: Account | None, folder: Path) -> bool:
    """Tell whether the account may pass through every folder down to this one; without one, we may."""
    if account is None:
        return True
    resolved = folder.resolve()
    return all(_may_search(account, part) for part in (resolved, *resolved.parents))


def _may_search(account: Account, folder: Path) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def own_folder(folder: Path, account: Account | None) -> None:
    """Make a folder that only the account (or ourselves) may enter; its parents stay as they are."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None and folder.stat().st_uid != account.uid:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)
