"""The routes for the Hub's clients give out no byte that `/v2/` would not."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from conftest import Person, fresh
from memcube_protocol import media_types
from memcube_protocol.digest import Digest
from support.folders import Folder, publish, push_files
from support.repository import IMAGE, Repository
from support.samples import to_json
from support.wire import Reply, Wire

SECRET = b"what only Ada may read"
FILES = {"diary.txt": SECRET, "a/b.txt": b"deeper"}


@pytest.fixture(scope="module")
def private(ada: Person) -> Folder:
    return push_files(ada.repository(fresh("diary")), FILES, "latest", "1.0.0")


@pytest.fixture(scope="module")
def public(ada: Person) -> Folder:
    made = push_files(ada.repository(fresh("open")), FILES | {"more.txt": b"more"}, "latest")
    publish(ada, made.name)
    return made


def every_read(wire: Wire, cube: Folder, name: str) -> dict[str, Reply]:
    """The answer to every kind of question about the repository `name`, were it `cube`."""
    revisions = ["main", "latest", "1.0.0", cube.commit, quote(str(cube.digest), safe="")]
    replies = {}
    for kind in ("models", "datasets"):
        api = f"/api/{kind}/{name}"
        replies |= {path: wire.get(path) for path in (api, f"{api}/refs")}
        for revision in revisions:
            for path in (f"{api}/revision/{revision}", f"{api}/tree/{revision}"):
                replies[path] = wire.get(path)
            path = f"{api}/paths-info/{revision}"
            replies[path] = wire.post(path, body=b"paths=diary.txt")
    for revision in [*revisions, "absent", "f" * 40]:
        for file in ("diary.txt", "a/b.txt", "absent.txt"):
            for place in (f"/{name}", f"/datasets/{name}"):
                path = f"{place}/resolve/{revision}/{file}"
                replies[path] = wire.get(path)
                replies[f"HEAD {path}"] = wire.head(path)
                replies[f"range {path}"] = wire.get(path, headers={"Range": "bytes=0-3"})
                replies[f"known {path}"] = wire.get(path, headers={"If-None-Match": "*"})
    return replies


def shown(reply: Reply, name: str) -> tuple[object, ...]:
    """What a stranger sees of an answer, with the name taken out."""
    names = ("x-error-code", "x-error-message", "x-repo-commit", "etag", "www-authenticate")
    headers = [(reply.header(h) or "").replace(name, "NAME") for h in names]
    return reply.status, headers, reply.body.replace(name.encode(), b"NAME")


def test_a_stranger_reads_no_private_cube_and_cannot_tell_it_from_none(
    private: Folder, ada: Person, bob: Person
) -> None:
    absent = f"{ada.name}/{'x' * len(private.name.partition('/')[2])}"
    for wire, status in ((bob.wire, 404), (ada.server.wire, 401)):
        there = every_read(wire, private, private.name)
        nowhere = every_read(wire, private, absent)
        for path, reply in there.items():
            assert reply.status == status, path
            assert SECRET not in reply.body
            other = nowhere[path.replace(private.name, absent)]
            assert shown(reply, private.name) == shown(other, absent), path


def test_a_token_of_another_scope_reads_nothing_either(private: Folder, ada: Person) -> None:
    token = ada.server.create_token(ada.name, f"pull:{ada.name}/something-else")
    wire = ada.server.wire.bearer(token)
    for path, reply in every_read(wire, private, private.name).items():
        assert reply.status in {403, 404}, path
        assert SECRET not in reply.body


def test_the_owner_reads_it_by_every_revision(private: Folder, ada: Person) -> None:
    replies = every_read(ada.wire, private, private.name)
    bodies = {r.body for p, r in replies.items() if p.startswith("/") and p.endswith("/diary.txt")}
    assert SECRET in bodies
    absent = [r for p, r in replies.items() if "/absent/" in p or "/" + "f" * 40 in p]
    assert {reply.status for reply in absent} == {404}


def test_a_digest_from_elsewhere_is_no_way_to_a_blob(
    private: Folder, public: Folder, bob: Person
) -> None:
    own = bob.repository(fresh("thief"))
    layer = {
        "mediaType": "text/plain",
        "digest": str(Digest.of(SECRET)),
        "size": len(SECRET),
        "annotations": {media_types.TITLE: "stolen.txt"},
    }
    config = {"mediaType": media_types.OCI_EMPTY, "digest": str(own.add_blob(b"{}")), "size": 2}
    for media_type in ("text/plain", "application/vnd.oci.image.layer.nondistributable.v1.tar"):
        manifest = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": config,
            "layers": [layer | {"mediaType": media_type}],
        }
        reply = own.put_manifest("latest", to_json(manifest))
        assert (reply.status == 201) == ("nondistributable" in media_type)
    stolen = bob.wire.get(f"/{own.name}/resolve/main/stolen.txt")
    assert (stolen.status, stolen.header("X-Error-Code")) == (404, "EntryNotFound")
    for revision in (private.commit, quote(str(private.digest), safe="")):
        reply = bob.wire.get(f"/{public.name}/resolve/{revision}/diary.txt")
        assert (reply.status, reply.header("X-Error-Code")) == (404, "RevisionNotFound")


def twisted(name: str, file: str) -> list[str]:
    """Other spellings of `/NAME/resolve/main/FILE`."""
    namespace, cube = name.split("/")
    good = f"/{name}/resolve/main"
    return [
        f"/{name}//resolve/main/{file}",
        f"//{name}/resolve/main/{file}",
        f"/{namespace}//{cube}/resolve/main/{file}",
        f"/{namespace}%2F{cube}/resolve/main/{file}",
        f"/{namespace}/x/../{cube}/resolve/main/{file}",
        f"/{namespace}/x/%2e%2e/{cube}/resolve/main/{file}",
        f"/x/%2E%2E/{name}/resolve/main/{file}",
        f"/x/..%2F{name}/resolve/main/{file}",
        f"/{namespace}/%{ord(cube[0]):x}{cube[1:]}/resolve/main/{file}",
        f"/{name.upper()}/resolve/main/{file}",
        f"/{name}/RESOLVE/main/{file}",
        f"/{name}/%72esolve/main/{file}",
        f"/{name}/resolve//main/{file}",
        f"/{name}/resolve/%6dain/{file}",
        f"/{name}/resolve/x/../main/{file}",
        f"/{name}/resolve/x%2F..%2Fmain/{file}",
        f"{good}//{file}",
        f"{good}/./{file}",
        f"{good}/%2e/{file}",
        f"{good}/x/../{file}",
        f"{good}/x/%2e%2e/{file}",
        f"{good}/..%2Fmain%2F{file}",
        f"{good}/{file}/",
        f"{good}/{file}%00",
        f"{good}/{file}%0a",
        f"{good}/{file}%20",
        f"{good}/%{ord(file[0]):x}{file[1:]}",
        f"{good}/{file};x=1",
        f"{good}\\{file}",
        f"{good}/{file}%C0%AF",
        f"{good}%2F{file}",
        f"{good}/a%2Fb.txt",
        f"{good}/a%5Cb.txt",
        f"{good}/A/b.txt",
        f"/models/{name}/resolve/main/{file}",
        f"/spaces/{name}/resolve/main/{file}",
        f"/datasets/datasets/{name}/resolve/main/{file}",
        f"/api/models/{name}/resolve/main/{file}",
    ]


@pytest.mark.parametrize("number", range(len(twisted("a/b", "diary.txt"))))
def test_no_other_spelling_of_an_address_is_served(public: Folder, number: int) -> None:
    wire = public.repository.wire
    target = twisted(public.name, "diary.txt")[number]
    for method in ("GET", "HEAD"):
        assert wire.send(method, target).status in {400, 404, 405}, target
    assert wire.get(f"/{public.name}/resolve/main/diary.txt").body == SECRET


@pytest.mark.parametrize(
    "file",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "%2Fetc%2Fpasswd",
        "/etc/passwd",
        "file:///etc/passwd",
        "....//....//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file_of_the_server(public: Folder, file: str) -> None:
    wire = public.repository.wire
    for place in (
        "{}/resolve/main/",
        "{}/resolve/",
        "api/models/{}/tree/main/",
        "api/models/{}/tree/",
    ):
        reply = wire.get("/" + place.format(public.name) + file)
        assert reply.status in {400, 404}
        assert b"root:" not in reply.body


@pytest.mark.parametrize("name", ["models", "datasets", "spaces", "api", "resolve", "v2"])
def test_names_that_the_routes_need_are_given_to_nobody(
    ada: Person, name: str, new_person: Callable[[], Person]
) -> None:
    assert ada.server.admin("account", "create", name, check=False).returncode != 0
    assert Repository(ada.wire, f"{name}/x").start_upload().status in {400, 403, 404}
    for path in (f"/api/models/{name}/x", f"/{name}/x/resolve/main/y"):
        assert ada.wire.get(path).status in {400, 404}


def test_hostile_titles_reach_no_client(ada: Person) -> None:
    files = {"../../.ssh/authorized_keys": b"key", "fine.txt": b"fine"}
    made = push_files(ada.repository(fresh("hostile")), files, "latest")
    info = ada.wire.get(f"/api/models/{made.name}").json()
    assert info["siblings"] == []
    assert ada.wire.get(f"/api/models/{made.name}/tree/main?recursive=true").json() == []
    assert ada.wire.get(f"/{made.name}/resolve/main/fine.txt").status == 404


def test_a_revoked_token_reads_no_more(private: Folder, ada: Person) -> None:
    server, path = ada.server, f"/{private.name}/resolve/main/diary.txt"
    wire = server.wire.bearer(server.create_token(ada.name, "admin"))
    newest = wire.get("/api/v1/tokens").json()[0]
    assert wire.get(path).body == SECRET
    assert wire.delete(f"/api/v1/tokens/{newest['id']}").status == 204
    refused = wire.get(path)
    assert (refused.status, SECRET in refused.body) == (401, False)
    assert refused.header("X-Error-Message") == "Invalid credentials in Authorization header"
