"""What of a cube may leave before the whole of it was scanned."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from memcube.publishing.vetting import Sieve, Vetting
from memcube.scanning.scanner import LayerScanner
from memcube_protocol import media_types
from memcube_protocol.content import MemoryBlobs
from memcube_protocol.cube import CubeFile
from memcube_protocol.digest import Digest
from memcube_protocol.errors import NotFoundError

PROGRAM = b"#!/bin/sh\necho no\n"


def layer(name: str, content: bytes) -> CubeFile:
    details = {media_types.ATTACHMENT_TYPE: "text/plain"}
    path, digest = f"attachments/{name}", Digest.of(content)
    return CubeFile(path, media_types.ATTACHMENT, digest, len(content), details=details)


FINE, STOPS, LATER = layer("a.txt", b"fine"), layer("b.txt", PROGRAM), layer("c.txt", b"later")
CONTENTS = [b"fine", PROGRAM, b"later"]


class Counted:
    """Blobs in memory that count how often they were read."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobs(CONTENTS)
        self.reads: list[Digest] = []

    def read(self, digest: Digest, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self.reads.append(digest)
        return self.blobs.read(digest, start=start, stop=stop)


def passed(vet: Vetting) -> list[Digest]:
    through: list[Digest] = []
    sieve = Sieve(
        LayerScanner(MemoryBlobs(CONTENTS)), lambda blob: through.append(blob.digest), vet
    )
    for file in (FINE, STOPS, LATER):
        sieve(file, True)
    return through


def test_a_layer_passes_after_its_own_scan_and_none_after_a_finding_that_stops_the_push() -> None:
    assert passed(Vetting()) == [FINE.digest]


@pytest.mark.parametrize("vet", [Vetting(scan=False), Vetting(allow_findings=True)])
def test_everything_passes_where_the_publisher_said_so(vet: Vetting) -> None:
    assert passed(vet) == [FINE.digest, STOPS.digest, LATER.digest]


def test_a_layer_is_looked_at_once() -> None:
    blobs = Counted()
    layers = LayerScanner(blobs)
    first = layers.look(STOPS)
    reads = len(blobs.reads)
    assert [finding.rule for finding in layers.findings(STOPS)] == ["script"]
    assert layers.look(STOPS) == first
    assert len(blobs.reads) == reads


def test_the_same_bytes_under_another_name_are_looked_at_again() -> None:
    layers = LayerScanner(MemoryBlobs(CONTENTS))
    paths = {
        finding.path
        for file in (STOPS, layer("d.txt", PROGRAM))
        for finding in layers.findings(file)
    }
    assert paths == {"attachments/b.txt", "attachments/d.txt"}


def test_a_layer_that_cannot_be_read_does_not_pass() -> None:
    through: list[Digest] = []
    sieve = Sieve(
        LayerScanner(MemoryBlobs([])), lambda blob: through.append(blob.digest), Vetting()
    )
    with pytest.raises(NotFoundError):
        sieve(FINE, True)
    assert not through


def test_what_the_store_held_before_does_not_pass_and_holds_others_back_all_the_same() -> None:
    through: list[Digest] = []
    sieve = Sieve(
        LayerScanner(MemoryBlobs(CONTENTS)), lambda blob: through.append(blob.digest), Vetting()
    )
    sieve(FINE, False)
    sieve(LATER, True)
    sieve(STOPS, False)
    sieve(FINE, True)
    assert through == [LATER.digest]
