"""Hostile manifests: each is refused by name and leaves nothing visible."""

import json
import os
from typing import Any

import pytest
from conftest import Person
from memcube_protocol.digest import Digest
from support.repository import IMAGE, INDEX, Repository
from support.samples import EMPTY_JSON, Sample, one_image, to_json

MIB = 1024 * 1024


@pytest.fixture
def repository(ada: Person) -> Repository:
    return ada.repository()


@pytest.fixture
def body(repository: Repository) -> dict[str, Any]:
    """A manifest that would be accepted."""
    digest = repository.add_blob(b"{}")
    empty = {"mediaType": EMPTY_JSON, "digest": str(digest), "size": 2}
    return {"schemaVersion": 2, "mediaType": IMAGE, "config": empty, "layers": [empty]}


def assert_refused(repository: Repository, content: bytes, *statuses: int) -> None:
    for reference in ("bad", Digest.of(content)):
        reply = repository.put_manifest(reference, content)
        assert reply.status in (statuses or (400,)), reply
        assert reply.json()["errors"][0]["message"]
        assert repository.get_manifest(reference).status == 404
    assert repository.tags() == []


def test_the_honest_manifest_is_accepted(repository: Repository, body: dict[str, Any]) -> None:
    assert repository.put_manifest("good", to_json(body)).status == 201


def test_8192_layers_are_accepted_and_8193_refused(
    repository: Repository, body: dict[str, Any]
) -> None:
    layer = body["layers"][0]
    assert_refused(repository, to_json(body | {"layers": [layer] * 8193}), 400, 413)
    assert repository.put_manifest("most", to_json(body | {"layers": [layer] * 8192})).status == 201


