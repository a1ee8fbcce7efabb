from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_catalog import reading
from penstock_catalog.cards import EndpointKind, FolderSource, HubSource, ModelCard, Task
from penstock_catalog.errors import CardError, FileProblem

WriteCard = Callable[..., Path]

GOOD = Path(__file__).with_name("good_card.yaml").read_text(encoding="utf-8")
BLOCKS = re.split(r"^(?=[a-z])", GOOD, flags=re.MULTILINE)[1:]
MANGLING = [
    b"[",
    b"{",
    b": ",
    b"\n",
    b"\t",
    b"- ",
    b"null",
    b"1e999",
    b"*a",
    b"&a ",
    b"!x ",
    b"'",
    b'"',
    b"|\n",
]


def problems(file: Path, today: datetime.date) -> list[tuple[int, str, str]]:
    with pytest.raises(CardError) as caught:
        reading.read(file, today)
    assert all(problem.file == file for problem in caught.value.problems)
    return [(problem.line, problem.field, problem.problem) for problem in caught.value.problems]


def parsed(data: bytes) -> tuple[ModelCard | None, list[FileProblem]]:
    try:
        return reading.parse(Path("acme--small-chat.yaml"), data, datetime.date(2026, 10, 1)).card, []
    except CardError as error:
        return None, error.problems


def test_a_good_card_is_read_whole(write_card: WriteCard, today: datetime.date) -> None:
    card, _, id_line = reading.read(write_card(), today)
    assert (card.id, card.task, id_line) == ("acme/small-chat", Task.CHAT, 1)
    assert card.endpoints == [EndpointKind.SERVERLESS, EndpointKind.BATCH]
    assert card.parameters == 1_000_000
    assert (card.prices.input_pico_usd, card.prices.cached_input_pico_usd) == (150_000, 75_000)
    assert card.prices.output_pico_usd == 600_000
    assert card.max_output_tokens == 512


def test_norwegian_is_a_language_and_not_false(write_card: WriteCard, today: datetime.date) -> None:
    assert reading.read(write_card(), today).card.languages == ["en", "no", "zh-Hant"]


