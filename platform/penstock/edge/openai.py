"""Understanding OpenAI request bodies: types, fields, and what of them an engine gets to see.

The body is decoded twice: into the few typed fields that we decide by, and into raw field values, of which
the allowed ones are written on untouched. Fields follow OpenAI's API reference and vLLM's documented
extensions; one that neither knows is refused, so that a typing mistake is not silently ignored.
"""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from penstock.edge.refusals import BadRequest
from penstock.serving.call import Surface, UsageView

NonEmpty = Meta(min_length=1)


class MediaUrl(Struct):
    """Where an image, sound or film is."""

    url: str = ""


class Part(Struct):
    """One part of a message's content."""

    type: str
    image_url: MediaUrl | str | None = None
    video_url: MediaUrl | str | None = None
    audio_url: MediaUrl | str | None = None


class Message(Struct):
    """One message of a conversation, as far as we decide by it."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


class StreamOptions(Struct):
    """What a streaming client wants to see of the token count."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Asked(Struct, kw_only=True):
    """The fields that every inference request has or may have."""

    model: str = ""
    """Required where a model is called by its name; an endpoint has one anyhow."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    service_tier: str | None = None
    """`flex` is served after everything else; the other words change nothing here."""
    prompt_cache_key: str | None = None
    """Requests with the same one go to the same engine, where that makes sense."""
    user: str | None = None

    @property
    def output_limit(self) -> tuple[str, int | None]:
        """Name and value of the limit on the answer's length."""
        if self.max_completion_tokens is not None:
            return "max_completion_tokens", self.max_completion_tokens
        return "max_tokens", self.max_tokens

    @property
    def usage_view(self) -> UsageView:
        """What the client asked to see of the count."""
        options = self.stream_options
        if options is None or not (options.include_usage or options.continuous_usage_stats):
            return UsageView.HIDDEN
        return UsageView.CONTINUOUS if options.continuous_usage_stats else UsageView.FINAL


class ChatAsked(Asked, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], NonEmpty]


Inputs = str | list[str | int | list[int]]


class CompletionsAsked(Asked, kw_only=True):
    """POST /v1/completions."""

    prompt: Inputs