@pytest.mark.parametrize("depth", [100, 1_000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_json_is_refused(
    repository: Repository, body: dict[str, Any], depth: int, opening: str, closing: str
) -> None:
    deep = opening * depth + "1" + closing * depth
    text = json.dumps(body | {"annotations": "@"}).replace('"@"', deep)
    assert_refused(repository, text.encode())


@pytest.mark.parametrize("key", ["config", "layers", "mediaType", "subject", "anything"])
def test_duplicate_keys_are_refused(repository: Repository, body: dict[str, Any], key: str) -> None:
    value = json.dumps(body.get(key, "x"))
    text = json.dumps(body | {key: json.loads(value)})
    assert_refused(repository, (text[:-1] + f', "{key}": {value}}}').encode())


def test_a_duplicate_key_inside_a_descriptor_is_refused(
    repository: Repository, body: dict[str, Any]
) -> None:
    text = json.dumps(body)
    other = str(Digest.of(os.urandom(8)))
    twisted = text.replace('"size": 2', f'"size": 2, "digest": "{other}"', 1)
    assert twisted != text
    assert_refused(repository, twisted.encode())


@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9" * 5000,
        "-1",
        "1.5",
        "1e400",
        "00",
        "0x10",
        "true",
    ],
)
def test_numbers_that_are_no_sizes_are_refused(
    repository: Repository, body: dict[str, Any], number: str
) -> None:
    text = json.dumps(body).replace('"size": 2', f'"size": {number}', 1)
    assert_refused(repository, text.encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_number_is_refused_anywhere(
    repository: Repository, body: dict[str, Any], number: str
) -> None:
    text = json.dumps(body | {"x": "@"}).replace('"@"', number)
    assert_refused(repository, text.encode())


@pytest.mark.parametrize(
    "bad",
    [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\x00"],
    ids=lambda value: value.hex(),
)
def test_invalid_utf8_is_refused(repository: Repository, body: dict[str, Any], bad: bytes) -> None:
    content = json.dumps(body | {"annotations": {"a": "@"}}).encode().replace(b"@", bad)
    assert_refused(repository, content)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_another_encoding_is_refused(
    repository: Repository, body: dict[str, Any], encoding: str
) -> None:
    assert_refused(repository, json.dumps(body).encode(encoding))


def test_trailing_content_is_refused(repository: Repository, body: dict[str, Any]) -> None:
    assert_refused(repository, to_json(body) + b"{}")


def test_4_mib_are_accepted_and_one_byte_more_refused(
    repository: Repository, body: dict[str, Any]
) -> None:
    room = 4 * MIB - len(to_json(body | {"annotations": {"a": ""}}))
    exact = to_json(body | {"annotations": {"a": "x" * room}})
    assert len(exact) == 4 * MIB
    assert_refused(repository, exact + b" ", 413)
    assert repository.put_manifest("exact", exact).status == 201
    assert repository.get_manifest("exact").body == exact


def test_an_endless_chunked_manifest_is_cut_off(repository: Repository) -> None:
    """64 MiB without a length: refused once the limit is passed, not collected first."""
    repository.add_blob(b"{}")
    sent = 0

    def endless():  # type: ignore[no-untyped-def]
        nonlocal sent
        for _ in range(64):
            sent += MIB
            yield b" " * MIB

    try:
        reply = repository.wire.put(repository.path("manifests/endless"), body=endless())
        assert reply.status == 413
    except (BrokenPipeError, ConnectionResetError):
        assert sent < 64 * MIB
    assert repository.get_manifest("endless").status == 404


@pytest.mark.parametrize("which", ["config", "layers"])
def test_a_manifest_naming_an_absent_blob_is_refused(
    repository: Repository, body: dict[str, Any], which: str
) -> None:
    absent = body["config"] | {"digest": str(Digest.of(os.urandom(8)))}
    broken = body | {which: [absent] if which == "layers" else absent}
    assert_refused(repository, to_json(broken), 400, 404)


def test_a_layer_whose_size_is_a_lie_is_refused(
    repository: Repository, body: dict[str, Any]
) -> None:
    lying = body["layers"][0] | {"size": 3}
    assert_refused(repository, to_json(body | {"layers": [lying]}))


def test_the_digest_of_another_algorithm_is_checked_too(repository: Repository) -> None:
    sample = one_image(algorithm="sha512")
    for content in sample.blobs.values():
        repository.add_blob(content, "sha512")
    content = sample.manifests[sample.top]
    wrong = Digest.of(b"other", "sha512")
    assert repository.put_manifest(wrong, content).status == 400
    assert repository.put_manifest(sample.top, content).status == 201


def test_a_manifest_that_is_its_own_subject_cannot_hang_the_server(
    repository: Repository, body: dict[str, Any]
) -> None:
    """Two manifests cannot name each other by digest, but a chain of subjects can be long."""
    subject: dict[str, Any] | None = None
    for number in range(40):
        link = (
            body | {"annotations": {"n": str(number)}} | ({"subject": subject} if subject else {})
        )
        content = to_json(link)
        assert repository.put_manifest(Digest.of(content), content).status == 201
        subject = {"mediaType": IMAGE, "digest": str(Digest.of(content)), "size": len(content)}
    assert len(repository.referrers(subject["digest"])) == 0  # type: ignore[index]


def test_an_index_of_many_children_is_bounded(repository: Repository) -> None:
    sample = Sample()
    child = sample.image(layers=[])
    sample.push(repository)
    content = to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [child] * 20_000})
    reply = repository.put_manifest("wide", content, INDEX)
    assert reply.status in {201, 400, 413}
    assert repository.get_manifest("wide").status == (200 if reply.status == 201 else 404)


@pytest.mark.parametrize(
    "content_type", ["text/html", "application/json", "application/x-python-pickle", "x" * 300]
)
def test_a_content_type_that_is_no_manifest_is_refused(
    repository: Repository, body: dict[str, Any], content_type: str
) -> None:
    reply = repository.put_manifest("typed", to_json(body), content_type)
    assert reply.status in {400, 415}


def test_html_in_annotations_is_never_served_as_html(
    repository: Repository, body: dict[str, Any]
) -> None:
    notes = {"title": "<script>alert(1)</script>"}
    repository.put_manifest("html", to_json(body | {"annotations": notes}))
    reply = repository.get_manifest("html")
    assert reply.header("Content-Type") == IMAGE
    assert reply.header("X-Content-Type-Options") == "nosniff"


def test_a_blob_of_html_is_never_served_as_html(repository: Repository) -> None:
    digest = repository.add_blob(b"<html><script>alert(1)</script></html>")
    reply = repository.get_blob(digest)
    assert reply.header("Content-Type") == "application/octet-stream"
    assert reply.header("X-Content-Type-Options") == "nosniff"
