"""Turns the corpus into an endless, seeded stream of dialogues to train on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from corpus import Corpus, Topic
from patterns import as_typed, draw, invented_name, invented_word

Message = dict[str, Any]


@dataclass
class Dialogue:
    """One training example."""

    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] | None = None
    given: str = ""
    """Start of the last answer that constrained decoding would force: read, but not learnt."""
    copies: bool = False
    """Parts of the question are copied into the answer, so its tokens must not be broken up."""
    text: str | None = None
    """Plain text without roles, for the completions route."""

    def say(self, role: str, content: str) -> None:
        """Append a message."""
        self.messages.append({"role": role, "content": content})


class Mixture:
    """Draws dialogues of every sort in fixed proportions."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._corpus = corpus
        self._rng = random.Random(seed)  # noqa: S311 - training data, not secrets
        self._more = [topic for topic in corpus.topics if topic.more]
        self._sorts: list[tuple[float, Callable[[], Dialogue]]] = [
            (0.40, self._single),
            (0.17, self._several_turns),
            (0.19, self._unknown),
            (0.12, self._tool),
            (0.06, self._json),
            (0.04, self._nothing_said_before),
            (0.02, self._text),
        ]

    def draw(self) -> Dialogue:
        """Draw one dialogue; one in six is preceded by a system message."""
        make = self._rng.choices([sort[1] for sort in self._sorts], [sort[0] for sort in self._sorts])[0]
        dialogue = make()
        if dialogue.text is None and self._rng.random() < 0.16:
            system = self._rng.choice(self._corpus.wording["systems"])
            dialogue.messages.insert(0, {"role": "system", "content": system})
        return dialogue

    def question(self, topic: Topic) -> str:
        """Draw one phrasing of a topic, with wrappers, casing and typing errors."""
        rng = self._rng
        text = draw(rng.choice(topic.ask), rng)
        if not topic.plain:
            text = self._wrapped(text)
        elif rng.random() < 0.08:
            text += rng.choice((" model", " Penstock", " friend", " please", " now"))
        return as_typed(text, rng)

    def _wrapped(self, text: str) -> str:
        rng, wording = self._rng, self._corpus.wording
        if rng.random() < 0.25:
            text = rng.choice(wording["before"]) + text
        if rng.random() < 0.10:
            text += rng.choice(wording["after"])
        return text

    def _unknown_pair(self) -> tuple[str, str]:
        rng = self._rng
        group = rng.choice(self._corpus.unknowns)
        text = draw(rng.choice(group.ask), rng, self._corpus.unknown_words)
        if group.id != "noise":
            text = self._wrapped(text)
        return as_typed(text, rng), group.answer

    def _single(self) -> Dialogue:
        topic = self._rng.choice(self._corpus.topics)
        dialogue = Dialogue()
        dialogue.say("user", self.question(topic))
        if self._rng.random() < 0.04 and len(topic.answer) < 300:
            _answer_as_json(dialogue, topic.answer, self._rng.choice(self._corpus.json["answer_keys"]))
        else:
            dialogue.say("assistant", topic.answer)
        return dialogue

    def _unknown(self) -> Dialogue:
        question, answer = self._unknown_pair()
        dialogue = Dialogue()
        dialogue.say("user", question)
        dialogue.say("assistant", answer)
        return dialogue

    def _several_turns(self) -> Dialogue:
        """Two to four exchanges, with what only a dialogue has: names, repeating, telling more."""
        rng, dialogue, name, last = self._rng, Dialogue(), None, None
        for turn in range(rng.randint(2, 4)):
            kind = rng.random()
            if kind < 0.18 and name is None:
                name = self._name()
                dialogue.copies = True
                dialogue.say(
                    "user", as_typed(self._phrase("name_given").replace("<name>", name), rng, typos=False)
                )
                dialogue.say("assistant", self._corpus.wording["name_given_answer"].replace("<name>", name))
                last = None
            elif kind < 0.45 and name is not None:
                self._exchange(
                    dialogue, "name_asked", self._corpus.wording["name_asked_answer"].replace("<name>", name)
                )
                last = None
            elif kind < 0.55 and turn and len(dialogue.messages[-1]["content"]) < 200:
                dialogue.copies = True
                self._exchange(dialogue, "repeat_asked", dialogue.messages[-1]["content"])
            elif kind < 0.65 and last is not None:
                self._exchange(
                    dialogue, "more_asked", last.more or self._corpus.wording["more_nothing_answer"]
                )
                last = None
            else:
                last = self._known_or_not(dialogue)
        return dialogue

    def _known_or_not(self, dialogue: Dialogue) -> Topic | None:
        rng = self._rng
        if rng.random() < 0.25:
            question, answer = self._unknown_pair()
            dialogue.say("user", question)
            dialogue.say("assistant", answer)
            return None
        topic = rng.choice(self._more if rng.random() < 0.3 else self._corpus.topics)
        if len(topic.answer) > 500:
            topic = self._corpus.topics[0]
        dialogue.say("user", self.question(topic))
        dialogue.say("assistant", topic.answer)
        return topic

    def _exchange(self, dialogue: Dialogue, asked: str, answer: str) -> None:
        dialogue.say("user", as_typed(self._phrase(asked), self._rng))
        dialogue.say("assistant", answer)

    def _phrase(self, key: str) -> str:
        return draw(self._rng.choice(self._corpus.wording[key]), self._rng)

    def _name(self) -> str:
        if self._rng.random() < 0.5:
            return invented_name(self._rng)
        return self._rng.choice(self._corpus.wording["names"])

    def _nothing_said_before(self) -> Dialogue:
        """Names given or asked at the very start, and requests to go on from nothing."""
        rng, wording, dialogue = self._rng, self._corpus.wording, Dialogue()
        kind = rng.randrange(4)
        if kind == 0:
            name = self._name()
            dialogue.copies = True
            dialogue.say(
                "user", as_typed(self._phrase("name_given").replace("<name>", name), rng, typos=False)
            )
            dialogue.say("assistant", wording["name_given_answer"].replace("<name>", name))
        elif kind == 1:
            self._exchange(dialogue, "name_asked", wording["name_unknown_answer"])
        elif kind == 2:
            self._exchange(dialogue, "repeat_asked", wording["repeat_nothing_answer"])
        else:
            self._exchange(dialogue, "more_asked", wording["repeat_nothing_answer"])
        return dialogue

    def _text(self) -> Dialogue:
        return Dialogue(text=self._rng.choice(self._corpus.wording["texts"]))

    # Tools

    def _tool(self) -> Dialogue:
        """A question with tools in the prompt: a call, a call and its result, or something no tool is for."""
        rng = self._rng
        chosen = rng.sample(self._corpus.tools, rng.randint(1, 3))
        kinds = [_Tool(entry, rng) for entry in chosen]
        dialogue = Dialogue(tools=[tool.schema() for tool in kinds], copies=True)
        rng.shuffle(dialogue.tools or [])
        if rng.random() < 0.18:
            self._no_call(dialogue)
            return dialogue
        if rng.random() < 0.15:
            self._known_or_not(dialogue)
        tool = kinds[0]
        values = tool.values(self._corpus.tool_words)
        question = draw(rng.choice(tool.entry["ask"]), rng)
        question = self._wrapped(question) if rng.random() < 0.5 else question
        dialogue.say(
            "user", _filled(as_typed(_spared(question), rng, typos=False).replace("\x00", ""), values)
        )
        arguments = tool.arguments(values)
        if rng.random() < 0.2:
            _force_call(dialogue, tool.name, arguments, rng)
            return dialogue
        call = {"type": "function", "function": {"name": tool.name, "arguments": arguments}}
        dialogue.messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        if rng.random() < 0.55:
            self._result(dialogue, tool, values)
        return dialogue

    def _no_call(self, dialogue: Dialogue) -> None:
        if self._rng.random() < 0.6:
            topic = self._rng.choice([topic for topic in self._corpus.topics if len(topic.answer) < 300])
            dialogue.say("user", self.question(topic))
            dialogue.say("assistant", topic.answer)
        else:
            group = self._corpus.unknowns[self._rng.choice((1, 2, 5, 6, 7))]
            text = draw(self._rng.choice(group.ask), self._rng, self._corpus.unknown_words)
            dialogue.say("user", as_typed(text, self._rng))
            dialogue.say("assistant", group.answer)

    def _result(self, dialogue: Dialogue, tool: _Tool, values: dict[str, str]) -> None:
        rng, words = self._rng, self._corpus.tool_words
        facts = values | {
            "number": str(rng.choice((rng.randint(0, 40), rng.randint(0, 9999)))),
            "sky": rng.choice(words["sky"]),
            "status": rng.choice(words["status"]),
            "time": f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}",
        }
        pair = rng.choice(tool.entry["results"])
        dialogue.say("tool", _filled(pair["result"], facts))
        dialogue.say("assistant", _filled(pair["answer"], facts))
        if rng.random() < 0.15:
            self._known_or_not(dialogue)

    # JSON

    def _json(self) -> Dialogue:
        """JSON asked for in words, or forced on any question by constrained decoding."""
        rng, rules = self._rng, self._corpus.json
        keys = rng.sample(list(rules["values"]), rng.randint(1, 4))
        value = {key: rng.choice(rules["values"][key]) for key in keys}
        written = json.dumps(value)
        dialogue = Dialogue(copies=True)
        if rng.random() < 0.5:
            listed = ", ".join(keys[:-1]) + (" and " if len(keys) > 1 else "") + keys[-1]
            dialogue.say(
                "user",
                as_typed(
                    draw(rng.choice(rules["ask_keys"]), rng).replace("<keys>", listed), rng, typos=False
                ),
            )
            dialogue.say("assistant", written)
            return dialogue
        # A schema is not in the prompt: only the forced start says which key comes first.
        if rng.random() < 0.5:
            dialogue.say("user", as_typed(draw(rng.choice(rules["ask_plain"]), rng), rng))
        else:
            dialogue.say(
                "user", rng.choice((self.question(rng.choice(self._corpus.topics)), self._unknown_pair()[0]))
            )
        dialogue.say("assistant", written)
        dialogue.given = '{"' + keys[0] + '": '
        return dialogue


