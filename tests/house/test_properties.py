"""Properties that Hypothesis tries fail by what they find, never because the machine is busy."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

TESTS = Path(__file__).parents[1]


def test_no_property_fails_on_a_machine_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(step=60.0)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    tried: list[str] = []

    @given(st.text())
    def holds(text: str) -> None:
        tried.append(text)

    holds()
    assert len(tried) > 10


def test_no_settings_of_a_property_bring_the_time_back() -> None:
    settings = re.compile(r"@settings\((?:[^()]|\([^()]*\))*\)")
    timed = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for found in settings.findall(path.read_text()):
            listed = "suppress_health_check" in found and "HealthCheck.too_slow" not in found
            if listed or re.search(r"deadline=(?!None)", found):
                timed.append(f"{path.relative_to(TESTS)}: {found}")
    assert timed == []
