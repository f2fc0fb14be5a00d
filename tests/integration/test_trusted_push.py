"""A CI job pushes without a stored token, and readers learn from the release which job it was."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from conftest import NO_LIMITS, Person, fresh
from support.issuer import IdentityIssuer, identity_issuer
from support.machine import Machine
from support.servers import memcube_server

EXIT_USAGE, EXIT_AUTH = 2, 3
SUBJECT = "repo:alice/memories:ref:refs/heads/main"
SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Place:
    """A registry that takes tokens of `issuer`, its owner's machine, and a cube's name there."""

    issuer: IdentityIssuer
    person: Person
    owner: Machine
    folder: Path

    @property
    def url(self) -> str:
        return self.person.server.url

    @property
    def host(self) -> str:
        return self.person.server.wire.netloc

    def cube(self) -> str:
        return f"{self.person.name}/{fresh('notes')}"

    def job(self, **more: str) -> Machine:
        """A fresh machine, as every job has, with the owner's release key and no token."""
        home = self.folder / fresh("job")
        return Machine(home, self.url, more={**self.issuer.environment, **more})

    def trust(self, cube: str, *more: str) -> dict[str, object]:
        claims = more or ("--subject", SUBJECT)
        return self.owner.json("publisher", "add", cube, "--issuer", self.issuer.url, *claims)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("trusted")
    with identity_issuer() as issuer:
        settings = {**NO_LIMITS, "MEMCUBE_REGISTRY_OIDC_ISSUERS": issuer.url}
        with memcube_server(folder / "server", settings) as server:
            name = fresh("alice")
            server.create_account(name)
            person = Person(server, name, server.create_token(name, "admin"))
            owner = Machine(folder / "owner", server.url, person.token)
            yield Place(issuer, person, owner, folder)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "plaintext").mkdir(parents=True)
    (folder / "plaintext/notes.jsonl").write_text('{"id": "a", "text": "The kettle is blue."}\n')
    return folder


def test_a_job_exchanges_pushes_and_is_named_by_the_release(place: Place, notes: Path) -> None:
    cube = place.cube()
    place.trust(cube)
    job = place.job()
    job.own_process = True
    pushed = job.json("push", notes, f"{cube}:1.0.0")
    assert pushed["job"]["subject"] == SUBJECT
    assert pushed["job"]["claims"]["sha"] == SHA
    # For nobody else, whatever a registry would like to be called.
    asked = jwt.decode(place.issuer.given[-1], options={"verify_signature": False})
    assert asked["aud"] == place.host
    # Another machine, another process: what it verifies is what the registry verified.
    reader = Machine(place.folder / fresh("reader"), place.url, place.person.token)
    reader.own_process = True
    verified = reader.json("verify", f"{cube}:1.0.0")
    assert verified["job"] == {**pushed["job"], "checked": True}
    rules = {rule["rule"]: rule["outcome"] for rule in verified["rules"]}
    assert (rules["log"], rules["job"]) == ("passed", "passed")
    told = reader.ok("provenance", f"{cube}:1.0.0")
    assert SUBJECT in told
    assert SHA in told
    assert reader.json("provenance", f"{cube}:1.0.0")["job"] == verified["job"]
    folder = place.folder / fresh("out")
    reader.ok("provenance", f"{cube}:1.0.0", "--export", folder)
    assert b"alice-the-person" not in b"".join(path.read_bytes() for path in folder.iterdir())


def test_nothing_secret_is_printed_logged_or_kept(place: Place, notes: Path) -> None:
    cube = place.cube()
    place.trust(cube)
    job = place.job()
    done = job.run("push", notes, f"{cube}:1.0.0")
    assert done.returncode == 0, done.stderr
    (notes / "plaintext/notes.jsonl").write_text('{"id": "a", "text": "The kettle is red."}\n')
    again = job.run("push", notes, f"{cube}:1.0.1")
    assert again.returncode == 0, again.stderr
    secrets = [place.issuer.job_secret, *place.issuer.given, "mct_"]
    kept = b"".join(path.read_bytes() for path in job.home.rglob("*") if path.is_file())
    printed = done.stdout + done.stderr + again.stdout + again.stderr
    logged = place.person.server.log_text()
    for secret in secrets:
        assert secret.encode() not in kept
        assert secret not in printed
        assert secret not in logged
    assert not (job.home / "credentials.json").exists()


