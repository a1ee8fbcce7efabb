"""Logs as JSON lines: time, level, message and named fields; never a prompt, an answer or a secret.

Only fields named here leave the process, so a careless `extra` cannot leak one.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

FIELDS = (
    "request_id",
    "client_request_id",
    "organisation_id",
    "key_id",
    "surface",
    "model",
    "replica",
    "status",
    "outcome",
    "duration_ms",
    "first_token_ms",
    "input_tokens",
    "output_tokens",
    "cost_nano_usd",
    "reason",
)
"""What a log line may carry beside its message."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Write the record; an exception's traceback goes into one field."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for field in FIELDS:
            if (value := getattr(record, field, None)) is not None:
                line[field] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(process: str, level: str) -> None:
    """Send every logger of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "litestar"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # httpx tells every probe of an engine at this level.
    logging.getLogger("httpx").setLevel(logging.WARNING)
