from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from penstock.edge import openapi
from penstock.edge.openai import ALLOWED, IGNORED
from penstock.serving.call import Surface
from penstock_catalog.cards import ModelCard
from penstock_catalog.shelf import BUILTIN, Shelf

jsonschema = pytest.importorskip("jsonschema")  # comes with vLLM

URL = "https://penstock.example/serverless/desk/v1"
SHELF = Shelf.open([BUILTIN])


def card(model: str) -> ModelCard:
    found = SHELF.get(model)
    assert found is not None
    return found


def described(model: str = "penstock/demo-chat") -> dict[str, Any]:
    return openapi.describe("desk", card(model), URL)


def inside(node: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from inside(value)
    elif isinstance(node, list):
        for value in node:
            yield from inside(value)


def check(document: dict[str, Any], schema: str, value: Any) -> None:
    """Raise what a document's schema says against a value."""
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    ).validate(value)


@pytest.mark.parametrize("model", [one.id for one in SHELF.cards])
def test_every_models_description_holds_together(model: str) -> None:
    document = described(model)
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": URL}]
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for each in inside(document):
        if "$ref" in each:
            assert each["$ref"].removeprefix("#/components/schemas/") in schemas
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert {"200", "401", "404"} <= operation["responses"].keys()
        assert all(response["description"] for response in operation["responses"].values())
    named = {each for requirement in document["security"] for each in requirement}
    assert named == document["components"]["securitySchemes"].keys()


def test_the_paths_are_those_of_the_models_task() -> None:
    chat, embedding = described(), described("penstock/demo-embed")
    assert list(chat["paths"]) == ["/models", "/models/{id}", "/chat/completions", "/completions"]
    assert list(embedding["paths"]) == ["/models", "/models/{id}", "/embeddings"]


@pytest.mark.parametrize("surface", list(Surface))
def test_just_the_fields_that_are_accepted_are_described(surface: Surface) -> None:
    model = "penstock/demo-embed" if surface is Surface.EMBEDDINGS else "penstock/demo-chat"
    schema = described(model)["components"]["schemas"][openapi.ASKED[surface].__name__]
    assert schema["properties"].keys() == ALLOWED[surface] | IGNORED
    assert schema["additionalProperties"] is False


def test_a_models_limits_are_in_its_description() -> None:
    schema = described()["components"]["schemas"]["ChatAsked"]["properties"]
    assert schema["n"]["maximum"] == card("penstock/demo-chat").engine.choices_max
    assert schema["max_tokens"]["maximum"] == card("penstock/demo-chat").max_output_tokens


@pytest.mark.parametrize(
    ("body", "fits"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}]}, True),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "stop": "x"}, True),
        ({"messages": [], "model": "x"}, False),
        ({"model": "x"}, False),
        ({"messages": [{"role": "pirate", "content": "Hi"}]}, False),
        ({"messages": [{"role": "user", "content": "Hi"}], "temprature": 1}, False),
        ({"messages": [{"role": "user", "content": "Hi"}], "cache_salt": "x"}, False),
        ({"messages": [{"role": "user", "content": "Hi"}], "n": 0}, False),
    ],
)
def test_the_description_tells_good_requests_from_bad_ones(body: dict[str, Any], fits: bool) -> None:
    if fits:
        check(described(), "ChatAsked", body)
    else:
        with pytest.raises(jsonschema.ValidationError):
            check(described(), "ChatAsked", body)