@pytest.mark.parametrize("way", ["variable", "file"])
def test_other_ci_gives_its_token_in_a_variable_or_a_file(
    place: Place, notes: Path, tmp_path: Path, way: str
) -> None:
    cube = place.cube()
    place.trust(cube, "--claim", "repository=alice/memories", "--claim", "ref=refs/heads/*")
    token = place.issuer.token(place.host)
    (tmp_path / "token").write_text(f"{token}\n")
    more = {"variable": {"MEMCUBE_ID_TOKEN": token}, "file": {"MEMCUBE_ID_TOKEN_FILE": str(tmp_path / "token")}}[way]  # fmt: skip
    job = Machine(tmp_path / "job", place.url, more=more)
    assert job.json("push", notes, f"{cube}:1.0.0")["job"]["subject"] == SUBJECT
    # The same identity token again, on another machine: it was used.
    thief = Machine(tmp_path / "thief", place.url, more=more)
    said = thief.fails(EXIT_AUTH, "push", notes, f"{cube}:1.0.1")
    assert "was used before" in said


def test_a_token_for_somebody_else_is_sent_nowhere(
    place: Place, notes: Path, tmp_path: Path
) -> None:
    cube = place.cube()
    place.trust(cube)
    for audience in ("other.example", [place.host, "other.example"]):
        token = place.issuer.token(audience)
        job = Machine(tmp_path / "job", place.url, more={"MEMCUBE_ID_TOKEN": token})
        before = place.person.server.log_text().count("/oidc/exchange")
        said = job.run("push", notes, f"{cube}:1.0.0")
        assert said.returncode != 0
        assert "it was sent nowhere" in said.stderr
        assert place.person.server.log_text().count("/oidc/exchange") == before


@pytest.mark.parametrize("text", ["x", "a.b.c", "..", "é.é.é", "a" * 20_000])
def test_what_is_no_token_is_told_so(place: Place, notes: Path, tmp_path: Path, text: str) -> None:
    job = Machine(tmp_path / "job", place.url, more={"MEMCUBE_ID_TOKEN": text})
    done = job.run("push", notes, f"{place.cube()}:1.0.0")
    assert done.returncode != 0
    assert "MEMCUBE_ID_TOKEN" in done.stderr
    assert text not in done.stderr or len(text) < 8
    assert "\nhint: " in done.stderr


def test_a_job_that_nobody_trusts_learns_what_to_ask_for(place: Place, notes: Path) -> None:
    cube = place.cube()
    place.trust(cube, "--subject", "repo:alice/other:ref:refs/heads/main")
    said = place.job().fails(EXIT_AUTH, "push", notes, f"{cube}:1.0.0")
    assert "no trusted publisher" in said
    assert SUBJECT in said
    assert place.issuer.url in said
    assert "memcube publisher add" in said


def test_a_job_without_the_permission_learns_which(
    place: Place, notes: Path, tmp_path: Path
) -> None:
    for more, words in (
        ({"GITHUB_ACTIONS": "true"}, "id-token: write"),
        ({"GITLAB_CI": "true"}, "id_tokens: MEMCUBE_ID_TOKEN"),
    ):
        job = Machine(tmp_path / "job", place.url, more=more)
        assert words in job.fails(EXIT_AUTH, "push", notes, f"{place.cube()}:1.0.0")


def test_a_stored_token_goes_before_the_jobs(place: Place, notes: Path) -> None:
    cube = place.cube()
    job = place.job()
    job.token = place.person.token
    before = len(place.issuer.given)
    assert job.json("push", notes, f"{cube}:1.0.0")["job"] is None
    assert len(place.issuer.given) == before


