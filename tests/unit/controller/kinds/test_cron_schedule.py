"""What a cron schedule means: examples, and a plain minute-by-minute reading that agrees."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.cron_schedule import InvalidSchedule, Schedule, parse_schedule, parse_zone


def at(text: str, zone: str | None = None) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=parse_zone(zone)).timestamp()


@pytest.mark.parametrize(
    ("schedule", "after", "next_time"),
    [
        ("*/15 * * * *", "2026-01-01 00:00", "2026-01-01 00:15"),
        ("0 0 31 * *", "2026-01-31 12:00", "2026-03-31 00:00"),
        ("30 8 * * MON-FRI", "2026-01-02 09:00", "2026-01-05 08:30"),
        ("0 0 13 * 5", "2026-02-01 00:00", "2026-02-06 00:00"),
        ("0 0 ? jan,jul 7", "2026-02-01 00:00", "2026-07-05 00:00"),
        ("5/20 1 * * *", "2026-01-01 00:00", "2026-01-01 01:05"),
        ("@weekly", "2026-01-01 00:00", "2026-01-04 00:00"),
        ("@every 1h30m", "2026-01-01 00:10", "2026-01-01 01:40"),
    ],
)
def test_next_times(schedule: str, after: str, next_time: str) -> None:
    found = parse_schedule(schedule).after(at(after), UTC)
    assert found == at(next_time)


def test_a_date_that_never_comes_has_no_next_time() -> None:
    assert parse_schedule("0 0 31 2 *").after(at("2026-01-01 00:00"), UTC) is None


def test_an_hour_that_summer_time_skips_does_not_happen_and_one_that_comes_twice_happens_once() -> None:
    zone = parse_zone("Europe/Berlin")
    nightly = parse_schedule("30 2 * * *")
    assert nightly.after(at("2026-03-28 12:00", "Europe/Berlin"), zone) == at("2026-03-30 02:30", "Europe/Berlin")
    first = nightly.after(at("2026-10-24 12:00", "Europe/Berlin"), zone)
    assert first == at("2026-10-25 00:30")
    assert nightly.after(first, zone) == at("2026-10-26 01:30")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("* * * *", "exactly 5 fields"),
        ("60 * * * *", "out of range 0 to 59 of minute"),
        ("5-1 * * * *", "beyond end of range"),
        ("* * * foo *", "failed to parse number 'foo' in month"),
        ("*/0 * * * *", "out of range"),
        ("@every soon", "failed to parse duration"),
        ("@never", "exactly 5 fields"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    with pytest.raises(InvalidSchedule, match=complaint):
        parse_schedule(text)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="unknown time zone Mars/Olympus"):
        parse_zone("Mars/Olympus")


PART = st.sampled_from(["*", "0", "7", "*/7", "2-5", "1,3"])


@settings(max_examples=60, deadline=None)
@given(PART, PART, st.sampled_from(["*", "1", "*/2"]), st.sampled_from(["*", "2-3"]), PART, st.integers(0, 10**6))
def test_agrees_with_reading_minute_by_minute(
    minute: str, hour: str, day: str, month: str, weekday: str, start: int
) -> None:
    schedule = parse_schedule(f"{minute} {hour} {day} {month} {weekday.replace('*/7', '*/3')}")
    moment = at("2026-02-01 00:00") + start
    found = schedule.after(moment, UTC)
    candidate = (moment // 60 + 1) * 60
    limit = candidate + 4 * 86400
    while candidate < limit and not matches(schedule, candidate, day, weekday):
        candidate += 60
    assert found == candidate if candidate < limit else found is None or found >= limit


def matches(schedule: Schedule, moment: float, day: str, weekday: str) -> bool:
    when = datetime.fromtimestamp(moment, UTC)
    days = (when.day in schedule.days, (when.weekday() + 1) % 7 in schedule.weekdays)
    day_fits = any(days) if not day.startswith("*") and not weekday.startswith("*") else all(days)
    fits = when.minute in schedule.minutes and when.hour in schedule.hours and when.month in schedule.months
    return fits and day_fits
