"""What a model card says: the schema of the YAML files in this folder, and the rules between their fields.

A field's annotation holds its own rule (the first `Meta`: a bound or pattern, and in words what is accepted)
and what it means (the last `Meta`). Rules between fields are in each struct's `relations`, checked whenever
one is made. The schema is the folder's `__init__` because a module may not share its name with a data folder.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct

from penstock_base import money
from penstock_catalog import flags

GIB: Final = 2**30
ADAPTER_RANKS: Final = (0, 8, 16, 32, 64, 128, 256)
"""Of the ranks that vLLM makes room for (vllm.config.lora.MaxLoRARanks)."""
ATTENTION_PUBLISHED: Final = datetime.date(2017, 6, 12)
"""No model that vLLM serves is older than the transformer itself."""

SPDX_LICENCES: Final = frozenset(
    {
        "AGPL-3.0-only", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC-BY-NC-4.0",
        "CC-BY-NC-SA-4.0", "CC-BY-SA-4.0", "CC0-1.0", "GPL-3.0-only", "ISC", "LGPL-3.0-only", "MIT",
        "MPL-2.0",
    }
)  # fmt: skip
"""Licences whose text everyone finds by name; any other needs `licence_url`."""


class InvalidFieldsError(ValueError):
    """Fields well formed alone but not together; `problems` pairs each field's path with what is wrong."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {problem}" for field, problem in problems))
        self.problems = problems


class Meaningful(StrEnum):
    """A word of the cards' vocabulary together with what it means, for the reference and for the portal."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Meaningful:
        """Keep the meaning beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Task(Meaningful):
    """What the model is for; it decides the API routes and how vLLM runs it."""

    CHAT = "chat", "answers conversations and completes text"
    EMBEDDING = "embedding", "turns text into a vector"
    RERANKING = "reranking", "scores how well documents answer a query"
    TRANSCRIPTION = "transcription", "writes down speech"


class Capability(Meaningful):
    """What the model can do beyond its task; people filter by it and requests are checked against it."""

    STREAMING = "streaming", "sends tokens as they are made"
    TOOLS = "tools", "calls functions the client describes"
    STRUCTURED_OUTPUT = "structured_output", "keeps to a JSON schema, a grammar or a choice"
    REASONING = "reasoning", "thinks before it answers, and shows the thought apart from the answer"
    CODE = "code", "is trained to write and explain programs"
    VISION = "vision", "reads images in messages"
    AUDIO = "audio", "hears sound"
    LOGPROBS = "logprobs", "tells how likely each token was"
    MULTILINGUAL = "multilingual", "is trained for several natural languages"
    LONG_CONTEXT = "long_context", "takes 100,000 tokens or more"
    SHORTER_EMBEDDINGS = "shorter_embeddings", "its vectors may be cut to fewer dimensions"


class EndpointKind(Meaningful):
    """The kinds of endpoint that may serve the model."""

    SERVERLESS = "serverless", "the shared pool, paid by the token"
    ONLINE = "online", "engines of one's own, paid by the minute"
    BATCH = "batch", "files in, files out, later"


class Dtype(Meaningful):
    """Number format in which the engine computes."""

    AUTO = "auto", "as the weights say"
    BFLOAT16 = "bfloat16", "16 bits, wide range"
    FLOAT16 = "float16", "16 bits, finer, narrow range"
    FLOAT32 = "float32", "32 bits"


ModelId = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z0-9](?!.*--)[a-z0-9._-]*/[a-z0-9][a-z0-9._-]*\Z",
        max_length=100,
        description='publisher/name in small letters, digits, ".", "_" and single "-", such as qwen/qwen3-8b',
    ),
]
Line = Annotated[
    str, Meta(pattern=r"\A\S(.*\S)?\Z", max_length=400, description="one line of 1 to 400 characters")
]
HttpsUrl = Annotated[str, Meta(pattern=r"\Ahttps://[^\s<>\"]+\Z", description="an https:// address")]
Language = Annotated[
    str,
    Meta(
        pattern=r"\A[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?\Z",
        description="a language tag (BCP 47) such as en, zh-Hant or pt-BR",
    ),
]
UsdPerMillion = Annotated[
    str,
    Meta(
        pattern=r"\A[0-9]{1,6}(\.[0-9]{1,6})?\Z",
        description="a decimal number such as 0.15, in quotes, with at most 6 decimals",
    ),
]
Commit = Annotated[str, Meta(pattern=r"\A[0-9a-f]{40}\Z", description="a full commit: 40 hexadecimal digits")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="a SHA-256: 64 hexadecimal digits")]
Repository = Annotated[
    str,
    Meta(
        pattern=r"\A[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z",
        description="a hub repository such as Qwen/Qwen3-8B",
    ),
]
ParserName = Annotated[
    str, Meta(pattern=r"\A[a-z][a-z0-9_]{0,40}\Z", description="a name vLLM knows, such as hermes")
]
AtLeastOne = Meta(min_length=1, description="a list of at least one")
Count = Annotated[int, Meta(ge=1, description="a whole number of 1 or more")]
Bits = Annotated[int, Meta(ge=2, le=32, description="a whole number from 2 to 32")]
Gib = Annotated[float, Meta(gt=0, description="a number above 0")]
CacheMib = Annotated[int, Meta(ge=16, le=1_048_576, description="a whole number from 16 to 1048576")]
Requests = Annotated[int, Meta(ge=1, le=4096, description="a whole number from 1 to 4096")]
Choices = Annotated[int, Meta(ge=1, le=128, description="a whole number from 1 to 128")]
AdapterRank = Annotated[int, Meta(ge=0, le=256, description="one of 0, 8, 16, 32, 64, 128, 256")]
Adapters = Annotated[int, Meta(ge=1, le=256, description="a whole number from 1 to 256")]
Notes = Annotated[str, Meta(max_length=2000, description="text of at most 2000 characters")]


