"""Unix socket paths: the kernel takes 107 bytes, so a socket deep down is reached through a short link."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from penstock.local import problems

PATH_BYTES_MAX = 107
"""sizeof(sockaddr_un.sun_path) on Linux is 108, with the closing zero."""


def check(path: Path, home: Path) -> None:
    """Raise StateError for a socket path that is too long, saying how long the state folder's may be."""
    excess = len(os.fsencode(path)) - PATH_BYTES_MAX
    if excess > 0:
        raise problems.StateError(
            f"{home} is too long a path: with it an engine's socket has {PATH_BYTES_MAX + excess} bytes and "
            f"the system takes {PATH_BYTES_MAX}; set PENSTOCK_HOME to a path of at most "
            f"{len(os.fsencode(home)) - excess} bytes"
        )


def short_way(folder: Path, socket_name: str) -> Path:
    """Give a path to `folder` that is short enough to connect to `socket_name` in it.

    That is the folder itself, or a link to it in a private folder of the system's temporary folder. Raises
    LocalError when that private folder belongs to somebody else.
    """
    if len(os.fsencode(folder / socket_name)) <= PATH_BYTES_MAX:
        return folder
    private = Path(tempfile.gettempdir()) / f"penstock-{os.geteuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise problems.LocalError(
            f"{private} must be a folder of yours alone, for links to sockets: remove it, or set "
            f"PENSTOCK_HOME to a path shorter than {folder.parent.parent}"
        )
    link = private / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink():
        link.symlink_to(folder)
    return link
