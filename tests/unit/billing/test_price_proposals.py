from __future__ import annotations

from pathlib import Path

import pytest

from penstock_billing import price_proposals
from penstock_billing.price_proposals import ProposalError

KNOWN = ["qwen/qwen2.5-7b", "penstock/demo-chat", "penstock/demo-embed"]
FILE = Path("next.yaml")
GOOD = """\
name: Spring prices
models:
  penstock/demo-chat:
    input: "0.15"
    cached_input: "0.075"
    output: "0.60"
    batch_discount: "50%"
  qwen/qwen2.5-7b:
    input: "0.20"
    cached_input: "0.02"
    output: "0.40"
    image: "0.001"
    audio_minute: "0.006"
    document: "0.000002"
minutes:
  endpoint:
    serverless: "0.001"
  instance:
    cpu-small: "0.02"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ProposalError) as refused:
        price_proposals.parse(FILE, text.encode(), KNOWN)
    return [str(problem) for problem in refused.value.problems]


def test_a_file_becomes_the_versions_that_it_proposes() -> None:
    proposal = price_proposals.parse(FILE, GOOD.encode(), KNOWN)
    chat, qwen = proposal.versions
    assert (chat.model, chat.input_pico_usd, chat.cached_input_pico_usd) == (
        "penstock/demo-chat",
        150_000,
        75_000,
    )
    assert (chat.output_pico_usd, chat.batch_discount_ppm, chat.image_pico_usd) == (600_000, 500_000, 0)
    assert (qwen.image_pico_usd, qwen.audio_second_pico_usd, qwen.document_pico_usd) == (
        1_000_000_000,
        100_000_000,
        2_000_000,
    )
    assert proposal.minute_prices == [
        ("endpoint", "serverless", 1_000_000),
        ("instance", "cpu-small", 20_000_000),
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ('"0.15"', "0.15", 4, 'write it in quotes, "0.15"'),
        ('"0.15"', '"-0.15"', 4, '"-0.15" is not a decimal number such as 0.15'),
        ('"0.15"', '"0.1500001"', 4, "at most 6 decimals"),
        ('"0.075"', '"0.16"', 5, "0.16 is more than input (0.15); at most that is accepted"),
        ('"50%"', '"150%"', 7, '"150%" is not a discount from "0%" to "100%"'),
        ('"50%"', "0.5", 7, "is not a discount"),
        ('"0.006"', '"0.000000000061"', 13, "nearest that can are"),
        ("penstock/demo-chat:", "penstock/demo-cat:", 3, "did you mean penstock/demo-chat"),
        ("    output: ", "    outputs: ", 6, 'did you mean "output"'),
        ('    cached_input: "0.02"\n', "", 9, "cached_input: is missing"),
        ("serverless:", "serverles:", 17, "is no kind of endpoint: serverless, online, batch"),
        ("minutes:", "minute:", 15, 'did you mean "minutes"'),
        ('"0.02"\n', '"0.0200000001"\n', 19, "at most 9 decimals"),
        ("qwen/qwen2.5-7b", "penstock/demo-chat", 8, "stands here twice"),
        ("models:", "models: &all", 2, "anchors"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, line: int, told: str) -> None:
    assert GOOD.count(old) >= 1
    at = GOOD.rindex(old) if old == '"0.02"\n' else GOOD.index(old)
    found = problems(GOOD[:at] + new + GOOD[at + len(old) :])
    assert any(problem.startswith(f"next.yaml:{line}: ") and told in problem for problem in found), found


@pytest.mark.parametrize("text", ["name: Nothing\n", "models: {}\n", ""])
def test_a_file_that_proposes_nothing_is_refused(text: str) -> None:
    (problem,) = problems(text)
    assert "nothing is proposed" in problem or "empty" in problem


def test_every_mistake_is_told_at_once() -> None:
    assert len(problems(GOOD.replace('"0.15"', '"x"').replace("qwen2.5", "qwen9"))) == 2


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProposalError, match="cannot be read: No such file"):
        price_proposals.read(tmp_path / "none.yaml", KNOWN)
