"""What attacks on clients share: a registry behind a line that lies, and a cube on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from conftest import ALL_SCOPES, NO_LIMITS, Person, fresh
from support.hostile import Hostile, hostile_registry
from support.story import Story

NO_PASSPHRASE = {"MEMCUBE_KEY_UNENCRYPTED": "1"}


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """The one hostile registry of this worker."""
    with hostile_registry(tmp_path_factory.mktemp("hostile"), NO_LIMITS) as made:
        yield made


@pytest.fixture
def hostile(line: Hostile, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    """A registry that is honest until the test lets it lie."""
    monkeypatch.setenv("MEMCUBE_KEY_UNENCRYPTED", "1")
    line.lies.clear()
    yield line
    line.lies.clear()


@pytest.fixture(scope="session")
def publisher(line: Hostile) -> Person:
    """Somebody who publishes there."""
    name = fresh("alice")
    line.server.create_account(name)
    return Person(line.server, name, line.server.create_token(name, *ALL_SCOPES))


@pytest.fixture(scope="session")
def cube(line: Hostile, publisher: Person, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """A public cube with the releases 1.0.0 and 1.1.0, honestly published."""
    folder = tmp_path_factory.mktemp("cube")
    made = Story(line, publisher, folder, f"{publisher.name}/notes", folder / "publisher")
    with mock.patch.dict(os.environ, NO_PASSPHRASE):
        made.push("1.0.0")
        made.push("1.1.0")
    return made


@pytest.fixture
def story(cube: Story, hostile: Hostile, tmp_path: Path) -> Story:
    """The cube, and consumers who have not met it yet."""
    return replace(cube, folder=tmp_path)


@pytest.fixture
def own_story(hostile: Hostile, publisher: Person, tmp_path: Path) -> Story:
    """A cube of the test's own, not published yet, whose publisher has a key of its own."""
    return Story(
        hostile, publisher, tmp_path, f"{publisher.name}/{fresh('notes')}", tmp_path / "publisher"
    )
