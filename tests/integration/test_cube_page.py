"""The page of a cube, as a real server sends it: what it says, to whom, and what it never does."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Person, fresh
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from support.machine import Machine
from support.wire import Reply, Wire

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
HOSTILE = '<script>document.title="owned"</script><img src=x onerror="document.title=1">\u202e'


class Page(HTMLParser):
    """What a page holds: its elements, its links, its text."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(reply.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@pytest.fixture
def publisher(tmp_path: Path, ada: Person) -> Machine:
    return Machine(tmp_path / "publisher", ada.server.url, ada.token)


def written(folder: Path, name: str, **texts: str) -> Path:
    """A cube folder with a card, a record and an attachment."""
    (folder / "plaintext").mkdir(parents=True)
    (folder / "attachments").mkdir()
    (folder / "memcube.toml").write_text(
        f'name = "{name}"\nversion = "1.0.0"\ntitle = {texts.get("title", "Notes")!r}\n'
        '[governance]\nlicence = "CC-BY-4.0"\nredistribution = "same-licence"\n'
        '[[descriptive.sources]]\nname = "A handbook"\nurl = "https://source.example/handbook"\n'
    )
    (folder / "README.md").write_text(texts.get("card", "# Notes\n"))
    mail = "write to ada@mail.net"
    (folder / "plaintext" / "records.jsonl").write_text(f'{{"id":"one","text":"{mail}"}}\n')
    (folder / "attachments" / "a.txt").write_text("fine")
    return folder


@pytest.fixture
def name(ada: Person) -> str:
    return f"{ada.name}/{fresh('notes')}"


def shown(wire: Wire, target: str) -> Page:
    reply = wire.get(target, headers=HTML)
    assert reply.status == 200, reply
    return Page(reply)


def test_the_page_says_what_is_in_a_cube_and_what_is_stated_about_it(
    tmp_path, publisher, name, ada
):
    told = publisher.json("push", written(tmp_path / "cube", name), "--public")
    page = shown(ada.server.wire, f"/{name}")
    digest, host = told["digest"], ada.server.wire.netloc
    for words in (
        "CC-BY-4.0",
        "same-licence",
        "1 records",
        "https://source.example/handbook",
        digest,
        f"memcube pull {host}/{name}",
        f"memcube pull {host}/{name}@{digest}",
        told["keyId"],
        f"release 1 of {host}/{name}, version 1.0.0",
        "holds, ecdsa-p256-sha256, checked by this registry",
        "email-address",
        "record one",
        "personal-data 1",
        "model signature",
        "yes: the publisher's",
    ):
        assert words in page.text, (words, page.text)
    assert page.text.count("entry ") >= 2
    assert ("href", f"/{name}:1.0.0") in page.attributes
    for target in (f"/{name}:1.0.0", f"/{name}@{digest}"):
        assert digest in shown(ada.server.wire, target).text


def test_the_page_shows_the_registrys_countersignature(tmp_path, new_person):
    person = new_person()  # the registry countersigns for one key of a namespace, the first
    name = f"{person.name}/{fresh('notes')}"
    publisher = Machine(tmp_path / "publisher", person.server.url, person.token)
    publisher.ok("push", written(tmp_path / "cube", name), "--public")
    text = shown(person.server.wire, f"/{name}").text
    for words in ("verified by this registry on", "MEMCUBE_PUBLISHER_VERIFIED", "this registry's"):
        assert words in text


def test_what_publishers_write_is_text_and_nothing_else(tmp_path, publisher, name, ada):
    folder = written(tmp_path / "cube", name, title=HOSTILE, card=HOSTILE)
    publisher.ok("push", folder, "--public", "--allow-findings")
    reply = ada.server.wire.get(f"/{name}", headers=HTML)
    page = Page(reply)
    assert not {"script", "img", "iframe", "object", "style", "form"} & set(page.tags)
    assert 'document.title="owned"' in page.text
    assert "\u202e" not in page.text
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "style"]
    links = [value for name, value in page.attributes if name in ("href", "src")]
    assert links
    assert all(link.startswith(f"/{name}:") or link == "/api/v1/docs/cube.css" for link in links)


