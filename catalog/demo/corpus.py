"""Reads the dialogue files: topics with answers, questions to admit ignorance of, tools, and JSON habits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from patterns import expansions

HERE = Path(__file__).resolve().parent
TOPIC_FILES = (
    "greetings",
    "about_the_model",
    "small_talk",
    "penstock",
    "endpoints",
    "billing",
    "keys",
    "requests",
    "engines",
)


@dataclass(frozen=True)
class Topic:
    """One thing the chat model can say."""

    id: str
    ask: tuple[str, ...]
    """Patterns it is trained on."""
    held_out: tuple[str, ...]
    """Phrasings it never sees in training; they measure paraphrases."""
    answer: str
    more: str | None
    """What `tell me more` adds, if anything."""
    plain: bool
    """Said as it is: no wrappers such as `please tell me`."""

    def phrasings(self) -> list[str]:
        """Every trained phrasing, patterns written out."""
        return [text for pattern in self.ask for text in expansions(pattern)]


@dataclass(frozen=True)
class Unknown:
    """A family of questions whose only right answer is to admit not knowing."""

    id: str
    ask: tuple[str, ...]
    answer: str


@dataclass(frozen=True)
class Corpus:
    """Everything the chat model is taught."""

    topics: tuple[Topic, ...]
    unknowns: tuple[Unknown, ...]
    unknown_held_out: tuple[str, ...]
    unknown_words: dict[str, list[str]]
    tools: list[dict[str, Any]]
    tool_words: dict[str, list[str]]
    json: dict[str, Any]
    wording: dict[str, Any]


def load(folder: Path = HERE / "dialogues") -> Corpus:
    """Read all dialogue files.

    Raises ValueError where a held-out phrasing is also trained on, because the measured rates would then lie.
    """
    topics = tuple(topic for name in TOPIC_FILES for topic in _topics(folder / f"{name}.yaml"))
    _check_held_out(topics)
    unknown = _read(folder / "unknown.yaml")
    tools = _read(folder / "tools.yaml")
    return Corpus(
        topics=topics,
        unknowns=tuple(
            Unknown(group["id"], tuple(map(str, group["ask"])), group["answer"])
            for group in unknown["groups"]
        ),
        unknown_held_out=tuple(unknown["held_out"]),
        unknown_words={name: list(map(str, words)) for name, words in unknown["words"].items()},
        tools=tools["tools"],
        tool_words=tools["words"],
        json=_read(folder / "json.yaml"),
        wording=_read(folder / "wording.yaml"),
    )


def plainest(text: str) -> str:
    """Reduce a phrasing to lower-case letters and digits, to compare phrasings by."""
    return "".join(character for character in text.lower() if character.isalnum())


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _topics(path: Path) -> list[Topic]:
    data = _read(path)
    plain = bool(data.get("plain", False))
    return [
        Topic(
            id=entry["id"],
            ask=tuple(map(str, entry["ask"])),
            held_out=tuple(map(str, entry["held_out"])),
            answer=entry["answer"],
            more=entry.get("more"),
            plain=plain,
        )
        for entry in data["topics"]
    ]


def _check_held_out(topics: tuple[Topic, ...]) -> None:
    trained = {plainest(text): topic.id for topic in topics for text in topic.phrasings()}
    for topic in topics:
        for text in topic.held_out:
            if plainest(text) in trained:
                message = (
                    f"held-out phrasing {text!r} of {topic.id} is trained on under {trained[plainest(text)]}"
                )
                raise ValueError(message)
