"""Structured logs, one JSON object a line on standard error. Never log a secret or a whole object.

Vocabulary of keys, so that logs of all processes join: ``host``, ``namespace``, ``pod``, ``uid``,
``object`` (``kind/namespace/name``), ``revision``, ``scope``, ``seconds``, ``reason``.
"""

import logging
import sys
from types import ModuleType
from typing import cast

import orjson

from common.clock import rfc3339_micro

# structlog loads rich, if it can, for coloured output that nothing here writes: 4 MiB of each daemon.
_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = cast(ModuleType, None)
import structlog  # noqa: E402
from structlog.typing import FilteringBoundLogger  # noqa: E402

if _hidden:
    del sys.modules["rich"]


class JsonFormatter(logging.Formatter):
    """What libraries log, in the same form: one JSON object a line, also of a message or trace of many."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "component": record.name,
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "timestamp": rfc3339_micro(record.created),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(entry).decode()


def configure(process: str, level: str = "info") -> None:
    """Set up logging for this process; ``process`` is bound to every line."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def logger(name: str) -> FilteringBoundLogger:
    """A logger bound to ``name`` (the module's role, for example ``scheduler``)."""
    return cast(FilteringBoundLogger, structlog.get_logger(component=name))
