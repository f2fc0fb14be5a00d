"""A mirror whose source is hostile: what it lists, serves and takes back stays its own affair."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    EXIT_INVALID,
    EXIT_LIMIT,
    EXIT_NETWORK,
    EXIT_NOT_FOUND,
    EXIT_TRUST,
)
from support.machine import Machine
from support.published import Published
from support.quirky import PASSWORD, USER, Quirks, QuirkyRegistry, quirky
from support.scripted import Answer, Received

OUTSIDE = [
    "bob/notes",
    "alice",
    "alicenotes",
    "alice/../bob/x",
    "alice//x",
    "alice/X",
    "/alice/x",
    7,
]


@pytest.fixture
def source() -> Iterator[QuirkyRegistry]:
    with quirky() as registry:
        yield registry


@pytest.fixture
def target() -> Iterator[QuirkyRegistry]:
    with quirky(Quirks(login="basic")) as registry:
        yield registry


@pytest.fixture
def copier(source: QuirkyRegistry, target: QuirkyRegistry, tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "copier", source.url)
    login = ("login", target.host, "--username", USER, "--token-stdin")
    machine.ok(*login, stdin=PASSWORD)
    return machine


@pytest.fixture
def publish(source: QuirkyRegistry, tmp_path: Path) -> Callable[..., Digest]:
    """Publishes a version of a cube in the namespace `alice` of the source."""
    machine = Machine(tmp_path / "publisher", source.url)

    def push(name: str, version: str = "1.0.0") -> Digest:
        made = Published(machine, f"alice/{name}", tmp_path / name).push(version)
        return Digest.parse(made["digest"])

    return push


@pytest.fixture
def mirror(
    source: QuirkyRegistry, target: QuirkyRegistry, copier: Machine
) -> Callable[..., dict[str, str]]:
    """Runs a round that has to end with `code`; what became of each tag."""

    def once(*words: str, code: int = 0) -> dict[str, str]:
        places = (f"{source.host}/alice", f"{target.host}/copy")
        done = copier.run("mirror", *places, *words, "--json")
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout)
        versions = answer.get("versions", ())
        return {f"{row['name']}:{row['tag']}": row["fate"] for row in versions}

    return once


def lists(path: str, value: object) -> Callable[[Received], Answer | None]:
    """Answers requests for `path` with `value`."""
    body = json.dumps(value).encode()
    return lambda request: Answer(200, {}, body) if request.path.startswith(path) else None


@pytest.mark.parametrize("kind", ["ours", "catalogue"])
def test_a_list_does_not_lead_out_of_its_namespace(
    kind: str,
    source: QuirkyRegistry,
    target: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    digest = publish("notes")
    names = [*OUTSIDE, "alice/notes"]
    source.repositories["bob/notes"] = source.repositories["alice/notes"]
    if kind == "catalogue":
        source.before = lists("/v2/_catalog", {"repositories": names})
    else:
        cubes = lists("/api/v1/cubes", {"cubes": [{"name": one} for one in names], "next": None})
        tags = lists("/api/v1/tags/", [{"name": "1.0.0", "digest": str(digest)}])
        source.before = lambda request: cubes(request) or tags(request)
    assert mirror("--tag", "1.0.0") == {"alice/notes:1.0.0": "copied"}
    assert set(target.repositories) == {"copy/notes"}


@pytest.mark.parametrize(
    "page",
    [
        {"cubes": [{"name": "alice/notes"}], "next": "alice/notes"},
        {"cubes": [], "next": ""},
    ],
)
def test_a_list_without_end_is_left(
    page: dict[str, Any],
    source: QuirkyRegistry,
    mirror: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("memcube.remote.listing.PAGES", 5)
    source.before = lists("/api/v1/cubes", page)
    mirror(code=EXIT_NETWORK)
    asked = [line for line in source.main.lines() if "/api/v1/cubes" in line]
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({}, EXIT_NETWORK),
        ("x", EXIT_NETWORK),
        (["1.0.0"], EXIT_NETWORK),
        ([{"name": "1.0.0"}], EXIT_NETWORK),
        ([{"name": "1.0.0", "digest": "x"}], EXIT_INVALID),
    ],
)
def test_a_senseless_list_of_tags_harms_that_cube_alone(
    tags: object,
    code: int,
    source: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    digest = publish("notes")
    cubes = lists("/api/v1/cubes", {"cubes": [{"name": "alice/bad"}, {"name": "alice/notes"}]})
    bad = lists("/api/v1/tags/alice/bad", tags)
    good = lists("/api/v1/tags/alice/notes", [{"name": "1.0.0", "digest": str(digest)}])
    source.before = lambda request: cubes(request) or bad(request) or good(request)
    done = mirror(code=code)
    assert done == {"alice/bad:": "failed", "alice/notes:1.0.0": "copied"}


def test_no_credentials_of_the_target_reach_the_source(
    source: QuirkyRegistry, publish: Callable[..., Digest], mirror: Callable[..., dict[str, str]]
) -> None:
    publish("notes")
    source.main.received.clear()
    mirror()
    assert source.main.received
    assert not [one.path for one in source.main.received if "authorization" in one.headers]


def test_a_tag_that_is_moved_back_is_not_followed(
    source: QuirkyRegistry,
    target: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    old, new = publish("notes", "1.0.0"), publish("notes", "1.1.0")
    mirror()
    source.repository("alice/notes").tags["latest"] = str(old)
    found = mirror(code=EXIT_TRUST)
    assert found["alice/notes:latest"] == "refused"
    assert target.repository("copy/notes").tags["latest"] == str(new)


def test_another_publisher_in_the_same_name_is_not_followed(
    source: QuirkyRegistry,
    target: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    publish("notes", "1.0.0")
    mirror()
    source.repositories.clear()
    thief = Machine(tmp_path / "thief", source.url)
    Published(thief, "alice/notes", tmp_path / "forged").push("1.1.0")
    found = mirror(code=EXIT_TRUST)
    assert found["alice/notes:1.1.0"] == "refused"
    assert "1.1.0" not in target.repository("copy/notes").tags


def test_a_cube_with_endless_referrers_harms_itself_alone(
    source: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    publish("notes")
    flooded = publish("flooded")
    subject = oci.parse_manifest(source.repository("alice/flooded").manifests[str(flooded)][1])
    entries = source.repository("alice/flooded").manifests
    for number in range(1001):
        build = oci.write_manifest(
            artifact_type=media_types.BUILD,
            config=oci.EMPTY,
            layers=[],
            subject=subject.descriptor(),
            annotations={"org.example.number": str(number)},
        )
        entries[str(build.digest)] = (build.media_type, build.raw)
    found = mirror("--tag", "1.0.0", code=EXIT_LIMIT)
    assert found == {"alice/flooded:1.0.0": "failed", "alice/notes:1.0.0": "copied"}


def test_a_cube_without_its_bytes_gets_no_tag_and_stops_no_other(
    source: QuirkyRegistry,
    target: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    publish("notes")
    hollow = publish("hollow")
    cube = oci.parse_manifest(source.repository("alice/hollow").manifests[str(hollow)][1])
    del source.repository("alice/hollow").blobs[str(cube.layers[-1].digest)]
    found = mirror("--tag", "1.0.0", code=EXIT_NOT_FOUND)
    assert found == {"alice/hollow:1.0.0": "failed", "alice/notes:1.0.0": "copied"}
    assert not target.repository("copy/hollow").tags


def test_what_is_listed_and_does_not_refer_to_the_cube_is_not_taken_along(
    source: QuirkyRegistry,
    target: QuirkyRegistry,
    publish: Callable[..., Digest],
    mirror: Callable[..., dict[str, str]],
) -> None:
    digest = publish("notes")
    image = oci.write_manifest(artifact_type="application/vnd.x", config=oci.EMPTY, layers=[])
    held = source.repository("alice/notes").manifests
    held[str(image.digest)] = (image.media_type, image.raw)
    honest = [
        (Digest.parse(one), manifest)
        for one, (_, raw) in held.items()
        if (manifest := oci.parse_manifest(raw)).subject or manifest.digest == image.digest
    ]
    index = oci.write_index(
        oci.Descriptor(one.media_type, at, len(one.raw), one.annotations, one.artifact_type)
        for at, one in honest
    )
    body = Answer(200, {"Content-Type": media_types.OCI_INDEX}, index.raw)
    listing = f"/referrers/{digest}"
    source.before = lambda request: body if listing in request.path else None
    assert mirror("--tag", "1.0.0") == {"alice/notes:1.0.0": "copied"}
    assert str(image.digest) not in target.repository("copy/notes").manifests
    assert len(target.repository("copy/notes").manifests) == len(honest)
