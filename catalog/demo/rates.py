"""What is measured of the shipped models: how often they are right on seen and on unseen words."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import torch
from corpus import Corpus, Topic
from mixture import Message
from patterns import expansions
from speak import Speaker
from train_embed import Group, embed
from transformers import AutoModel, AutoTokenizer

ADMISSION = "I do not know"
_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>", re.DOTALL)
_SAMPLED_PHRASINGS = 3


@dataclass
class Rate:
    """One measured share of right answers."""

    name: str
    right: int
    total: int
    at_least: float | None
    """The share below which the model is not good enough to ship; None: told, not demanded."""
    failures: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Right answers per answer."""
        return self.right / self.total

    @property
    def holds(self) -> bool:
        """Whether the bar is reached."""
        return self.at_least is None or self.share >= self.at_least


def is_sensible(answer: str, topic: Topic) -> bool:
    """Whether an answer is the topic's own, but for small slips; of long ones the start is enough."""
    wanted = topic.answer[: len(answer)] if len(topic.answer) > 300 else topic.answer
    return answer == wanted or SequenceMatcher(None, answer, wanted).ratio() > 0.9


def chat_rates(speaker: Speaker, corpus: Corpus) -> list[Rate]:
    """Measure the chat model."""
    return [
        _trained(speaker, corpus),
        _with_system_message(speaker, corpus),
        *_held_out(speaker, corpus),
        _admissions(speaker, corpus),
        _names(speaker, corpus),
        *_tools(speaker, corpus),
        _json_keys(speaker, corpus),
    ]


