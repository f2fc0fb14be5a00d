"""One account has a great number of something that costs it nothing, and others wait for its end."""

from __future__ import annotations

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ConflictError
from memcube_registry.catalog.service import delete_cube
from memcube_registry.database import Database
from memcube_registry.manifests import collecting
from memcube_registry.manifests import service as manifests
from support.registry_core import Core
from support.statements import counted

NAME = "mallory/many"
TAGS = [f"{number}.0.0" for number in range(150)]
BLOBS = [f"content {number}".encode() for number in range(30)]


@pytest.fixture
def core(database: Database) -> Core:
    made = Core(database)
    made.principal = made.person("mallory")
    return made


def test_a_manifest_with_any_number_of_tags_goes_in_few_statements(core: Core) -> None:
    digest = core.push_manifest(NAME, [], *TAGS)
    with counted(core.database) as asked:
        core.database.run(
            lambda session: manifests.delete(session, core.principal, NAME, digest, core.now)
        )
    assert len(asked) < 60
    # None of its versions ever leads elsewhere.
    core.push_blob(NAME, b"other")
    with pytest.raises(ConflictError):
        core.push_manifest(NAME, [b"other"], TAGS[-1])


def test_a_cube_of_any_number_of_blobs_goes_in_few_statements(core: Core) -> None:
    shared = core.push_blob("mallory/other", BLOBS[0])
    kept = core.used_bytes("mallory")
    for content in BLOBS:
        core.push_blob(NAME, content)
    core.push_manifest(NAME, BLOBS, *TAGS)
    with counted(core.database) as asked:
        core.database.run(lambda session: delete_cube(session, core.principal, NAME, core.now))
    assert len(asked) < 60
    assert core.used_bytes("mallory") == kept
    assert core.has_blob("mallory/other", shared)
    assert not core.has_blob(NAME, Digest.of(BLOBS[1]))


def test_garbage_of_one_cube_goes_in_portions(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "_REMOVED_AT_ONCE", 2)
    for content in BLOBS[:7]:
        core.push_blob(NAME, content)
        core.push_manifest(NAME, [content])
    longest: list[int] = []
    run = core.database.run

    def watched(work: object, **options: object) -> object:
        with counted(core.database) as asked:
            result = run(work, **options)  # type: ignore[arg-type]
        longest.append(sum(one.startswith("DELETE FROM manifest ") for one in asked))
        return result

    core.wait(days=2)
    core.collect()
    core.wait(days=2)
    monkeypatch.setattr(core.database, "run", watched)
    assert core.collect().manifests_removed == 7
    assert max(longest) == 2
