"""What an endpoint speaks, as an OpenAPI 3.1 document: out of the types that requests are read by."""

from __future__ import annotations

from typing import Any

import msgspec

from penstock.edge.openai import ALLOWED, IGNORED, OUTPUT_LIMITS, ChatAsked, CompletionsAsked, EmbeddingsAsked
from penstock.serving.call import Surface
from penstock_catalog.cards import ModelCard, Task

Schema = dict[str, Any]

ASKED = {
    Surface.CHAT: ChatAsked,
    Surface.COMPLETIONS: CompletionsAsked,
    Surface.EMBEDDINGS: EmbeddingsAsked,
}
SURFACES = {Task.CHAT: (Surface.CHAT, Surface.COMPLETIONS), Task.EMBEDDING: (Surface.EMBEDDINGS,)}
"""What an endpoint of such a model answers; of another task, nothing yet."""
SUMMARIES = {
    Surface.CHAT: "Answer a conversation",
    Surface.COMPLETIONS: "Continue a text",
    Surface.EMBEDDINGS: "Turn texts into vectors",
}
REFERENCE = "#/components/schemas/{name}"


def _or_null(*kinds: str, **more: Any) -> Schema:
    return {"type": [*kinds, "null"], **more}


def _list_of(kind: str) -> Schema:
    return _or_null("array", items={"type": kind})


FLAG, TEXT, OBJECT, NUMBER = _or_null("boolean"), _or_null("string"), _or_null("object"), _or_null("number")
WHOLE, COUNT = _or_null("integer"), _or_null("integer", minimum=0)

FIELDS: dict[str, Schema] = {
    "add_generation_prompt": FLAG,
    "allowed_token_ids": _list_of("integer"),
    "bad_words": _list_of("string"),
    "chat_template_kwargs": OBJECT,
    "continue_final_message": FLAG,
    "echo": FLAG,
    "frequency_penalty": _or_null("number", minimum=-2, maximum=2),
    "ignore_eos": FLAG,
    "include_reasoning": FLAG,
    "include_stop_str_in_output": FLAG,
    "length_penalty": NUMBER,
    "logit_bias": _or_null("object", additionalProperties={"type": "number"}),
    "logprobs": _or_null("boolean", "integer"),
    "metadata": OBJECT,
    "min_p": _or_null("number", minimum=0, maximum=1),
    "min_tokens": COUNT,
    "parallel_tool_calls": FLAG,
    "prediction": OBJECT,
    "presence_penalty": _or_null("number", minimum=-2, maximum=2),
    "prompt_cache_key": TEXT,
    "prompt_cache_retention": TEXT,
    "reasoning_effort": TEXT,
    "repetition_penalty": NUMBER,
    "response_format": OBJECT,
    "return_token_ids": FLAG,
    "safety_identifier": TEXT,
    "seed": WHOLE,
    "service_tier": TEXT,
    "skip_special_tokens": FLAG,
    "spaces_between_special_tokens": FLAG,
    "stop": _or_null("string", "array", items={"type": "string"}),
    "stop_token_ids": _list_of("integer"),
    "store": FLAG,
    "stream_options": OBJECT,
    "structured_outputs": OBJECT,
    "suffix": TEXT,
    "temperature": _or_null("number", minimum=0),
    "tool_choice": _or_null("string", "object"),
    "tools": _list_of("object"),
    "top_k": WHOLE,
    "top_logprobs": COUNT,
    "top_p": _or_null("number", minimum=0, maximum=1),
    "truncate_prompt_tokens": WHOLE,
    "user": TEXT,
    "verbosity": TEXT,
}
"""Fields that are passed on, or ignored, as they came; those that we decide by have types of their own."""


def _answer(kind: str, required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "required": ["object", "model", "usage", *required],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": kind},
            "created": {"type": "integer", "description": "Unix seconds"},
            "model": {"type": "string"},
            "usage": {"$ref": REFERENCE.format(name="Usage")},
            **properties,
        },
    }


def _choices(**properties: Schema) -> Schema:
    fields = {"index": {"type": "integer"}, "finish_reason": TEXT, "logprobs": OBJECT, **properties}
    item = {"type": "object", "required": ["index", *properties], "properties": fields}
    return {"type": "array", "items": item}