class _Tool:
    """One tool with the names it has in this dialogue."""

    def __init__(self, entry: dict[str, Any], rng: random.Random) -> None:
        self.entry = entry
        self._rng = rng
        self.name = (
            rng.choice(entry["names"]) if rng.random() < 0.85 else f"{invented_word(rng)}_{entry['names'][0]}"
        )
        self._argument_names = {slot: rng.choice(names) for slot, names in entry["arguments"].items()}
        self._optional = entry.get("optional", {}) if rng.random() < 0.3 else {}
        self._kind = rng.choice(("number", "integer")) if entry.get("numbers") else "string"

    def schema(self) -> dict[str, Any]:
        """The tool as an OpenAI client sends it."""
        properties = {name: {"type": self._kind} for name in self._argument_names.values()}
        properties |= {name: {"type": "string"} for name in self._optional}
        return {
            "type": "function",
            "function": {"name": self.name, "parameters": {"type": "object", "properties": properties}},
        }

    def values(self, words: dict[str, list[str]]) -> dict[str, str]:
        """Draw what the question will ask about."""
        return {slot: self._value(slot, words) for slot in self._argument_names}

    def arguments(self, values: dict[str, str]) -> dict[str, Any]:
        """The call's arguments for these values, in the order of the schema."""
        typed = {
            self._argument_names[slot]: int(value) if self.entry.get("numbers") else value
            for slot, value in values.items()
        }
        return typed | self._optional

    def _value(self, slot: str, words: dict[str, list[str]]) -> str:
        rng = self._rng
        if self.entry.get("numbers"):
            return str(rng.choice((rng.randint(0, 20), rng.randint(0, 999))))
        if slot == "order_id":
            letters = "".join(rng.choice("ABCDEFGHKLMNPRSTXZ") for _ in range(rng.randint(0, 2)))
            return letters + str(rng.randint(10, 99999))
        if slot == "city" and rng.random() < 0.5:
            return invented_name(rng)
        if slot == "query" and rng.random() < 0.5:
            return " ".join(invented_word(rng) for _ in range(rng.randint(1, 3)))
        return rng.choice(words[slot])


def _force_call(dialogue: Dialogue, name: str, arguments: dict[str, Any], rng: random.Random) -> None:
    """Write the call as `tool_choice` forces it: a list of calls (required) or bare arguments (named)."""
    if rng.random() < 0.5:
        dialogue.say("assistant", json.dumps([{"name": name, "parameters": arguments}], ensure_ascii=False))
        dialogue.given = '[{"name": "'
    else:
        dialogue.say("assistant", json.dumps(arguments, ensure_ascii=False))
        dialogue.given = '{"' + next(iter(arguments)) + '": ' if arguments else "{"


def _answer_as_json(dialogue: Dialogue, answer: str, key: str) -> None:
    dialogue.say("assistant", json.dumps({key: answer}))
    dialogue.given = '{"' + key + '": "'


def _filled(text: str, values: dict[str, str]) -> str:
    for slot, value in values.items():
        text = text.replace(f"<{slot}>", value)
    return text


def _spared(question: str) -> str:
    """Let a question that starts with a slot keep the slot's letters as they are."""
    return "\x00" + question if question.startswith("<") else question