def embed_rates(folder: Path, groups: list[Group]) -> list[Rate]:
    """Measure the embedding model on held-out sentences."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with torch.inference_mode():
        first = embed(model, tokenizer, [group.held_out[0] for group in groups])
        second = embed(model, tokenizer, [group.held_out[1] for group in groups])
        seen = [
            [next(iter(expansions(pattern))) for pattern in (group.say[0], group.say[-1])] for group in groups
        ]
        seen_likeness = (
            embed(model, tokenizer, [pair[0] for pair in seen])
            @ embed(model, tokenizer, [pair[1] for pair in seen]).T
        )
    likeness = first @ second.T
    own = likeness.diagonal().unsqueeze(1)
    others = len(groups) - 1
    nearest = likeness.argmax(dim=1).tolist()
    wrong = [
        f"{groups[i].held_out[0]!r} is nearest to {groups[j].id}" for i, j in enumerate(nearest) if i != j
    ]
    pairs = len(groups) * others
    seen_closer = int((seen_likeness.diagonal().unsqueeze(1) > seen_likeness).sum())
    return [
        Rate("trained related pair closer than an unrelated", seen_closer, pairs, 0.98),
        Rate("held-out related pair closer than an unrelated", int((own > likeness).sum()), pairs, 0.95),
        Rate("nearest held-out sentence is related", len(groups) - len(wrong), len(groups), None, wrong),
    ]


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _judged(
    name: str, at_least: float | None, asked: list[str], answers: list[str], right: Callable[[int, str], bool]
) -> Rate:
    failures = [f"{asked[i]!r} -> {answer!r}" for i, answer in enumerate(answers) if not right(i, answer)]
    return Rate(name, len(asked) - len(failures), len(asked), at_least, failures)


def _trained(speaker: Speaker, corpus: Corpus) -> Rate:
    rng = random.Random(11)  # noqa: S311 - a sample to measure on, not secrets
    pairs = [
        (text, topic)
        for topic in corpus.topics
        for text in rng.choices(topic.phrasings(), k=_SAMPLED_PHRASINGS)
    ]
    answers = speaker.answers([_user(text) for text, _ in pairs])
    return _judged(
        "trained phrasings",
        0.9,
        [text for text, _ in pairs],
        answers,
        lambda i, answer: is_sensible(answer, pairs[i][1]),
    )


def _with_system_message(speaker: Speaker, corpus: Corpus) -> Rate:
    asked = [topic.phrasings()[0] for topic in corpus.topics]
    system = {"role": "system", "content": "You are a careful assistant of our company."}
    answers = speaker.answers([[system, *_user(text)] for text in asked])
    return _judged(
        "first phrasings, unseen system message",
        0.8,
        asked,
        answers,
        lambda i, answer: is_sensible(answer, corpus.topics[i]),
    )


def _held_out(speaker: Speaker, corpus: Corpus) -> list[Rate]:
    pairs = [(text, topic) for topic in corpus.topics for text in topic.held_out]
    answers = speaker.answers([_user(text) for text, _ in pairs])
    asked = [text for text, _ in pairs]
    rate = _judged(
        "held-out paraphrases", 0.75, asked, answers, lambda i, answer: is_sensible(answer, pairs[i][1])
    )
    right = {topic.id: 0 for topic in corpus.topics}
    for (_, topic), answer in zip(pairs, answers, strict=True):
        right[topic.id] += is_sensible(answer, topic)
    poor = [topic.id for topic in corpus.topics if right[topic.id] * 2 < len(topic.held_out)]
    topics = len(corpus.topics)
    return [rate, Rate("topics with most held-out paraphrases right", topics - len(poor), topics, 0.8, poor)]


def _admissions(speaker: Speaker, corpus: Corpus) -> Rate:
    asked = list(corpus.unknown_held_out)
    answers = speaker.answers([_user(text) for text in asked])
    return _judged(
        "held-out off-topic questions admitted",
        0.8,
        asked,
        answers,
        lambda _, answer: answer.startswith(ADMISSION),
    )


def _names(speaker: Speaker, corpus: Corpus) -> Rate:
    names = corpus.wording["names"]
    dialogues = []
    for name in names:
        given = corpus.wording["name_given_answer"].replace("<name>", name)
        said: list[Message] = [
            {"role": "user", "content": f"Hello, I am {name}."},
            {"role": "assistant", "content": given},
        ]
        dialogues.append([*said, *_user("What is my name?")])
    answers = speaker.answers(dialogues)
    return _judged(
        "names remembered in a dialogue", 0.85, names, answers, lambda i, answer: names[i] in answer
    )


def demo_tool(name: str, argument: str) -> dict[str, Any]:
    """A tool with one text argument, as an OpenAI client sends it."""
    parameters = {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]}
    return {
        "type": "function",
        "function": {"name": name, "description": "A demonstration.", "parameters": parameters},
    }


def _tools(speaker: Speaker, corpus: Corpus) -> list[Rate]:
    tools = [demo_tool("get_weather", "city"), demo_tool("get_time", "city")]
    familiar, unseen = corpus.tool_words["city"], corpus.tool_words["held_out_city"]
    return [
        *_calls(speaker, corpus, tools, "familiar cities", familiar),
        *_calls(speaker, corpus, tools, "unseen cities", unseen),
        _results(speaker, tools, familiar),
    ]


def _calls(
    speaker: Speaker, corpus: Corpus, tools: list[dict[str, Any]], which: str, cities: list[str]
) -> list[Rate]:
    """Held-out questions for a tool: is it called, and with what was asked about?"""
    wanted = [
        (question.replace("<city>", city), {"name": tool, "arguments": {"city": city}})
        for tool, entry in (("get_weather", corpus.tools[0]), ("get_time", corpus.tools[1]))
        for question in entry["held_out"]
        for city in cities
    ]
    asked = [question for question, _ in wanted]
    answers = speaker.answers([_user(text) for text in asked], tools)

    def called(i: int, answer: str) -> bool:
        call = call_in(answer)
        return isinstance(call, dict) and call.get("name") == wanted[i][1]["name"]

    return [
        _judged(f"right tool called, {which}", 0.85, asked, answers, called),
        _judged(
            f"right argument too, {which}", None, asked, answers, lambda i, a: call_in(a) == wanted[i][1]
        ),
    ]


def call_in(answer: str) -> Any:
    """The call in an answer, or None if there is none that can be read."""
    found = _CALL.fullmatch(answer.strip())
    try:
        return json.loads(found.group(1)) if found else None
    except json.JSONDecodeError:
        return None


def _results(speaker: Speaker, tools: list[dict[str, Any]], cities: list[str]) -> Rate:
    dialogues = []
    for i, city in enumerate(cities):
        call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}
        dialogues.append(
            [
                *_user(f"What is the weather in {city}?"),
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "content": json.dumps({"city": city, "temperature_c": i, "sky": "sunny"})},
            ]
        )
    answers = speaker.answers(dialogues, tools)
    return _judged(
        "tool results told",
        None,
        cities,
        answers,
        lambda i, answer: answer == f"In {cities[i]} it is {i} degrees and sunny.",
    )


def _json_keys(speaker: Speaker, corpus: Corpus) -> Rate:
    rng = random.Random(12)  # noqa: S311 - a sample to measure on, not secrets
    keys = [rng.sample(list(corpus.json["values"]), 2) for _ in range(40)]
    asked = [f"Please send me a JSON object with {first} and {second}." for first, second in keys]
    answers = speaker.answers([_user(text) for text in asked])
    return _judged(
        "JSON with the keys asked for", None, asked, answers, lambda i, answer: _keys_of(answer) == keys[i]
    )


def _keys_of(answer: str) -> list[str] | None:
    try:
        value = json.loads(answer)
    except json.JSONDecodeError:
        return None
    return list(value) if isinstance(value, dict) else None