MESSAGE: Schema = {
    "type": "object",
    "required": ["role"],
    "properties": {"role": {"const": "assistant"}, "content": TEXT, "tool_calls": _list_of("object")},
}
ANSWERS: dict[Surface, tuple[str, Schema]] = {
    Surface.CHAT: (
        "ChatCompletion",
        _answer("chat.completion", ("id", "created", "choices"), choices=_choices(message=MESSAGE)),
    ),
    Surface.COMPLETIONS: (
        "Completion",
        _answer("text_completion", ("id", "created", "choices"), choices=_choices(text={"type": "string"})),
    ),
    Surface.EMBEDDINGS: (
        "Embeddings",
        _answer(
            "list",
            ("data",),
            data={
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["object", "index", "embedding"],
                    "properties": {
                        "object": {"const": "embedding"},
                        "index": {"type": "integer"},
                        "embedding": {
                            "type": ["array", "string"],
                            "items": {"type": "number"},
                            "description": "Numbers, or with encoding_format base64 their 32-bit floats",
                        },
                    },
                },
            },
        ),
    ),
}
SHARED: dict[str, Schema] = {
    "Usage": {
        "type": "object",
        "required": ["prompt_tokens", "total_tokens"],
        "properties": {
            "prompt_tokens": {"type": "integer"},
            "completion_tokens": WHOLE,
            "total_tokens": {"type": "integer"},
            "prompt_tokens_details": _or_null("object", properties={"cached_tokens": WHOLE}),
            "completion_tokens_details": _or_null("object", properties={"reasoning_tokens": WHOLE}),
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
        },
    },
    "Models": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": REFERENCE.format(name="Model")}},
        },
    },
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": TEXT,
                    "code": {"type": "string"},
                },
            }
        },
    },
}
ERRORS = {
    400: "The request asks for what the model does not do; `param` names the field",
    401: "The key is missing, wrong, or of another endpoint",
    402: "Credit or a budget does not suffice",
    403: "The endpoint is suspended; the message says why",
    404: "There is no such endpoint",
    429: "A limit is reached, or more requests wait than may; `Retry-After` says when to try again",
    502: "The engine failed; nothing is billed",
    503: "The model is waking, or not to be had; `Retry-After` says when to try again",
}


def describe(name: str, card: ModelCard, url: str) -> Schema:
    """Describe an endpoint: every path that it answers, what it takes there, and what it gives back."""
    surfaces = SURFACES.get(card.task, ())
    _, types = msgspec.json.schema_components(
        [ASKED[surface] for surface in surfaces], ref_template=REFERENCE
    )
    paths: dict[str, Schema] = {
        "/models": {"get": _get("listModels", "List the endpoint's one model", "Models")},
        "/models/{id}": {
            "get": _get("showModel", "Show the endpoint's one model", "Model")
            | {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"const": card.id}},
                ]
            }
        },
    }
    schemas = {**types, **SHARED}
    for surface in surfaces:
        asked = ASKED[surface].__name__
        answer, schema = ANSWERS[surface]
        schemas[asked] = _request(surface, types[asked], card)
        schemas[answer] = schema
        paths[f"/{surface.value.replace('.', '/')}"] = {"post": _post(surface, asked, answer)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": "1",
            "description": f"{card.name}: {card.summary}",
        },
        "servers": [{"url": url}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
        },
    }


def _request(surface: Surface, typed: Schema, card: ModelCard) -> Schema:
    """What a surface takes: the fields that we decide by, and those that are passed on or ignored."""
    fields = sorted(ALLOWED[surface] | IGNORED)
    own: dict[str, Schema] = typed["properties"]
    properties = {field: own[field] if field in own else FIELDS[field] for field in fields}
    properties["model"] = {"type": "string", "description": f"Anything: the endpoint has one, {card.id}"}
    if surface is not Surface.EMBEDDINGS:
        most = card.max_output_tokens
        properties["n"] = _or_null("integer", minimum=1, maximum=card.engine.choices_max)
        for limit in OUTPUT_LIMITS & properties.keys() - {"min_tokens"}:
            properties[limit] = _or_null("integer", minimum=1, maximum=most)
    # Unknown fields are refused, so that no typing mistake is silently ignored.
    return typed | {"title": ASKED[surface].__name__, "properties": properties, "additionalProperties": False}


def _post(surface: Surface, asked: str, answer: str) -> Schema:
    content: Schema = {"application/json": {"schema": {"$ref": REFERENCE.format(name=answer)}}}
    if surface is not Surface.EMBEDDINGS:
        content["text/event-stream"] = {
            "schema": {"type": "string", "description": "With `stream`: events, the last one `data: [DONE]`"}
        }
    body = {"application/json": {"schema": {"$ref": REFERENCE.format(name=asked)}}}
    return {
        "operationId": surface.value.replace(".", "_"),
        "summary": SUMMARIES[surface],
        "requestBody": {"required": True, "content": body},
        "responses": {"200": {"description": "The answer", "content": content}, **_errors(ERRORS)},
    }


def _get(operation: str, summary: str, answer: str) -> Schema:
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(name=answer)}}}
    found = {"200": {"description": "What was asked for", "content": content}}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": found | _errors({status: ERRORS[status] for status in (401, 404)}),
    }


def _errors(told: dict[int, str]) -> Schema:
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(name="Error")}}}
    return {str(status): {"description": text, "content": content} for status, text in told.items()}
