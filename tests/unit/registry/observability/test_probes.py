"""However many ask for readiness or figures, the database and the store are asked a few times a second."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from memcube_protocol.errors import UnavailableError
from memcube_registry.observability import probes
from memcube_registry.observability.probes import APART_S, Shared

MANY = 200


def test_all_who_ask_during_one_look_share_the_next() -> None:
    begun, goes_on = threading.Event(), threading.Event()
    looks: list[int] = []

    def look() -> int:
        looks.append(len(looks))
        begun.set()
        assert goes_on.wait(60)
        return looks[-1]

    async def flood() -> list[int]:
        shared = Shared(look)
        first = asyncio.create_task(shared.take())
        await asyncio.to_thread(begun.wait, 60)
        others = [asyncio.create_task(shared.take()) for _ in range(MANY)]
        await asyncio.sleep(0)
        goes_on.set()
        return await asyncio.gather(first, *others)

    assert asyncio.run(flood()) == [0] + [1] * MANY


def test_between_two_looks_there_is_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: 1000.0)
    monkeypatch.setattr(probes, "time", clock)
    shared = Shared(lambda: None)
    for _ in range(3):
        asyncio.run(shared.take())
    assert pauses == [0.0, pytest.approx(APART_S), pytest.approx(APART_S)]


def test_who_is_not_ready_says_so_to_everybody_and_again_once_it_is() -> None:
    answers = [UnavailableError("the store is away", hint="wait"), None]

    def look() -> None:
        if answer := answers.pop(0):
            raise answer

    shared = Shared(look)
    with pytest.raises(UnavailableError, match="the store is away"):
        asyncio.run(shared.take())
    asyncio.run(shared.take())