def test_a_folder_source_is_found_from_the_cards_own_folder(
    write_card: WriteCard, today: datetime.date, tmp_path: Path
) -> None:
    source = reading.read(write_card(), today).card.source
    assert isinstance(source, FolderSource)
    assert source.path == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        (
            'input: "0.15"\n',
            'input: "abc"\n',
            17,
            "prices.input",
            '"abc" is not a decimal number such as 0.15',
        ),
        ('"0.60"', '"-1"', 19, "prices.output", '"-1" is not a decimal number'),
        ('"0.60"', '"0.1234567"', 19, "prices.output", "at most 6 decimals"),
        ('"0.60"', '"1e3"', 19, "prices.output", "is not a decimal number"),
        ('"0.60"', "0.60", 19, "prices.output", 'write it in quotes, "0.60"'),
        ('"0.075"', '"0.16"', 18, "prices.cached_input", "0.16 is more than input (0.15)"),
        ("task: chat", "task: chatt", 5, "task", 'did you mean "chat"?'),
        ("logprobs]", "visoin]", 6, "capabilities[1]", 'did you mean "vision"?'),
        ("logprobs]", "streaming]", 6, "capabilities", "more than once"),
        ("[en, no", "[english, no", 7, "languages[0]", "a language tag (BCP 47) such as en"),
        ("[en, no, zh-Hant]", "[]", 7, "languages", "at least one"),
        ("[serverless, batch]", "[]", 20, "endpoints", "an empty list is not a list of at least one"),
        ("licence: MIT", "licence: Ours", 8, "licence", "add licence_url"),
        ("licence: MIT", "licence: MIT\nlicence_url: http://x", 9, "licence_url", "an https:// address"),
        (
            "context_length: 2048",
            "context_length: 0",
            10,
            "context_length",
            "0 is not a whole number of 1 or",
        ),
        (
            "context_length: 2048",
            "context_lenght: 2048",
            10,
            "context_lenght",
            'did you mean "context_length"?',
        ),
        ("2025-04-28", "2025-13-01", 11, "released", "a date such as 2025-04-28"),
        ("2025-04-28", "2016-01-01", 11, "released", "before the first transformer"),
        ("2025-04-28", "2026-10-02", 11, "released", "in the future (today is 2026-10-01)"),
        ("gpu_memory_gib: 0.5", "gpu_memory_gib: 0.001", 12, "gpu_memory_gib", "less than the weights alone"),
        ("kind: folder", "kind: hup", 14, "source.kind", '"hup" is not "folder" or "hub"'),
        ("  kind: folder\n", "", 13, "source.kind", "is missing"),
        ("path: ../weights", "url: x", 15, "source.url", "is not a field here"),
        (
            "max_output_tokens: 512",
            "max_output_tokens: 4096",
            22,
            "engine.max_output_tokens",
            "more than context",
        ),
        ("max_output_tokens: 512", "choices_max: 500", 22, "engine.choices_max", "from 1 to 128"),
        ("max_output_tokens: 512", "dtype: int3", 22, "engine.dtype", "one of auto, bfloat16"),
        (
            "max_output_tokens: 512",
            'extra: {trust-remote-code: "true"}',
            22,
            "engine.extra",
            "'trust-remote-code' is not a reviewed vLLM flag",
        ),
        (
            "max_output_tokens: 512",
            "extra: {enforce-eager: true}",
            22,
            "engine.extra.enforce-eager",
            "in quotes",
        ),
        ("id: acme/small-chat", "id: acme/other", 1, "id", "belongs in a file named acme--other.yaml"),
        ("id: acme/small-chat", "id: Acme/../x", 1, "id", "publisher/name in small letters"),
        (
            "name: Small Chat\n",
            "name: Small\nname: Chat\n",
            3,
            "name",
            "stands here twice; the first is on line 2",
        ),
        ("parameters: 1_000_000", "parameters: many", 9, "parameters", '"many" is not a whole number'),
        (
            "parameters: 1_000_000",
            "parameters: 1_000_000\nactive_parameters: 2_000_000",
            10,
            "active_parameters",
            "2000000 is more than parameters (1000000)",
        ),
        (
            "parameters: 1_000_000",
            "parameters: 1_000_000\nembedding_dimensions: 8",
            10,
            "embedding_dimensions",
            "only embedding models have it",
        ),
        ("task: chat", "task: embedding", 1, "embedding_dimensions", "states the length of its vectors"),
        ("logprobs]", "tools]", 21, "engine.tool_parser", "capabilities has tools"),
        ("logprobs]", "reasoning]", 21, "engine.reasoning_parser", "capabilities has reasoning"),
        (
            "kind: folder\n  path: ../weights",
            f"kind: hub\n  repository: a/b\n  digests: {{x.json: {'0' * 64}}}",
            16,
            "source.digests",
            "state revision too",
        ),
        (
            "kind: folder\n  path: ../weights",
            "kind: hub\n  repository: a/b\n  revision: main",
            16,
            "source.revision",
            "40 hexadecimal digits",
        ),
        ("prices:\n", "prices: &p\n", 16, "", "anchors and aliases"),
        ("id: acme", "id: !!str acme", 1, "", "tag"),
        ("  kind: folder", "\tkind: folder", 14, "", "a tab at the start of the line"),
        ("name: Small Chat", 'name: "Small Chat', 17, "", "not readable as YAML"),
    ],
)
def test_each_mistake_is_told_with_its_line_and_field(
    write_card: WriteCard, today: datetime.date, old: str, new: str, line: int, field: str, words: str
) -> None:
    found = problems(write_card((old, new)), today)
    assert any(at == line and where.startswith(field) and words in text for at, where, text in found), found


