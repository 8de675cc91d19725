"""Cron schedules as Kubernetes reads them: five fields, names, steps, ``@hourly`` and its like, ``@every``. Pure.

Fields are those of crontab(5). If both the day of month and the day of week are restricted, either may match. A time
that a change to summer time skips does not happen; one that comes twice happens at its first coming.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from common.errors import Terminal

YEARS_MAX: Final = 5
_MONTHS: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS: Final = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: Final = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("", *_MONTHS)),
    ("day of week", 0, 7, tuple(_DAYS)),
)
_NAMED: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS_S: Final[Mapping[str, float]] = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|ms|s|m|h))+")


class InvalidSchedule(Terminal, ValueError):
    """The schedule, or its time zone, is malformed; the message says where."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """``every_s`` is of ``@every`` and counts from the last time; the sets are of the five fields."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either_day: bool = False
    every_s: float = 0.0

    def after(self, moment: float, zone: tzinfo) -> float | None:
        """The first time later than ``moment`` (seconds since the epoch); None when there is none in five years."""
        if self.every_s:
            return float(int(moment)) + self.every_s
        local = datetime.fromtimestamp(moment, zone).replace(second=0, microsecond=0, tzinfo=None, fold=0)
        last = local.year + YEARS_MAX
        day = local.replace(hour=0, minute=0)
        while day.year <= last:
            if day.month not in self.months:
                day = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
                continue
            for found in self._on(day, zone) if self._is_day(day) else ():
                if found > moment:
                    return found
            day += timedelta(days=1)
        return None

    def _is_day(self, day: datetime) -> bool:
        by_month, by_week = day.day in self.days, (day.weekday() + 1) % 7 in self.weekdays
        return (by_month or by_week) if self.either_day else (by_month and by_week)

    def _on(self, day: datetime, zone: tzinfo) -> Iterator[float]:
        """Times of one day in their order."""
        for hour in sorted(self.hours):
            for minute in sorted(self.minutes):
                wall = day.replace(hour=hour, minute=minute)
                there = wall.replace(tzinfo=zone)
                if there.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wall:
                    yield there.timestamp()


def parse_schedule(text: str) -> Schedule:
    """Raises ``InvalidSchedule``."""
    if text.startswith("@every "):
        return Schedule(every_s=_duration_s(text.removeprefix("@every ").strip()))
    fields = _NAMED.get(text.strip(), text).split()
    if len(fields) != len(_FIELDS):
        raise InvalidSchedule(f"expected exactly 5 fields, found {len(fields)}: {text!r}")
    found = [_field(field, *rule) for field, rule in zip(fields, _FIELDS, strict=True)]
    restricted = [not field.startswith(("*", "?")) for field in fields]
    weekdays = frozenset(day % 7 for day in found[4])
    return Schedule(found[0], found[1], found[2], found[3], weekdays, either_day=restricted[2] and restricted[4])


def parse_zone(name: str | None) -> tzinfo:
    """The zone of that IANA name; UTC without one. Raises ``InvalidSchedule``."""
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidSchedule(f"unknown time zone {name}") from None


def _duration_s(text: str) -> float:
    if not _DURATION.fullmatch(text):
        raise InvalidSchedule(f"failed to parse duration @every {text}")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", text)
    return max(1.0, float(int(sum(float(number) * _UNITS_S[unit] for number, unit in parts))))


def _field(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, name, 1, high + 1, ()) if slash else 1
        if span in ("*", "?"):
            first, last = low, high if name != "day of week" else 6
        else:
            start, dash, end = span.partition("-")
            first = _number(start, name, low, high, names)
            last = _number(end, name, low, high, names) if dash else (high if slash else first)
        if first > last:
            raise InvalidSchedule(f"beginning of range ({first}) beyond end of range ({last}) in {name}: {part}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    known = text.lower()
    if known and known in names:
        return names.index(known)
    if not text.isdigit():
        raise InvalidSchedule(f"failed to parse number {text!r} in {name}")
    number = int(text)
    if not low <= number <= high:
        raise InvalidSchedule(f"{number} is out of range {low} to {high} of {name}")
    return number
