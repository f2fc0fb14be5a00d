"""Attacks on the moment at which an upload becomes a blob: two requests end the same one."""

from __future__ import annotations

from typing import Any

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import ForbiddenError, MemcubeError, QuotaExceededError
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import parse_scopes
from memcube_registry.accounts.service import add_usage
from memcube_registry.blobs import uploading
from memcube_registry.blobs.uploading import NewBlob, OpenUpload
from memcube_registry.database import Database
from support.registry_core import Core

NAME = "eve/x"
CONTENT = b"what many cubes will share"


@pytest.fixture
def core(database: Database) -> Core:
    core = Core(database)
    core.principal = core.person("eve", quota_bytes=1000)
    return core


def finished(core: Core) -> tuple[OpenUpload, NewBlob]:
    """An upload whose bytes are in the store, and which no request has ended yet."""
    upload = core.database.run(lambda s: uploading.begin(s, core.principal, NAME, core.now))
    sink = core.store.open(upload.id, size=0)
    sink.write([CONTENT])
    sink.close()
    location = core.store.finish(upload.id, size=len(CONTENT))
    return upload, NewBlob(Digest.of(CONTENT), len(CONTENT), location)


def complete(core: Core, of: tuple[OpenUpload, NewBlob], who: Principal | None = None) -> None:
    uploading.complete(core.database, core.store, who or core.principal, *of, core.now)


def refused_later(core: Core) -> Principal:
    """The same account, which has lost the right to push since its request began."""
    eve = core.principal
    return Principal(eve.account_id, eve.name, parse_scopes("pull"))


def test_a_request_that_is_refused_late_takes_no_bytes_of_a_blob_along(core: Core) -> None:
    """Others may have mounted the blob by then, which is one for the whole registry."""
    of = finished(core)
    complete(core, of)
    with pytest.raises(ForbiddenError):
        complete(core, of, refused_later(core))
    assert core.has_blob(NAME, Digest.of(CONTENT))


def test_a_refused_request_that_another_overtakes_takes_no_bytes_along(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one ends the upload after the refusal, and before anything is removed."""
    of, run = finished(core), core.database.run
    with core.database.write() as session:
        add_usage(session, of[0].owner_id, 1000)

    def overtaken(work: Any, **how: Any) -> Any:
        try:
            return run(work, **how)
        except QuotaExceededError:
            monkeypatch.undo()
            with core.database.write() as session:
                add_usage(session, of[0].owner_id, -1000)
            complete(core, of)
            raise

    monkeypatch.setattr(core.database, "run", overtaken)
    with pytest.raises(QuotaExceededError):
        complete(core, of)
    assert core.has_blob(NAME, Digest.of(CONTENT))


def test_what_is_refused_leaves_nothing_and_nobody_completes_it_later(core: Core) -> None:
    of = finished(core)
    with pytest.raises(ForbiddenError):
        complete(core, of, refused_later(core))
    assert not list(core.store.objects())
    with pytest.raises(MemcubeError):
        complete(core, of)
    assert not core.has_blob(NAME, Digest.of(CONTENT))