class Checked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A struct whose fields are checked against each other when it is made."""

    def relations(self) -> Iterator[tuple[str, str]]:
        """Yield (field, problem) for every rule between fields that does not hold."""
        yield from ()

    def __post_init__(self) -> None:
        """Raise InvalidFieldsError with everything `relations` finds."""
        if problems := list(self.relations()):
            raise InvalidFieldsError(problems)


class Prices(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per 1M tokens, as text so that no float ever touches money."""

    input: Annotated[UsdPerMillion, Meta(description="prompt tokens")]
    cached_input: Annotated[UsdPerMillion, Meta(description="prompt tokens found in the cache")]
    output: Annotated[UsdPerMillion, Meta(description="tokens made, thoughts included")]

    @property
    def input_pico_usd(self) -> int:
        """Pico-dollars per prompt token."""
        return money.usd_per_million_to_pico(self.input)

    @property
    def cached_input_pico_usd(self) -> int:
        """Pico-dollars per prompt token that came from the prefix cache."""
        return money.usd_per_million_to_pico(self.cached_input)

    @property
    def output_pico_usd(self) -> int:
        """Pico-dollars per generated token."""
        return money.usd_per_million_to_pico(self.output)

    def relations(self) -> Iterator[tuple[str, str]]:
        """Say so where a cached token costs more than a fresh one."""
        if self.cached_input_pico_usd > self.input_pico_usd:
            yield (
                "cached_input",
                f"{self.cached_input} is more than input ({self.input}); at most that is accepted",
            )


class FolderSource(
    Checked, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="folder"
):
    """Weights that already lie in a folder of this machine."""

    path: Annotated[Line, Meta(description="the folder; relative to the card's own folder, or absolute")]
    digest: Annotated[Sha256 | None, Meta(description="of the whole folder (`penstock_catalog.digest`)")] = (
        None
    )


class HubSource(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="hub"):
    """Weights in a repository of a model hub."""

    repository: Annotated[Repository, Meta(description="owner/name on the hub")]
    revision: Annotated[
        Commit | None, Meta(description="the commit to serve; null: not deployable until pinned")
    ] = None
    digests: Annotated[
        dict[str, Sha256], Meta(description="file name to SHA-256, checked beside the hub's own")
    ] = {}

    def relations(self) -> Iterator[tuple[str, str]]:
        """Say so where digests are given for no particular commit."""
        if self.digests and self.revision is None:
            yield "digests", "digests belong to one commit: state revision too"


