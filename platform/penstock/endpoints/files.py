"""Serverless endpoints as YAML files, with the field names that Azure Machine Learning's have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml
from msgspec import Meta, field

from penstock.access import limits
from penstock.access.limits import RateLimits
from penstock.endpoints.serverless import Endpoint, EndpointError, Wish, check_name, check_wish
from penstock_catalog import nodes
from penstock_catalog.cards import Checked
from penstock_catalog.errors import FileProblem
from penstock_catalog.structures import StructReader

AZURE = "azureml://"
Text = Annotated[str, Meta(max_length=1000, description="text of at most 1000 characters")]
Most = Annotated[int, Meta(ge=1, le=10**12, description="a whole number of 1 or more")]


class FileRefused(Exception):
    """A file that is no endpoint: every problem with its line."""

    def __init__(self, problems: list[FileProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))


class LimitsFields(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`limits:` of a file."""

    requests_per_minute: Annotated[Most | None, Meta(description="requests of all keys in a minute")] = None
    tokens_per_minute: Annotated[Most | None, Meta(description="tokens of all keys in a minute")] = None
    concurrent_requests: Annotated[Most | None, Meta(description="requests at once")] = None


class EndpointFile(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One serverless endpoint."""

    name: Annotated[Text, Meta(description="of the endpoint; a part of its URL")]
    model_id: Annotated[
        Text, Meta(description="a model of the catalog, or an azureml:// id that ends in one")
    ]
    description: Annotated[Text, Meta(description="what it is for")] = ""
    tags: Annotated[dict[str, str], Meta(description="names and values of your own")] = field(
        default_factory=dict
    )
    auth_mode: Annotated[Text, Meta(description="key")] = "key"
    limits: Annotated[LimitsFields, Meta(description="for those who want them")] = LimitsFields()

    def relations(self) -> Iterator[tuple[str, str]]:
        """Yield what the endpoint itself would be refused for."""
        try:
            check_name(self.name)
            check_wish(self.wish)
        except EndpointError as error:
            yield error.field, str(error)
        if self.auth_mode.lower() != "key":
            yield "auth_mode", f"{self.auth_mode!r} is not accepted: serverless endpoints have keys (key)"
        if self.model_id.startswith(AZURE) and "/versions/" in self.model_id:
            yield "model_id", "a version is not accepted: an endpoint serves what its model's pool runs"

    def model(self, offered: Iterable[str]) -> str:
        """The model's id in our catalog, out of those that it offers.

        An azureml:// id names a registry where ours names a publisher: the model's own name decides, as long
        as it is one model's only.
        """
        if not self.model_id.startswith(AZURE):
            return self.model_id
        name = self.model_id.rpartition("/")[2].lower()
        named = [each for each in offered if each.partition("/")[2] == name]
        return named[0] if len(named) == 1 else name

    @property
    def wish(self) -> Wish:
        """What of it may be changed later."""
        wanted = RateLimits(
            requests_per_minute=self.limits.requests_per_minute,
            tokens_per_minute=self.limits.tokens_per_minute,
            concurrent_requests=self.limits.concurrent_requests,
        )
        return Wish(
            description=self.description,
            tags=self.tags,
            limits=limits.NONE if wanted == limits.NONE else wanted,
        )


def written(endpoint: Endpoint) -> str:
    """Write an endpoint as a file that makes another like it; what it leaves to the default is left out."""
    fields: dict[str, Any] = {"name": endpoint.name, "model_id": endpoint.model}
    if endpoint.description:
        fields["description"] = endpoint.description
    fields["auth_mode"] = "key"
    if endpoint.tags:
        fields["tags"] = dict(endpoint.tags)
    if endpoint.limits != limits.NONE:
        fields["limits"] = msgspec.to_builtins(endpoint.limits)
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)


def read(file: Path) -> EndpointFile:
    """Read and check a file; raises FileRefused with every problem and its line."""
    try:
        root = nodes.compose(file.read_bytes())
    except OSError as error:
        raise FileRefused([FileProblem(file, 1, "", f"cannot be read: {error.strerror}")]) from None
    except nodes.YamlRefusedError as error:
        raise FileRefused([FileProblem(file, error.line, "", str(error))]) from None
    if isinstance(root, yaml.MappingNode):
        # Azure's own files begin with it; it names their schema, not ours.
        root.value = [(key, value) for key, value in root.value if key.value != "$schema"]
    reader = StructReader(file)
    found = reader.struct(root, EndpointFile, "")
    if reader.problems or not isinstance(found, EndpointFile):
        raise FileRefused(reader.problems)
    return found
