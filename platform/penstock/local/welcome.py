"""What `penstock up` prints when it is ready: addresses, the secrets once, two ways to try it as pasted."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from penstock.local.first_run import FirstAccount

QUESTION = "What is Penstock?"


@dataclass(frozen=True)
class Ready:
    """What a newcomer needs to know of a running Penstock."""

    base_url: str
    api_key: str | None
    """The secret, only at the first start; later nobody can know it."""
    model: str
    took_s: float
    portal_url: str
    account: FirstAccount | None
    """With what to sign in there, only at the first start."""


def text(ready: Ready) -> str:
    """Write the welcome. Both snippets are pasted into a shell; without a key they read $PENSTOCK_API_KEY."""
    return "\n\n".join([_head(ready), _curl(ready), _python(ready), "Ctrl-C stops it."])


def as_json(ready: Ready, pid: int) -> str:
    """The same for a script, in one line; null stands for what is not known any more."""
    return json.dumps(
        {
            "base_url": ready.base_url,
            "api_key": ready.api_key,
            "portal_url": ready.portal_url,
            "portal_email": ready.account and ready.account.email,
            "portal_password": ready.account and ready.account.password,
            "pid": pid,
        }
    )


def _head(ready: Ready) -> str:
    lines = [f"Penstock is ready after {ready.took_s:.1f} s.", f"  Base URL  {ready.base_url}"]
    if ready.api_key:
        lines.append(f"  API key   {ready.api_key}   (shown this once)")
    else:
        lines.append(
            "  API key   shown at the first start; make another with `.venv/bin/penstock keys create` and\n"
            "            `export PENSTOCK_API_KEY=...`"
        )
    lines.append(f"  Portal    {ready.portal_url}")
    if ready.account:
        lines.append(
            f"            sign in as {ready.account.email} with {ready.account.password}   (shown this once)"
        )
    return "\n".join(lines)


def _curl(ready: Ready) -> str:
    key = ready.api_key or "$PENSTOCK_API_KEY"
    return (
        f"curl -N {ready.base_url}/chat/completions \\\n"
        f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"model": "{ready.model}", "stream": true, '
        f'"messages": [{{"role": "user", "content": "{QUESTION}"}}]}}\''
    )


def _python(ready: Ready) -> str:
    key = f'"{ready.api_key}"' if ready.api_key else 'os.environ["PENSTOCK_API_KEY"]'
    imports = "from openai import OpenAI" if ready.api_key else "import os\nfrom openai import OpenAI"
    return f"""{sys.executable} - <<'EOF'
{imports}

client = OpenAI(base_url="{ready.base_url}", api_key={key})
stream = client.chat.completions.create(
    model="{ready.model}",
    messages=[{{"role": "user", "content": "{QUESTION}"}}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
EOF"""
