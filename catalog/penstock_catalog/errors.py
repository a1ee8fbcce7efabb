"""What can go wrong in the catalog, one class per decision a caller can take.

CatalogError
├── CardError              cards are wrong; `problems` lists all of them: do not start
└── ArtifactError          one model's weights cannot be had
    ├── NotPinnedError        the card names no commit: pin it
    ├── FolderUnusableError   a local folder is missing, incomplete or unsafe: mend it
    ├── HubUnreachableError   the network or the hub is down: worth another try
    ├── HubRefusedError       the hub wants a token, or this one has no access
    ├── NotOnHubError         no such repository, commit or file
    ├── HubNonsenseError      what answers does not speak as a hub does
    ├── DigestMismatchError   the bytes are not those that were promised; they were removed
    └── DiskFullError         too little room for the weights
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class CatalogError(Exception):
    """Anything this package raises for others to handle."""


class FileProblem(NamedTuple):
    """One thing wrong in a file: the file, the line (from 1), the field's path and what is wrong."""

    file: Path
    line: int
    field: str
    problem: str

    def __str__(self) -> str:
        """Write `file:line: field: problem`, as compilers do and editors follow."""
        where = f"{self.file}:{self.line}: "
        return where + (f"{self.field}: {self.problem}" if self.field else self.problem)


class CardError(CatalogError):
    """One or more cards are wrong; its text has one line per problem."""

    def __init__(self, problems: list[FileProblem]) -> None:
        self.problems = sorted(problems, key=lambda each: (str(each.file), each.line))
        super().__init__("\n".join(map(str, self.problems)))


class ArtifactError(CatalogError):
    """The weights of one model cannot be had; the text says why and what to do."""


class NotPinnedError(ArtifactError):
    """The card of a hub model names no commit, so what would be served is not fixed."""


class FolderUnusableError(ArtifactError):
    """A folder of weights is missing, incomplete, or holds files that could run code."""


class HubUnreachableError(ArtifactError):
    """No answer, or a server error, from the hub: worth another try later."""


class HubRefusedError(ArtifactError):
    """The hub wants a token, or the token has no access to the repository."""


class NotOnHubError(ArtifactError):
    """The hub has no such repository, commit or file."""


class HubNonsenseError(ArtifactError):
    """The answer is not a hub's: a proxy's page, another service, other bytes than were asked for."""


class DigestMismatchError(ArtifactError):
    """Bytes differ from what the hub or the card promised; the file was removed."""


class DiskFullError(ArtifactError):
    """The disk has too little room for the weights."""
