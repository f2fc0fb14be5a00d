"""Token buckets."""

from hypothesis import given, settings
from hypothesis import strategies as st
from memcube_registry.rate_limits import BURST_S, MemoryBuckets, Rate, whole_seconds


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    buckets, rate = MemoryBuckets(), Rate(2.0)
    waits = [buckets.take("a", rate, now_s=0.0) for _ in range(2 * BURST_S + 1)]
    assert waits[:-1] == [0.0] * (2 * BURST_S)
    assert waits[-1] == 0.5
    assert buckets.take("a", rate, now_s=0.49) > 0
    assert buckets.take("a", rate, now_s=0.51) == 0.0


def test_one_sender_does_not_use_anothers_bucket() -> None:
    buckets, rate = MemoryBuckets(), Rate(0.1)
    assert buckets.take("a", rate, now_s=0.0) == 0.0
    assert buckets.take("a", rate, now_s=0.0) > 0
    assert buckets.take("b", rate, now_s=0.0) == 0.0


def test_a_rate_of_zero_is_no_limit() -> None:
    buckets = MemoryBuckets()
    assert not any(buckets.take("a", Rate(0.0), now_s=0.0) for _ in range(10_000))


def test_memory_is_bounded_and_the_one_unused_longest_goes() -> None:
    buckets, rate = MemoryBuckets(capacity=2), Rate(0.1)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, rate, now_s=0.0)
    assert buckets.take("b", rate, now_s=0.0) == 0.0
    assert len(buckets) == 2


@settings(deadline=None)
@given(
    st.floats(0.1, 50),
    st.lists(st.floats(0, 3, allow_subnormal=False), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_the_rate_pass(per_s: float, pauses: list[float]) -> None:
    buckets, rate, now_s, passed = MemoryBuckets(), Rate(per_s), 0.0, 0
    for pause in pauses:
        now_s += pause
        passed += buckets.take("a", rate, now_s=now_s) == 0.0
    assert passed <= rate.burst + per_s * sum(pauses) + 1e-6


@given(st.floats(0, 1e6))
def test_waits_are_whole_seconds_rounded_up(wait_s: float) -> None:
    assert whole_seconds(wait_s) >= 1
    assert wait_s <= whole_seconds(wait_s) < wait_s + 2
