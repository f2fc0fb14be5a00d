from datetime import UTC, datetime

import pytest
from memcube.http.retry import RetryPolicy, retry_after_s

NOW = datetime(2026, 5, 17, 12, 0, 0, tzinfo=UTC)


def test_waits_grow_to_a_bound_and_end() -> None:
    policy = RetryPolicy(attempts=10, first_wait_s=1, longest_wait_s=20, jitter=lambda: 1.0)
    waits = [policy.wait_s(failures) for failures in range(1, 11)]
    assert waits == [1, 2, 4, 8, 16, 20, 20, 20, 20, None]


def test_jitter_takes_up_to_half_of_a_wait() -> None:
    assert RetryPolicy(first_wait_s=1, jitter=lambda: 0.0).wait_s(1) == 0.5


def test_the_servers_wish_wins_unless_it_is_too_long() -> None:
    policy = RetryPolicy(longest_wait_s=60)
    assert policy.wait_s(1, 7.0) == 7.0
    assert policy.wait_s(1, 61.0) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Sun, 17 May 2026 12:00:30 GMT", 30),
        ("Sun, 17 May 2026 11:00:00 GMT", 0),
        ("-1", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Sun, 99 May 2026 12:00:30 GMT", None),
        ("9" * 400, 999999999),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
