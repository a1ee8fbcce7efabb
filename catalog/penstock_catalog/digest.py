"""One SHA-256 for a folder of files: what makes a model version a fixed thing."""

from __future__ import annotations

import hashlib
from pathlib import Path


def of_file(file: Path) -> str:
    """SHA-256 of one file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def of_folder(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files below a folder, in hexadecimal.

    It is the digest of the text that `sha256sum` writes for the files in byte order of their paths, one
    `digest, two spaces, path, newline` line each, so anyone can check it with a shell:
    `find . -type f ! -path '*/.*' -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum`.
    A link to a file counts as the file. Hidden files and folders do not count: they are tools' notes, not
    the model. Raises ValueError for a name with a line break or a backslash, which could forge a line.
    """
    lines = [f"{of_file(folder / path)}  {path}\n" for path in files(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files(folder: Path) -> list[str]:
    """Paths, with "/" and relative to the folder, of all files that count, in byte order."""
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    for path in found:
        if "\n" in path or "\\" in path:
            raise ValueError(f"{path!r} has a line break or a backslash in its name: rename it")
    return sorted(found, key=lambda path: path.encode())
