"""Attacks on the memory of garbage collection: very many objects, each of which costs its account little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memcube_registry.database import Database
from memcube_registry.storage import MemoryStore, Object
from support.registry_core import START, Core

MANY = 1000


class ManyOrphans(MemoryStore):
    """A store that lists objects of no blob, one by one, and counts how many it has listed ahead of their end."""

    listed = deleted = most_ahead = 0

    def objects(self) -> Iterator[Object]:
        for number in range(MANY):
            self.listed += 1
            self.most_ahead = max(self.most_ahead, self.listed - self.deleted)
            yield Object(f"{number:032x}", START)

    def delete(self, location: str) -> None:
        self.deleted += 1
        super().delete(location)


@pytest.fixture
def core(database: Database) -> Core:
    return Core(database, ManyOrphans())


def test_objects_are_judged_as_they_are_listed_and_never_held_all_at_once(core: Core) -> None:
    core.wait(days=3)
    assert core.collect().orphans_removed == MANY
    assert isinstance(core.store, ManyOrphans)
    assert core.store.most_ahead < MANY / 2