def test_the_page_may_run_nothing_and_is_kept_by_nobody(tmp_path, publisher, name, ada):
    publisher.ok("push", written(tmp_path / "cube", name), "--public")
    reply = ada.server.wire.get(f"/{name}", headers=HTML)
    assert "script-src" not in (policy := reply.header("content-security-policy") or "")
    assert policy.startswith("default-src 'none'; style-src 'self'")
    assert "frame-ancestors 'none'" in policy
    assert reply.header("x-content-type-options") == "nosniff"
    assert reply.header("referrer-policy") == "no-referrer"
    assert reply.header("cache-control") == "no-store"
    assert reply.header("content-type") == "text/html; charset=utf-8"
    style = ada.server.wire.get("/api/v1/docs/cube.css")
    assert style.header("content-type") == "text/css; charset=utf-8"
    assert b"url(" not in style.body


def test_a_private_cube_is_as_absent_as_one_that_never_was(tmp_path, publisher, name, ada, bob):
    publisher.ok("push", written(tmp_path / "cube", name))
    never = ada.server.wire.get(f"/{ada.name}/never", headers=HTML)
    for wire in (ada.server.wire, bob.wire):
        for target in (f"/{name}", f"/{name}:1.0.0", f"/{name}:2.0.0"):
            reply = wire.get(target, headers=HTML)
            assert (reply.status, reply.body) == (404, never.body)
            assert reply.header("www-authenticate") is None
            assert reply.header("cache-control") == "no-store"
    assert "private" in shown(ada.wire, f"/{name}").text


def test_programs_get_their_refusals_as_json_and_other_addresses_stay_what_they_are(ada):
    for target in (f"/{ada.name}/never", "/nothing", "/api/nothing", "/v2/x", "/login/x", "/a.b/c"):
        reply = ada.server.wire.get(target)
        assert reply.status in (401, 404), target
        assert "json" in (reply.header("content-type") or ""), target
    assert ada.server.wire.get("/healthz").status == 200


def test_a_withdrawn_release_says_so_first(tmp_path, publisher, name, ada):
    publisher.ok("push", written(tmp_path / "cube", name), "--public")
    publisher.ok("yank", f"{name}:1.0.0", "--message", "chapter two", "--use", f"{name}:2.0.0")
    page = shown(ada.server.wire, f"/{name}")
    assert "Yanked by its publisher" in page.text
    assert f"chapter two. use {name}:2.0.0" in page.text
    publisher.ok("deprecate", f"{name}:1.0.0", "--undo")
    assert "Yanked" not in shown(ada.server.wire, f"/{name}").text


def test_a_statement_by_another_key_is_listed_and_does_not_count(tmp_path, publisher, name, ada):
    publisher.ok("push", written(tmp_path / "cube", name), "--public", "--no-scan")
    other = Machine(tmp_path / "other", ada.server.url, ada.token)
    (tmp_path / "scan.json").write_text(
        '{"scanner":{"name":"x","version":"1","rules":"1"},"scannedAt":"2026-01-31T12:00:00Z",'
        '"checks":["secrets"],"counts":{"secrets":0},"findings":[]}'
    )
    other.ok("attest", name, "--type", "scan", "--predicate", tmp_path / "scan.json")
    page = shown(ada.server.wire, f"/{name}")
    assert "Not scanned, as far as its publisher says." in page.text
    assert "no: another key's, its signature holds" in page.text


def test_an_artifact_that_is_no_cube_is_shown_as_what_it_is(ada):
    repository = ada.repository()
    raw = oci.write_manifest(
        artifact_type="application/vnd.acme.x", config=oci.EMPTY, layers=[]
    ).raw
    repository.add_blob(b"{}")
    assert repository.put_manifest("v1", raw, media_types.OCI_MANIFEST).status == 201
    page = shown(ada.wire, f"/{repository.name}")
    assert "application/vnd.acme.x. memcube cannot mount it" in page.text
    assert str(Digest.of(raw)) in page.text
    assert "No release of it is signed" in page.text


def test_a_flood_of_statements_is_cut(ada):
    repository = ada.repository()
    config = repository.add_blob(b"{}")
    assert config == oci.EMPTY.digest
    cube = oci.write_manifest(artifact_type=media_types.CUBE, config=oci.EMPTY, layers=[])
    assert repository.put_manifest("v1", cube.raw, media_types.OCI_MANIFEST).status == 201
    bundle = b"x" * 100
    repository.add_blob(bundle)
    layer = oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, bundle)
    for number in range(70):
        one = oci.write_manifest(
            artifact_type=media_types.SIGSTORE_BUNDLE,
            config=oci.EMPTY,
            layers=[layer],
            subject=cube.descriptor(),
            annotations={"number": str(number)},
        )
        assert repository.put_manifest(one.digest, one.raw, media_types.OCI_MANIFEST).status == 201
    page = shown(ada.wire, f"/{repository.name}:v1")
    assert page.text.count("unreadable") == 64
