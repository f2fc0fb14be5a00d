"""Paths that are not canonical never reach anything.

The router decodes, collapses and strips before a handler sees a path, so `/v2/` reads the raw one:
what is not spelled in the one canonical way is refused, and never served as something else.
"""

import os

import pytest
from conftest import Person
from memcube_protocol.digest import Digest
from support.repository import Repository, with_query
from support.samples import one_image


@pytest.fixture(scope="module")
def cube(ada: Person) -> tuple[Repository, Digest]:
    """A repository with one tagged image, and a digest of one of its blobs."""
    repository, sample = ada.repository(), one_image()
    sample.push(repository)
    return repository, next(iter(sample.blobs))


def twisted(name: str, tag: str) -> list[str]:
    """Other spellings of `/v2/<name>/manifests/<tag>`."""
    namespace, cube = name.split("/")
    return [
        f"/v2//{name}/manifests/{tag}",
        f"//v2/{name}/manifests/{tag}",
        f"/v2/{namespace}//{cube}/manifests/{tag}",
        f"/v2/{name}//manifests/{tag}",
        f"/v2/{name}/manifests//{tag}",
        f"/v2/{name}/manifests/{tag}/",
        f"/v2/{name}/manifests/{tag}//",
        f"/v2/{namespace}%2F{cube}/manifests/{tag}",
        f"/v2/{namespace}%2f{cube}/manifests/{tag}",
        f"/v2/{name}%2Fmanifests%2F{tag}",
        f"/v2/./{name}/manifests/{tag}",
        f"/v2/{namespace}/./{cube}/manifests/{tag}",
        f"/v2/{namespace}/x/../{cube}/manifests/{tag}",
        f"/v2/{namespace}/x/%2e%2e/{cube}/manifests/{tag}",
        f"/v2/{namespace}/x/%2E%2E/{cube}/manifests/{tag}",
        f"/v2/x/..%2F{name}/manifests/{tag}",
        f"/v2/../v2/{name}/manifests/{tag}",
        f"/v2/%2e%2e/v2/{name}/manifests/{tag}",
        f"/v2/{name}/manifests/%{ord(tag[0]):x}{tag[1:]}",
        f"/v2/{name}/%6danifests/{tag}",
        f"/V2/{name}/manifests/{tag}",
        f"/v2/{name.upper()}/manifests/{tag}",
        f"/v2/{name}/MANIFESTS/{tag}",
        f"/v2\\{name}/manifests/{tag}",
        f"/v2/{name};x=1/manifests/{tag}",
        f"/v2/{name}/manifests/{tag};x=1",
        f"/v2/{name}/manifests/{tag}%00",
        f"/v2/{name}/manifests/{tag}%0a",
        f"/v2/{name}/manifests/{tag}%20",
        f"/v2/{name}/manifests/..%5c{tag}",
        f"/v2/{name}/manifests/{tag}%C0%AF",
        f"/v2/{name}/manifests/%",
        f"/v2/{name}/manifests/%zz",
        f"/v2/{name}/manifests/",
        f"/v2/{name}/manifests",
        f"/v2/{name}/",
        f"/v2/{name}",
    ]


@pytest.mark.parametrize("number", range(len(twisted("a/b", "v1"))))
def test_no_other_spelling_of_a_path_is_served(
    cube: tuple[Repository, Digest], number: int
) -> None:
    repository, _ = cube
    target = twisted(repository.name, "v1")[number]
    for method in ("GET", "HEAD", "DELETE"):
        assert repository.wire.send(method, target).status in {400, 404, 405}, target
    body = repository.get_manifest("v1").body
    assert repository.wire.put(target, body=body).status in {400, 404, 405}


def test_the_canonical_spelling_is_served(cube: tuple[Repository, Digest]) -> None:
    repository, blob = cube
    assert repository.get_manifest("v1").status == 200
    assert repository.get_blob(blob).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "etc/passwd/../../..",
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
        "..\\..\\etc\\passwd",
        "/etc/passwd",
        "file:///etc/passwd",
    ],
)
@pytest.mark.parametrize("place", ["blobs/{}", "manifests/{}", "referrers/{}", "blobs/uploads/{}"])
def test_no_path_leads_to_a_file(cube: tuple[Repository, Digest], name: str, place: str) -> None:
    repository, _ = cube
    reply = repository.wire.get(repository.path(place.format(name)))
    assert reply.status in {400, 404}
    assert b"root:" not in reply.body


@pytest.mark.parametrize("session", ["..", "%2e%2e", "a/b", "a%2Fb", "*", "x" * 4096, "%00"])
def test_a_forged_upload_session_is_unknown(cube: tuple[Repository, Digest], session: str) -> None:
    repository, _ = cube
    location = repository.path(f"blobs/uploads/{session}")
    for reply in (
        repository.wire.get(location),
        repository.patch(location, b"x"),
        repository.finish_upload(location, Digest.of(b"x"), b"x"),
        repository.wire.delete(location),
    ):
        assert reply.status in {400, 404, 405, 414}


@pytest.mark.parametrize(
    "name",
    ["v2/cube", "api/cube", "log/cube", "login/cube", ".well-known/cube", "cube", "a" * 256 + "/b"],
)
def test_reserved_and_unqualified_names_take_no_push(ada: Person, name: str) -> None:
    reply = Repository(ada.wire, name).start_upload()
    assert reply.status in {400, 403, 404}


def test_a_name_of_255_characters_works_and_256_does_not(ada: Person) -> None:
    longest = "x" * (255 - len(ada.name) - 1)
    assert ada.repository(longest).start_upload().status == 202
    assert ada.repository(longest + "x").start_upload().status == 400


@pytest.mark.parametrize(
    "query",
    [
        "digest=&digest=",
        "digest",
        "mount=",
        "mount=x&from=..",
        "from=%2e%2e",
        "n=&last=%00",
        "%zz=1",
    ],
)
def test_strange_queries_are_refused_or_ignored(
    cube: tuple[Repository, Digest], query: str
) -> None:
    repository, _ = cube
    started = repository.wire.post(repository.path(f"blobs/uploads/?{query}"))
    assert started.status in {202, 400}
    assert repository.wire.get(repository.path(f"tags/list?{query}")).status in {200, 400}


def test_a_digest_given_twice_is_refused(cube: tuple[Repository, Digest]) -> None:
    repository, _ = cube
    content = os.urandom(32)
    location = with_query(repository.upload_location(), digest=str(Digest.of(b"other")))
    reply = repository.finish_upload(location, Digest.of(content), content)
    assert reply.status == 400


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "POST", "get"])
def test_other_methods_are_refused(cube: tuple[Repository, Digest], method: str) -> None:
    repository, blob = cube
    reply = repository.wire.send(method, repository.path(f"blobs/{blob}"))
    assert reply.status in {400, 404, 405, 501}