class EngineSettings(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How vLLM runs the model."""

    dtype: Annotated[Dtype, Meta(description="number format computed in")] = Dtype.AUTO
    max_concurrent_requests: Annotated[Requests, Meta(description="requests computed together")] = 64
    kv_cache_mib: Annotated[CacheMib, Meta(description="MiB of cache on a CPU engine")] = 1024
    tool_parser: Annotated[ParserName | None, Meta(description="vLLM's parser of tool calls")] = None
    reasoning_parser: Annotated[ParserName | None, Meta(description="vLLM's parser of thoughts")] = None
    max_output_tokens: Annotated[
        Count | None, Meta(description="most tokens of one answer; null: the context")
    ] = None
    choices_max: Annotated[Choices, Meta(description="most choices (`n`) of one request")] = 8
    adapter_rank_max: Annotated[AdapterRank, Meta(description="largest rank of adapters; 0: takes none")] = 0
    adapters_together: Annotated[Adapters, Meta(description="adapters computed together in one step")] = 4
    adapters_kept: Annotated[
        Adapters, Meta(description="adapters in an engine's memory; at least adapters_together")
    ] = 16
    extra: Annotated[dict[str, str], Meta(description="reviewed vLLM flags, without dashes; see below")] = {}

    def relations(self) -> Iterator[tuple[str, str]]:
        """Refuse every flag that was not reviewed, and values of another shape."""
        for name, value in self.extra.items():
            if problem := flags.problem(name, value):
                yield f"extra.{name}", problem
        if self.adapter_rank_max not in ADAPTER_RANKS:
            ranks = ", ".join(str(rank) for rank in ADAPTER_RANKS)
            yield "adapter_rank_max", f"{self.adapter_rank_max} is not one of {ranks}"
        if self.adapters_kept < self.adapters_together:
            yield (
                "adapters_kept",
                f"{self.adapters_kept} is less than adapters_together ({self.adapters_together})",
            )


class ModelCard(Checked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything Penstock knows about one model before its weights are here."""

    id: Annotated[ModelId, Meta(description="publisher/name, the public model id")]
    name: Annotated[Line, Meta(description="as people write it")]
    publisher: Annotated[Line, Meta(description="who published the weights")]
    summary: Annotated[Line, Meta(description="one or two sentences: what it is good for")]
    task: Annotated[Task, Meta(description="what it is for")]
    capabilities: Annotated[list[Capability], Meta(description="what it can do beyond its task")]
    languages: Annotated[list[Language], AtLeastOne, Meta(description="natural languages it is made for")]
    licence: Annotated[Line, Meta(description="SPDX id, or a name together with licence_url")]
    licence_url: Annotated[HttpsUrl | None, Meta(description="text of the licence")] = None
    parameters: Annotated[Count, Meta(description="all weights")]
    active_parameters: Annotated[
        Count | None, Meta(description="weights used per token (mixture of experts)")
    ] = None
    weight_bits: Annotated[Bits, Meta(description="bits per weight as published")] = 16
    context_length: Annotated[Count, Meta(description="tokens of prompt and answer together")]
    embedding_dimensions: Annotated[
        Count | None, Meta(description="length of its vectors; embeddings only")
    ] = None
    released: Annotated[datetime.date, Meta(description="day of publication, YYYY-MM-DD")]
    gpu_memory_gib: Annotated[Gib, Meta(description="GiB for the published weights and working room")]
    demonstration: Annotated[bool, Meta(description="shows the system, gives no useful answers")] = False
    shared_prefix_cache: Annotated[
        bool,
        Meta(description="tenants share cached prompt beginnings, and can tell what was asked"),
    ] = False
    notes: Annotated[Notes, Meta(description="what else a user should know")] = ""
    source: Annotated[FolderSource | HubSource, Meta(description="where the weights are")]
    prices: Annotated[Prices, Meta(description="US dollars per 1M tokens")]
    endpoints: Annotated[list[EndpointKind], AtLeastOne, Meta(description="kinds that may serve it")]
    engine: Annotated[EngineSettings, Meta(description="how vLLM runs it")] = EngineSettings()

    @property
    def file_stem(self) -> str:
        """Name of the card's file and of its folder of weights: the id with "--" for the slash."""
        return self.id.replace("/", "--")

    @property
    def max_output_tokens(self) -> int:
        """Most tokens one answer may have: the engine setting, or else the whole context."""
        return self.engine.max_output_tokens or self.context_length

    def relations(self) -> Iterator[tuple[str, str]]:
        """Yield what a reader of the card would call a contradiction."""
        yield from self._lists()
        yield from self._sizes()
        yield from self._engine()
        if self.licence not in SPDX_LICENCES and self.licence_url is None:
            yield (
                "licence",
                f"{self.licence!r} is not one of {', '.join(sorted(SPDX_LICENCES))}; add licence_url",
            )
        if self.released < ATTENTION_PUBLISHED:
            yield "released", f"{self.released} is before the first transformer ({ATTENTION_PUBLISHED})"

    def _lists(self) -> Iterator[tuple[str, str]]:
        for field in ("capabilities", "languages", "endpoints"):
            words: list[str] = getattr(self, field)
            for word in sorted({word for word in words if words.count(word) > 1}):
                yield field, f"{str(word)!r} is there more than once"

    def _sizes(self) -> Iterator[tuple[str, str]]:
        if self.active_parameters is not None and self.active_parameters > self.parameters:
            yield "active_parameters", f"{self.active_parameters} is more than parameters ({self.parameters})"
        weights_gib = self.parameters * self.weight_bits / 8 / GIB
        if self.gpu_memory_gib < weights_gib:
            yield (
                "gpu_memory_gib",
                f"{self.gpu_memory_gib} is less than the weights alone ({weights_gib:.1f} GiB)",
            )
        if self.task is Task.EMBEDDING and self.embedding_dimensions is None:
            yield "embedding_dimensions", "an embedding model states the length of its vectors"
        if self.task is not Task.EMBEDDING and self.embedding_dimensions is not None:
            yield "embedding_dimensions", f"only embedding models have it, and task is {self.task}"

    def _engine(self) -> Iterator[tuple[str, str]]:
        if Capability.TOOLS in self.capabilities and self.engine.tool_parser is None:
            yield (
                "engine.tool_parser",
                "capabilities has tools: name vLLM's parser for this model's tool calls",
            )
        if Capability.REASONING in self.capabilities and self.engine.reasoning_parser is None:
            yield (
                "engine.reasoning_parser",
                "capabilities has reasoning: name vLLM's parser for this model's thoughts",
            )
        if self.engine.adapter_rank_max and self.task is not Task.CHAT:
            yield "engine.adapter_rank_max", f"only chat models take adapters, and task is {self.task}"
        if self.max_output_tokens > self.context_length:
            yield (
                "engine.max_output_tokens",
                f"{self.max_output_tokens} is more than context_length ({self.context_length})",
            )