class EmbeddingsAsked(Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str = ""
    input: Inputs
    encoding_format: str | None = None
    dimensions: int | None = None


SAMPLING = {
    *("frequency_penalty", "logit_bias", "max_tokens", "n", "presence_penalty", "seed", "stop", "stream"),
    *("temperature", "top_p"),
    # vLLM's own (its documentation, "Extra parameters")
    *("allowed_token_ids", "bad_words", "ignore_eos", "include_stop_str_in_output", "length_penalty"),
    *("min_p", "min_tokens", "repetition_penalty", "return_token_ids", "skip_special_tokens"),
    *("spaces_between_special_tokens", "stop_token_ids", "structured_outputs", "top_k"),
}
ALLOWED = {
    Surface.CHAT: SAMPLING
    | {
        *("model", "messages", "logprobs", "top_logprobs", "max_completion_tokens", "response_format"),
        *("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "include_reasoning"),
        *("chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
    },
    Surface.COMPLETIONS: SAMPLING | {"model", "prompt", "logprobs", "echo", "suffix", "response_format"},
    Surface.EMBEDDINGS: {"model", "input", "encoding_format", "dimensions", "truncate_prompt_tokens"},
}
IGNORED = {
    *("metadata", "prediction", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"),
    *("service_tier", "store", "stream_options", "user", "verbosity"),
}
"""Accepted and not passed on: notes to OpenAI's own service, or written by us."""

OUTPUT_LIMITS = {"max_tokens", "max_completion_tokens", "min_tokens"}
ONE = Raw(b"1")
FORCED_STREAM_OPTIONS = Raw(b'{"include_usage":true,"continuous_usage_stats":true}')

DECODERS: dict[Surface, msgspec.json.Decoder[Any]] = {
    Surface.CHAT: msgspec.json.Decoder(ChatAsked),
    Surface.COMPLETIONS: msgspec.json.Decoder(CompletionsAsked),
    Surface.EMBEDDINGS: msgspec.json.Decoder(EmbeddingsAsked),
}
decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
encode = msgspec.json.Encoder().encode

PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
MISSING = re.compile(r"missing required field `(?P<field>\w+)`")


def understand(surface: Surface, body: bytes) -> ChatAsked | CompletionsAsked | EmbeddingsAsked:
    """Decode the typed fields; raises BadRequest naming the field and what would be accepted."""
    try:
        asked: ChatAsked | CompletionsAsked | EmbeddingsAsked = DECODERS[surface].decode(body)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    except RecursionError:
        raise BadRequest("the body is nested too deeply", code="invalid_json") from None
    return asked


def engine_fields(surface: Surface, body: bytes, *, streamed: bool) -> dict[str, Raw]:
    """Choose the fields for the engine: allowed ones as they came, the token count always asked for.

    Raises BadRequest for a field that no API knows.
    """
    fields = decode_fields(body)
    allowed = ALLOWED[surface]
    for name in fields.keys() - allowed - IGNORED:
        near = difflib.get_close_matches(name, allowed, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(allowed | IGNORED))}"
        raise BadRequest(f"unknown field {name[:100]!r}{hint}", param=name[:100], code="unknown_parameter")
    kept = {name: value for name, value in fields.items() if name in allowed}
    if "temperature" not in kept and kept.get("n", ONE) != ONE:
        # OpenAI's default; a model whose own default is greedy could not give several answers.
        kept["temperature"] = ONE
    if streamed:
        kept["stream_options"] = FORCED_STREAM_OPTIONS
    return kept


def engine_body(surface: Surface, fields: dict[str, Raw], output_tokens_max: int | None = None) -> bytes:
    """Write the body for the engine; with `output_tokens_max`, its answer is to be no longer than that."""
    if output_tokens_max is not None:
        limit = Raw(b"%d" % output_tokens_max)
        fields = {name: value for name, value in fields.items() if name not in OUTPUT_LIMITS}
        fields["max_completion_tokens" if surface is Surface.CHAT else "max_tokens"] = limit
    return encode(fields)


def count_inputs(inputs: Inputs) -> int:
    """How many inputs one field holds: a text or a list of token numbers is one."""
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        return 1
    return len(inputs)


def check_inputs(inputs: Inputs, param: str) -> None:
    """Raise BadRequest for a list of mixed kinds, and for an empty input."""
    if isinstance(inputs, list) and len({type(one) for one in inputs}) > 1:
        raise BadRequest(
            f"{param} must be a text, a list of texts, or lists of token numbers, not a mixture", param=param
        )
    if not inputs or (isinstance(inputs, list) and any(one in ("", []) for one in inputs)):
        raise BadRequest(f"{param} must not be empty", param=param)


def check_messages(messages: list[Message], *, media: bool) -> None:
    """Raise BadRequest for media that the model cannot take, or that would have to be fetched from somewhere.

    Nothing of ours fetches an address that a request names; media come inside the request, as `data:` URLs.
    """
    for number, message in enumerate(messages):
        if not isinstance(message.content, list):
            continue
        for at, part in enumerate(message.content):
            param = f"messages[{number}].content[{at}]"
            if part.type not in {"text", "refusal", "input_text"} and not media:
                raise BadRequest(f"{param}: this model takes text only, not {part.type!r}", param=param)
            for url in (part.image_url, part.video_url, part.audio_url):
                text = url.url if isinstance(url, MediaUrl) else url
                if text is not None and not text.startswith("data:"):
                    raise BadRequest(f"{param}: send media inside the request, as a data: URL", param=param)


def _bad_field(problem: str) -> BadRequest:
    """Turn msgspec's sentence into a refusal that names the field."""
    match = PLACE.match(problem)
    path, text = (match["path"] or "", match["problem"]) if match else ("", problem)
    if missing := MISSING.search(text):
        param = f"{path}.{missing['field']}" if path else missing["field"]
        return BadRequest(f"{param} is required", param=param, code="missing_required_parameter")
    if not path:
        return BadRequest(f"the body must be a JSON object: {text}", code="invalid_type")
    kind = "invalid_type" if text.startswith("Expected `") and ", got" in text else "invalid_value"
    return BadRequest(f"{path}: {text[0].lower()}{text[1:]}", param=path, code=kind)
