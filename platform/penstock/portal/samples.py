"""A first call of a model in three languages, at this installation's own address."""

from __future__ import annotations

import json
from typing import NamedTuple

from penstock_catalog.cards import ModelCard, Task

KEY = "PENSTOCK_API_KEY"
"""Read from the environment, so that no key stands in code."""
QUESTION = "Hello! What can you do?"
TEXTS = ["The river carries the boat.", "Water moves a vessel."]


class Sample(NamedTuple):
    """One text to copy."""

    id: str
    language: str
    text: str


def of(card: ModelCard, base_url: str, model: str = "") -> list[Sample]:
    """Samples for a model; none of a task that no route serves yet. `model` may name an adapter of it."""
    url, name = f"{base_url.rstrip('/')}/v1", json.dumps(model or card.id)
    if card.task is Task.CHAT:
        return _chat(url, name)
    if card.task is Task.EMBEDDING:
        return _embeddings(url, name)
    return []


def with_key(samples: list[Sample], key: str) -> list[Sample]:
    """Put a key into samples, for the one time when it is shown: then they run as they stand."""
    text = json.dumps(key)
    places = {
        "import os\n": "",
        f'os.environ["{KEY}"]': text,
        f"process.env.{KEY}": text,
        f"${KEY}": key,
    }
    written = []
    for sample in samples:
        code = sample.text
        for place, filled in places.items():
            code = code.replace(place, filled)
        written.append(sample._replace(text=code))
    return written


def _chat(url: str, model: str) -> list[Sample]:
    message = f'{{"role": "user", "content": "{QUESTION}"}}'
    return [
        Sample(
            "curl",
            "curl",
            f"""curl {url}/chat/completions \\
  -H "Authorization: Bearer ${KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": {model},
    "messages": [{message}],
    "stream": true
  }}'
""",
        ),
        Sample(
            "python",
            "Python",
            f"""# pip install openai
import os
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key=os.environ["{KEY}"])
stream = client.chat.completions.create(
    model={model},
    messages=[{message}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
""",
        ),
        Sample(
            "typescript",
            "TypeScript",
            f"""// npm install openai
import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{url}",
  apiKey: process.env.{KEY},
}});
const stream = await client.chat.completions.create({{
  model: {model},
  messages: [{{ role: "user", content: "{QUESTION}" }}],
  stream: true,
}});
for await (const chunk of stream) {{
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}}
""",
        ),
    ]


def _embeddings(url: str, model: str) -> list[Sample]:
    texts = json.dumps(TEXTS)
    return [
        Sample(
            "curl",
            "curl",
            f"""curl {url}/embeddings \\
  -H "Authorization: Bearer ${KEY}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": {model},
    "input": {texts}
  }}'
""",
        ),
        Sample(
            "python",
            "Python",
            f"""# pip install openai
import os
from openai import OpenAI

client = OpenAI(base_url="{url}", api_key=os.environ["{KEY}"])
answer = client.embeddings.create(
    model={model},
    input={texts},
)
print(len(answer.data[0].embedding))
""",
        ),
        Sample(
            "typescript",
            "TypeScript",
            f"""// npm install openai
import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{url}",
  apiKey: process.env.{KEY},
}});
const answer = await client.embeddings.create({{
  model: {model},
  input: {texts},
}});
console.log(answer.data[0].embedding.length);
""",
        ),
    ]
