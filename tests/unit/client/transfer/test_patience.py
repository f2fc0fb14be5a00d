"""How long a client waits for a registry that reads a blob back."""

from __future__ import annotations

import pytest
from memcube.transfer.patience import IDLE_S, SLOWEST_BYTES_PER_S, Patience

GIB = 1 << 30


def test_a_registry_that_gets_on_is_waited_for() -> None:
    patience = Patience(GIB, 1000.0)
    for minute in range(16):
        assert not patience.is_over(minute * 60 * SLOWEST_BYTES_PER_S, 1000.0 + minute * 60)


def test_one_that_gets_no_further_is_given_up() -> None:
    patience = Patience(100 * GIB, 0.0)
    assert not patience.is_over(5, 10.0)
    assert not patience.is_over(5, 10.0 + IDLE_S)
    assert patience.is_over(5, 10.1 + IDLE_S)


def test_a_replica_that_begins_anew_is_a_sign_of_life() -> None:
    patience = Patience(100 * GIB, 0.0)
    assert not patience.is_over(GIB, IDLE_S)
    assert not patience.is_over(0, 2 * IDLE_S)
    assert not patience.is_over(1, 3 * IDLE_S)


@pytest.mark.parametrize("size", [1, GIB, 100 * GIB])
def test_no_registry_keeps_a_client_for_ever(size: int) -> None:
    patience, now_s = Patience(size, 0.0), 0.0
    while not patience.is_over(int(now_s) % 2, now_s):  # ever another number, and never an end
        now_s += 61.0
    assert now_s <= IDLE_S + size / SLOWEST_BYTES_PER_S + 61
