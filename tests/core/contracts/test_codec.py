from datetime import UTC, datetime, timedelta

from pilotlight.contracts.codec import format_utc_now


def test_the_time_of_a_document_is_utc_and_sorts_as_text() -> None:
    before = datetime.now(UTC)
    first, second = format_utc_now(), format_utc_now()
    assert before <= datetime.fromisoformat(first) <= datetime.fromisoformat(second) <= datetime.now(UTC)
    assert first.endswith("+00:00")
    assert datetime.fromisoformat(first).utcoffset() == timedelta(0)


def test_a_batch_has_it_to_the_millisecond() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    text = format_utc_now("milliseconds")
    assert len(text) == len("2026-01-01T00:00:00.000+00:00")
    assert before <= datetime.fromisoformat(text) <= datetime.now(UTC)
