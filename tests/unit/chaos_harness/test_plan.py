"""A plan follows from its seed; contents do too."""

import pytest
from chaos.contents import Contents
from chaos.plan import FULL, Fault, Profile, plan_round


@pytest.mark.parametrize("profile", Profile)
def test_the_same_seed_gives_the_same_plan_and_another_one_another(profile: Profile) -> None:
    for number in range(5):
        planned = plan_round(7, profile, number)
        assert planned == plan_round(7, profile, number)
        assert planned != plan_round(8, profile, number)


@pytest.mark.parametrize("profile", Profile)
def test_every_round_ends_with_a_kill_of_the_whole_registry_and_begins_nothing_after_it(
    profile: Profile,
) -> None:
    for number in range(20):
        strikes = plan_round(7, profile, number).strikes
        assert strikes[-1].fault is Fault.REGISTRY
        assert strikes[-1].at_s == FULL.lasts_s == max(strike.at_s for strike in strikes)


def test_every_fault_of_a_profile_comes_within_a_few_rounds() -> None:
    found = {
        profile: {s.fault for number in range(8) for s in plan_round(1, profile, number).strikes}
        for profile in Profile
    }
    common = {Fault.WORKER, Fault.PARENT, Fault.REGISTRY, Fault.CLOCK}
    assert found[Profile.SQLITE] == common | {Fault.DISK}
    assert found[Profile.POSTGRES] == common | {Fault.DATABASE, Fault.STORE}


@pytest.mark.parametrize("profile", Profile)
def test_every_round_mounts_from_many_clients(profile: Profile) -> None:
    for number in range(4):
        scripts = plan_round(1, profile, number).scripts
        mounting = [script for script in scripts if any(one.kind == "mount" for one in script)]
        assert len(mounting) >= 3


def test_contents_follow_from_seed_and_label() -> None:
    image = Contents(1).image("a", 100, 3)
    assert image == Contents(1).image("a", 100, 3)
    assert image.manifest != Contents(2).image("a", 100, 3).manifest
    assert image.manifest != Contents(1).image("b", 100, 3).manifest
