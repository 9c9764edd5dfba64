"""Structured logs of the server: one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being handled."""
FIELDS = "fields"
"""Attribute of a log record with further fields of its line: `LOG.info(text, extra={FIELDS: {...}})`."""


class JsonLines(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, logger, message, request, further fields, and a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, without its line break."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request := REQUEST_ID.get()) is not None:
            line["request"] = request
        line |= getattr(record, FIELDS, {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_json(stream: TextIO | None = None) -> None:
    """Write all records of warnings and above, and those of every request, to a stream, by default stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("tshsr.server").setLevel(logging.INFO)