def test_what_the_owner_ends_is_ended(place: Place, notes: Path) -> None:
    cube = place.cube()
    added = place.trust(cube)
    assert str(added["id"]) in place.owner.ok("publisher", "list", cube)
    assert place.owner.json("publisher", "list", cube)["publishers"] == [added]
    place.owner.ok("publisher", "remove", cube, str(added["id"]))
    place.job().fails(EXIT_AUTH, "push", notes, f"{cube}:1.0.0")
    assert "hint" in place.owner.fails(4, "publisher", "remove", cube, str(added["id"]))


def test_a_push_token_binds_and_removes_no_publisher(place: Place) -> None:
    cube = place.cube()
    added = place.trust(cube)
    server, name = place.person.server, place.person.name
    pusher = Machine(
        place.folder / fresh("pusher"), place.url, server.create_token(name, f"push:{name}")
    )
    for words in (("add", cube, "--issuer", place.issuer.url, "--subject", "x"), ("remove", cube, str(added["id"]))):  # fmt: skip
        assert "admin" in pusher.run("publisher", *words).stderr
    assert place.owner.json("publisher", "list", cube)["publishers"] == [added]


@pytest.mark.parametrize(
    ("words", "claims"),
    [
        (
            ("--github", "alice/memories", "--workflow", "release.yml", "--ref", "refs/tags/*"),
            {
                "repository": "alice/memories",
                "workflow_ref": "alice/memories/.github/workflows/release.yml@*",
                "ref": "refs/tags/*",
            },
        ),
        (
            ("--gitlab", "team/memories", "--workflow", ".gitlab-ci.yml", "--environment", "prod"),
            {
                "project_path": "team/memories",
                "ci_config_ref_uri": "HOST/team/memories//.gitlab-ci.yml@*",
                "environment": "prod",
            },
        ),
    ],
)
def test_the_usual_places_have_short_words(place: Place, words, claims) -> None:
    added = place.trust(place.cube(), *words)
    host = place.issuer.url.partition("://")[2]
    assert added["claims"] == {name: value.replace("HOST", host) for name, value in claims.items()}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--github", "alice/memories"),
        ("--github", "a/b", "--gitlab", "a/b", "--workflow", "x.yml"),
        ("--issuer", "https://ci.example", "--claim", "ref"),
        ("--issuer", "https://ci.example", "--claim", "a=1", "--claim", "a=2"),
        ("--issuer", "https://ci.example", "--workflow", "x.yml", "--subject", "x"),
    ],
)
def test_what_would_trust_too_much_is_refused(place: Place, words) -> None:
    assert place.owner.run("publisher", "add", place.cube(), *words).returncode == EXIT_USAGE


def test_a_workflow_fits_whatever_its_tag(place: Place, notes: Path) -> None:
    cube = place.cube()
    place.trust(cube, "--github", "alice/memories", "--workflow", "release.yml")
    tagged = "alice/memories/.github/workflows/release.yml@refs/tags/v1.0.0"
    for claims, code in (({"workflow_ref": tagged}, 0), ({"workflow_ref": tagged.replace("release", "test")}, EXIT_AUTH)):  # fmt: skip
        place.issuer.claims = claims
        try:
            assert place.job().run("push", notes, f"{cube}:1.0.0").returncode == code
        finally:
            place.issuer.claims = {}


def test_the_statement_holds_the_job_for_any_reader_of_json(place: Place, notes: Path) -> None:
    cube = place.cube()
    place.trust(cube)
    place.job().ok("push", notes, f"{cube}:1.0.0")
    folder = place.folder / fresh("export")
    place.owner.ok("provenance", f"{cube}:1.0.0", "--export", folder)
    bundle = json.loads((folder / "release.1.sigstore.json").read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicate"]["job"]["issuer"] == place.issuer.url
    assert statement["predicate"]["job"]["claims"]["workflow_ref"].endswith("release.yml@refs/heads/main")  # fmt: skip
