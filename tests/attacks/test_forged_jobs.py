"""Nobody gets a release logged in the name of a CI job, but the job itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from conftest import NO_LIMITS, Person, fresh
from memcube_signing.job import Job
from memcube_signing.keys import PrivateKey
from memcube_signing.release import Release, sign_release
from support.issuer import IdentityIssuer, identity_issuer
from support.machine import Machine
from support.servers import memcube_server
from support.signing import ALICE, MALLORY, release
from support.wire import Wire

JSON = {"Content-Type": "application/json"}


@dataclass
class Repository:
    """A cube's name with one trusted publisher, and the credentials around it."""

    person: Person
    issuer: IdentityIssuer
    name: str
    secret: str = ""
    """Of the job that came last."""

    def of_job(self, **claims: str) -> tuple[Wire, Job]:
        """A job's own token, and how the registry says that releases have to name it."""
        server = self.person.server
        body = {
            "repository": self.name,
            "identityToken": self.issuer.token(server.wire.netloc, **claims),
        }
        reply = server.wire.post(
            "/api/v1/oidc/exchange", body=json.dumps(body).encode(), headers=JSON
        )
        assert reply.status == 201
        self.secret = reply.json()["secret"]
        return server.wire.bearer(self.secret), Job.from_json(reply.json()["job"])

    def release(self, job: Job | None, **changes) -> Release:
        origin = f"{self.person.server.wire.netloc}/{self.name}"
        publishers = tuple(sorted(key.public_key.id for key in (ALICE, MALLORY)))
        return release(origin=origin, job=job, publishers=publishers, **changes)

    def submit(self, wire: Wire, said: Release, key: PrivateKey = ALICE) -> int:
        """The status of logging `said`."""
        body = {
            "repository": self.name,
            "envelope": sign_release(said, key).envelope.to_json(),
            "publicKey": base64.b64encode(key.public_key.der).decode(),
        }
        return wire.post("/api/v1/log/entries", body=json.dumps(body).encode(), headers=JSON).status


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Person, IdentityIssuer]]:
    with identity_issuer() as issuer:
        settings = {**NO_LIMITS, "MEMCUBE_REGISTRY_OIDC_ISSUERS": issuer.url}
        with memcube_server(tmp_path_factory.mktemp("jobs"), settings) as server:
            name = fresh("alice")
            server.create_account(name)
            yield Person(server, name, server.create_token(name, "admin")), issuer


@pytest.fixture
def repository(person: tuple[Person, IdentityIssuer]) -> Repository:
    owner, issuer = person
    found = Repository(owner, issuer, f"{owner.name}/{fresh('notes')}")
    body = {
        "repository": found.name,
        "issuer": issuer.url,
        "claims": {"repository": "alice/memories"},
    }
    reply = owner.wire.post("/api/v1/publishers", body=json.dumps(body).encode(), headers=JSON)
    assert reply.status == 201
    return found


def test_a_job_logs_releases_that_name_it(repository: Repository) -> None:
    wire, job = repository.of_job()
    assert repository.submit(wire, repository.release(job)) == 201


def test_a_person_names_no_job(repository: Repository) -> None:
    _, job = repository.of_job()
    wire = repository.person.wire
    assert repository.submit(wire, repository.release(job)) == 403
    assert repository.submit(wire, repository.release(None)) == 201


def test_a_job_names_no_other_job_and_does_not_hide(repository: Repository) -> None:
    wire, job = repository.of_job()
    _, other = repository.of_job(sha="f" * 40)
    for named in (
        None,
        other,
        replace(job, subject="repo:alice/memories:ref:refs/tags/v1"),
        replace(job, issuer="https://token.actions.githubusercontent.com"),
        replace(job, claims=job.claims[1:]),
        replace(job, claims=()),
    ):
        assert repository.submit(wire, repository.release(named)) == 403, named


def test_a_token_of_the_handshake_stands_for_the_same_job(repository: Repository) -> None:
    """What a job's token is exchanged for is bound as it is."""
    _, other = repository.of_job(sha="f" * 40)
    _, job = repository.of_job()
    server = repository.person.server
    basic = base64.b64encode(f"token:{repository.secret}".encode()).decode()
    reply = server.wire.get(
        f"/token?service={server.wire.netloc}&scope=repository:{repository.name}:push,pull",
        headers={"Authorization": f"Basic {basic}"},
    )
    shaken = server.wire.bearer(reply.json()["token"])
    assert repository.submit(shaken, repository.release(other)) == 403
    assert repository.submit(shaken, repository.release(None)) == 403
    assert repository.submit(shaken, repository.release(job)) == 201


def test_others_sign_the_very_statement_that_the_job_made(repository: Repository) -> None:
    """Where several keys have to sign; another statement about the same manifest stays refused."""
    wire, job = repository.of_job()
    said = repository.release(job)
    person = repository.person.wire
    assert repository.submit(person, said, MALLORY) == 403
    assert repository.submit(wire, said) == 201
    assert repository.submit(person, said, MALLORY) == 201
    changed = replace(said, licence="MIT")
    assert repository.submit(person, changed, MALLORY) == 403


def test_a_statement_logged_for_one_cube_opens_no_other(repository: Repository) -> None:
    wire, job = repository.of_job()
    said = repository.release(job)
    assert repository.submit(wire, said) == 201
    other = replace(repository, name=f"{repository.person.name}/{fresh('other')}")
    assert other.submit(repository.person.wire, said) in (400, 403, 404, 422)
    assert other.submit(wire, other.release(job)) in (401, 403, 404)


def test_a_job_that_the_log_does_not_vouch_for_is_shown_as_unproven(
    repository: Repository, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher writes a job into the statement and keeps it out of the log: readers are told."""
    from memcube.context import Context
    from memcube.publishing import publish as publishing

    forged = Job(
        "https://token.actions.githubusercontent.com", "repo:bank/vault:ref:refs/heads/main"
    )
    folder = tmp_path / "notes" / "plaintext"
    folder.mkdir(parents=True)
    (folder / "notes.jsonl").write_text('{"id": "a", "text": "The kettle is blue."}\n')
    owner = repository.person
    machine = Machine(tmp_path / "owner", owner.server.url, owner.token)
    with monkeypatch.context() as patched:
        patched.setattr(Context, "job_at", lambda *_: forged)
        assert (
            "not pushed by one"
            in machine.run("push", folder.parent, f"{repository.name}:1.0.0").stderr
        )
        # Its client changed, too: attached without an entry in the log.
        patched.setattr(publishing, "logged_release", lambda signed, *_: signed)
        machine.ok("push", folder.parent, f"{repository.name}:1.0.0", "--no-scan")
    reader = Machine(tmp_path / "reader", owner.server.url, owner.token)
    told = reader.run("verify", f"{repository.name}:1.0.0", "--json")
    verdict = json.loads(told.stdout)
    assert verdict["standing"] == "refused"
    warned = json.loads(reader.run("verify", f"{repository.name}:1.0.0", "--trust", "warn", "--json").stdout)  # fmt: skip
    assert warned["job"]["subject"] == forged.subject
    assert warned["job"]["checked"] is False
    assert "made by" not in reader.run("provenance", f"{repository.name}:1.0.0").stdout
