"""Mount profiles in config.toml: what they say, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from memcube.profiles import ProfileCube, profiles_of
from memcube.settings import Settings
from memcube_protocol.errors import InvalidSettingError, NotFoundError
from memcube_protocol.reference import Reference

WORK = """
use = ["personal"]
sensitivity = "confidential"

[profile.work]
cubes = ["acme/handbook:2", { cube = "alice/notes", priority = 3, filters = ["kind=plaintext"] }]
filters = ["memory=facts"]
budget_tokens = 800
sensitivity = "internal"
use = ["commercial"]

[profile.home]
cubes = ["alice/house"]
"""


def load(home: Path, text: str, **variables: str) -> Settings:
    (home / "config.toml").write_text(text, "utf-8")
    return Settings.load({"MEMCUBE_HOME": str(home)} | variables)


def test_a_profile_names_the_cubes_of_a_role_with_their_priorities_and_filters(
    tmp_path: Path,
) -> None:
    settings = load(tmp_path, WORK)
    work = settings.profile("work")
    assert work.cubes == (
        ProfileCube(Reference.parse("acme/handbook:2"), filters=("memory=facts",)),
        ProfileCube(Reference.parse("alice/notes"), 3, ("kind=plaintext",)),
    )
    assert (work.budget_tokens, work.sensitivity, work.uses) == (
        800,
        "internal",
        frozenset({"commercial"}),
    )
    home = settings.profile("home")
    assert (home.budget_tokens, home.sensitivity, home.uses) == (None, None, None)
    assert (settings.uses, settings.sensitivity) == (frozenset({"personal"}), "confidential")


def test_an_unknown_profile_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="'wrok'") as caught:
        load(tmp_path, WORK).profile("wrok")
    assert caught.value.hint == "config.toml has: home, work"
    with pytest.raises(NotFoundError) as caught:
        load(tmp_path, "").profile("work")
    assert caught.value.hint
    assert "[profile.work]" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("profile = 3", "profile"),
        ("[profile]\nwork = 3", "profile.work"),
        ("[profile.work]\ncubes = []", "cubes"),
        ("[profile.work]", "cubes"),
        ('[profile.work]\ncubes = "a/b"', "cubes"),
        ("[profile.work]\ncubes = [3]", "cubes"),
        ('[profile.work]\ncubes = ["A B"]', "profile.work"),
        ('[profile.work]\ncubes = ["a/b", "a/b"]', "twice"),
        ('[profile.work]\ncubes = [{ cube = "a/b", priority = 0 }]', "priority"),
        ('[profile.work]\ncubes = [{ cube = "a/b", priority = 101 }]', "priority"),
        ("[profile.work]\ncubes = [{ priority = 1 }]", "cube"),
        ('[profile.work]\ncubes = [{ cube = "a/b", colour = "red" }]', "colour"),
        ('[profile.work]\ncubes = ["a/b"]\nfilters = ["colour=red"]', "filter"),
        ('[profile.work]\ncubes = ["a/b"]\nbudget_tokens = 0', "budget_tokens"),
        ('[profile.work]\ncubes = ["a/b"]\nsensitivity = "secret"', "sensitivity"),
        ('[profile.work]\ncubes = ["a/b"]\nuse = ["war"]', "use"),
        ('[profile.work]\ncubes = ["a/b"]\ncube = "c/d"', "cube"),
        ('[profile."a b"]\ncubes = ["a/b"]', "name"),
        ('use = ["war"]', "war"),
        ('use = "research"', "use"),
        ('sensitivity = "secret"', "secret"),
    ],
)
def test_a_wrong_profile_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(InvalidSettingError, match=named) as caught:
        load(tmp_path, text)
    assert caught.value.hint


def test_a_variable_tells_the_uses_of_one_run(tmp_path: Path) -> None:
    settings = load(tmp_path, WORK, MEMCUBE_USE="research, education", MEMCUBE_SENSITIVITY="public")
    assert settings.uses == frozenset({"research", "education"})
    assert settings.sensitivity == "public"


def test_there_are_not_more_profiles_than_anybody_has_roles() -> None:
    with pytest.raises(InvalidSettingError, match="256"):
        profiles_of({f"p{number}": {"cubes": ["a/b"]} for number in range(257)})
