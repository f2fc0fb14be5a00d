"""The planner is a pure function: given figures, the choice and its reason are given too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.mounting.planning import SAVING_S, Act, Circumstances, Misfit, Offer, plan
from memcube.speeds import Prefill, Rate, Speeds

NOW = datetime(2026, 11, 27, tzinfo=UTC)
GIB, MIB = 1 << 30, 1 << 20


def rate(bytes_per_s: float) -> Rate:
    return Rate(bytes_per_s, NOW)


def speeds(network: float | None = None, cold: float = GIB, warm: float = 4 * GIB) -> Speeds:
    return Speeds(rate(cold), rate(warm), {"hub": rate(network)} if network else {})


def circumstances(per_token_s: float | None = 1e-2, **changes: object) -> Circumstances:
    figure = Prefill(per_token_s, 0.0, 1024, NOW) if per_token_s else None
    at = Circumstances(speeds(), has_model=True, prefill=figure)
    return replace(at, **changes)


CACHE = Offer("a/b", "kv", "activation", "hub", size_bytes=680 * MIB, tokens=6064, has_text=True)


def test_a_cache_on_a_slow_computer_is_loaded() -> None:
    (choice,) = plan([CACHE], circumstances()).choices
    assert (choice.act, choice.fetch_bytes) == (Act.LOAD, 0)
    assert choice.seconds == pytest.approx(680 / 1024)
    assert choice.why == (
        "680.0 MiB from disk at 1.0 GiB/s in 0.664 s; reading its 6064 tokens anew takes 60.6 s; "
        "loading pays above 11.2 MiB/s"
    )


def test_a_cache_behind_a_slow_network_is_read_anew_by_a_fast_model() -> None:
    far = replace(CACHE, absent_bytes=CACHE.size_bytes)
    at = circumstances(3e-5, speeds=speeds(network=10 * MIB))
    (choice,) = plan([far], at).choices
    assert (choice.act, choice.fetch_bytes) == (Act.PREFILL, 0)
    assert choice.seconds == pytest.approx(0.18, abs=0.01)
    assert "680.0 MiB from hub at 10.0 MiB/s in 68 s" in choice.why
    assert "loading pays above 3.7 GiB/s" in choice.why


def test_what_is_fetched_once_serves_the_mounts_to_come() -> None:
    far = replace(CACHE, absent_bytes=CACHE.size_bytes)
    at = circumstances(
        1e-3, speeds=speeds(network=100 * MIB)
    )  # fetched in 6.8 s, read anew in 6.1 s
    assert plan([far], at).choices[0].act is Act.PREFILL
    (choice,) = plan([replace(far, mounts=8)], at).choices
    assert choice.act is Act.LOAD
    assert "fetched once, where it was mounted 8 times" in choice.why


def test_a_text_that_is_read_anew_is_kept_where_the_disk_is_faster_next_time() -> None:
    other = replace(CACHE, misfit=Misfit("base is another"))
    for per_token_s, kept in ((1e-2, True), (1e-5, False), (None, True)):
        (choice,) = plan([other], circumstances(per_token_s, rebuild=True)).choices
        assert (choice.act, choice.keep) == (Act.PREFILL, kept)


def test_caches_are_composed_only_if_that_is_wished() -> None:
    second = replace(CACHE, memory="second")
    other = replace(CACHE, memory="other", misfit=Misfit("base is another"))
    chosen = plan([CACHE, second, other], circumstances(compose=True)).choices
    assert [choice.act for choice in chosen] == [Act.LOAD, Act.LOAD, Act.LEAVE]
    assert "behind kv of a/b, which is approximate" in chosen[1].why


def test_a_cache_without_its_text_can_only_be_loaded() -> None:
    far = replace(CACHE, absent_bytes=CACHE.size_bytes, has_text=False)
    at = circumstances(3e-5, speeds=speeds(network=10 * MIB))
    (choice,) = plan([far], at).choices
    assert (choice.act, choice.fetch_bytes) == (Act.LOAD, far.size_bytes)
    assert "it carries no text" in choice.why


def test_what_was_not_measured_is_said_and_loading_is_preferred() -> None:
    far = replace(CACHE, absent_bytes=CACHE.size_bytes)
    for at in (circumstances(3e-5), circumstances(None, speeds=speeds(network=MIB))):
        (choice,) = plan([far], at).choices
        assert choice.act is Act.LOAD
        assert "not measured" in choice.why
    assert plan([far], circumstances(3e-5)).seconds is None


def test_a_little_from_this_machine_takes_no_time_that_has_to_be_measured() -> None:
    notes = Offer("a/b", "plaintext", "plaintext", size_bytes=MIB, records=7)
    planned = plan([notes], Circumstances())
    assert planned.seconds == 0.0
    assert planned.choices[0].why == "7 records, 1.0 MiB from disk"
    assert plan([replace(notes, size_bytes=MIB + 1)], Circumstances()).seconds is None
    assert plan([replace(notes, absent_bytes=1)], Circumstances()).seconds is None


@given(
    st.integers(1, 10_000),
    st.integers(1, 1 << 40),
    st.floats(1e-7, 1.0),
    st.floats(1e3, 1e12),
    st.floats(0, 1),
)
def test_no_other_way_saves_more_than_is_worth_a_verified_memory(
    tokens: int, size: int, per_token_s: float, cold: float, warm_share: float
) -> None:
    offer = replace(CACHE, tokens=tokens, size_bytes=size, warm_share=warm_share)
    at = circumstances(per_token_s, speeds=speeds(cold=cold))
    (choice,) = plan([offer], at).choices
    here = round(size * warm_share)
    load_s = (size - here) / cold + here / (4 * GIB)
    prefill_s = per_token_s * tokens
    assert choice.act is (Act.PREFILL if load_s - prefill_s > SAVING_S else Act.LOAD)
    assert choice.seconds == pytest.approx(min(choice.seconds, load_s, prefill_s + load_s))


def test_one_prefix_is_exact_and_of_a_second_cache_the_text_is_looked_up() -> None:
    second = replace(CACHE, memory="second")
    blind = replace(CACHE, memory="blind", has_text=False)
    other = replace(CACHE, memory="other", misfit=Misfit("base is another"))
    chosen = plan([CACHE, second, blind, other], circumstances()).choices
    assert [choice.act for choice in chosen] == [Act.LOAD, Act.RETRIEVE, Act.LEAVE, Act.LEAVE]
    assert chosen[3].why == "base is another"
    assert "one prefix is exact, and kv of a/b is it" in chosen[1].why


def test_what_does_not_fit_is_left_and_read_anew_only_if_that_is_wished() -> None:
    other = replace(CACHE, misfit=Misfit("base is another"))
    adapter = Offer("a/b", "style", "parametric", misfit=Misfit("trained on another base"))
    left = plan([other, adapter], circumstances()).choices
    assert [(choice.offer.memory, choice.act) for choice in left] == [
        ("style", Act.LEAVE),
        ("kv", Act.LEAVE),
    ]
    assert [choice.why for choice in left] == ["trained on another base", "base is another"]
    (anew,) = plan([other], circumstances(rebuild=True)).choices
    assert anew.act is Act.PREFILL
    assert "base is another" in anew.why
    silent = replace(other, has_text=False)
    assert plan([silent], circumstances(rebuild=True)).choices[0].act is Act.LEAVE


def test_without_a_model_texts_start_the_prompt_as_far_as_half_the_budget_goes() -> None:
    small = replace(CACHE, memory="small", tokens=300, text_tokens=400)
    other = replace(CACHE, memory="other", tokens=150, text_tokens=200)
    adapter = Offer("a/b", "style", "parametric", size_bytes=MIB)
    blind = replace(CACHE, memory="blind", has_text=False)
    at = Circumstances(speeds(), budget_tokens=1000)
    long = replace(CACHE, tokens=3, text_tokens=6064)
    chosen = plan([small, other, adapter, blind, long], at).choices
    assert [(choice.offer.memory, choice.act) for choice in chosen] == [
        ("style", Act.LEAVE),
        ("small", Act.PREFILL),
        ("other", Act.RETRIEVE),
        ("blind", Act.LEAVE),
        ("kv", Act.RETRIEVE),
    ]
    assert plan([small, adapter], at).fetch_bytes == 0


def test_a_text_that_is_longer_than_its_cache_says_is_not_thought_to_be_read_in_no_time() -> None:
    far = replace(CACHE, absent_bytes=CACHE.size_bytes, tokens=10, whole_tokens=10)
    at = circumstances(3e-3, speeds=speeds(network=100 * MIB))
    assert plan([far], at).choices[0].act is Act.PREFILL
    (choice,) = plan([replace(far, text_tokens=40_000)], at).choices
    assert choice.act is Act.LOAD
    assert "reading its 10000 tokens anew takes 30 s" in choice.why


def test_adapters_come_first_and_records_last_each_by_the_priority_of_its_cube() -> None:
    offers = [
        Offer(cube, kind[:2], kind, has_text=True, tokens=5)
        for cube in ("high/one", "low/two")
        for kind in ("plaintext", "activation", "parametric")
    ]
    told = [
        (choice.offer.kind, choice.offer.cube) for choice in plan(offers, circumstances()).choices
    ]
    assert told == [
        (kind, cube)
        for kind in ("parametric", "activation", "plaintext")
        for cube in ("high/one", "low/two")
    ]


def test_a_plan_says_of_which_kinds_no_memory_fits() -> None:
    wrong = replace(CACHE, misfit=Misfit("base is another"))
    adapter = Offer("a/b", "style", "parametric", misfit=Misfit("trained on another base"))
    at = circumstances()
    assert plan([wrong, adapter], at).refused_kinds == ("parametric", "activation")
    assert plan([wrong, replace(CACHE, memory="other")], at).refused_kinds == ()
    assert plan([wrong], replace(at, rebuild=True)).refused_kinds == ()
    assert plan([replace(wrong, spare=True)], at).refused_kinds == ()


def test_a_plan_says_which_cubes_a_mount_would_end_with() -> None:
    over = replace(CACHE, cube="over/one", forbidden="expires_at: it is over")
    told = plan([over, replace(over, memory="other"), CACHE], circumstances())
    assert told.refused_cubes == ("over/one",)
    assert plan([CACHE], circumstances()).refused_cubes == ()