def test_null_stands_for_a_value_that_is_not_known(write_card: WriteCard, today: datetime.date) -> None:
    unpinned = "kind: hub\n  repository: a/b\n  revision: null"
    file = write_card(
        ("kind: folder\n  path: ../weights", unpinned), ("  max_output_tokens: 512", "  tool_parser: null")
    )
    card = reading.read(file, today).card
    assert isinstance(card.source, HubSource)
    assert card.source.revision is None
    assert card.max_output_tokens == card.context_length


def test_all_mistakes_of_a_file_are_told_at_once(write_card: WriteCard, today: datetime.date) -> None:
    file = write_card(
        ("task: chat", "task: talk"),
        ('input: "0.15"\n', "input: cheap\n"),
        ("name: Small Chat\n", ""),
        ("[en, no", "[en, 7"),
    )
    assert {field for _, field, _ in problems(file, today)} == {
        "name",
        "task",
        "languages[1]",
        "prices.input",
    }


def test_a_problem_reads_as_compilers_write_it(write_card: WriteCard, today: datetime.date) -> None:
    file = write_card(("task: chat", "task: 3"))
    with pytest.raises(CardError) as caught:
        reading.read(file, today)
    assert str(caught.value) == f"{file}:5: task: 3 is not one of chat, embedding, reranking, transcription"


def test_tools_are_accepted_with_their_parser(write_card: WriteCard, today: datetime.date) -> None:
    file = write_card(("logprobs]", "tools]"), ("  max_output_tokens: 512", "  tool_parser: hermes"))
    assert reading.read(file, today).card.engine.tool_parser == "hermes"


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 1, "the file is empty"),
        (b"id: a\nname: \xff\n", 2, "not UTF-8"),
        (b"id: a\nname: \x01\n", 2, "U+0001"),
        (b"- a\n", 1, "is not a mapping of fields"),
        (b"[" * 5000, 1, "nested deeper"),
        (b"id: a\n---\nid: b\n", 2, "another document"),
        (b"a: " + b"x" * 70_000, 1, "at most 65536"),
        (b'id: a\nname: "\\ud800"\n', 2, "half a character"),
        (b'id: "\\UFFFFFFFF"\n', 1, "names no character"),
        (b'id: "\\U00110000"\n', 1, "names no character"),
        (b"? [a]\n: b\n", 1, "a key that is not text"),
    ],
)
def test_what_is_no_card_at_all_is_told_and_does_not_crash(
    today: datetime.date, data: bytes, line: int, words: str
) -> None:
    with pytest.raises(CardError) as caught:
        reading.parse(Path("x.yaml"), data, today)
    assert any(problem.line == line and words in str(problem) for problem in caught.value.problems)


def test_a_file_that_cannot_be_read_is_a_card_problem(tmp_path: Path, today: datetime.date) -> None:
    with pytest.raises(CardError, match=r"gone\.yaml:1: cannot be read"):
        reading.read(tmp_path / "gone.yaml", today)


@given(data=st.data())
def test_a_mangled_card_is_read_or_refused_and_never_crashes(data: st.DataObject) -> None:
    good = GOOD.encode()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    piece = data.draw(st.binary(max_size=20) | st.sampled_from(MANGLING))
    mangled = good[:start] + piece + good[end:]
    card, found = parsed(mangled)
    lines = mangled.count(b"\n") + mangled.count(b"\r") + 2
    assert (card is None) == bool(found)
    assert all(1 <= problem.line <= lines and problem.problem for problem in found)
    assert card is None or card.id == "acme/small-chat"


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    at=st.integers(0, len(BLOCKS) - 1),
)
def test_any_value_in_any_field_is_read_or_refused(value: object, at: int) -> None:
    field = BLOCKS[at].split(":")[0]
    text = "".join([*BLOCKS[:at], f"{field}: {json.dumps(value)}\n", *BLOCKS[at + 1 :]])
    card, found = parsed(text.encode())
    assert (card is None) == bool(found)
