"""What arrives together is judged one by one: who is refused takes nobody along."""

import asyncio
import base64
import json

from memcube_protocol.errors import (
    ForbiddenError,
    InvalidJsonError,
    NotFoundError,
    SignatureInvalidError,
    UnauthenticatedError,
)
from memcube_registry.accounts.principal import ANONYMOUS, Principal
from memcube_registry.accounts.scopes import Act, parse_scopes
from memcube_registry.database import Database
from memcube_registry.delivery.service import authorize
from memcube_registry.log import witnesses
from memcube_registry.log.intake import Arrival
from memcube_registry.log.service import TransparencyLog
from memcube_signing.bundle import sign
from memcube_signing.keys import PublicKey
from memcube_signing.statement import Statement
from memcube_signing.transparency.entry import TlogEntry
from support.signing import ALICE, MALLORY, manifest


def body(number: int, repository: str = "alice/notes", key: PublicKey = ALICE.public_key) -> bytes:
    said = Statement("cube", manifest().digest, "https://example.org/test", {"n": number})
    value = {
        "repository": repository,
        "envelope": sign(said, ALICE).envelope.to_json(),
        "publicKey": base64.b64encode(key.der).decode(),
    }
    return json.dumps(value).encode()


def test_one_batch_holds_what_is_admitted_and_each_refusal_is_its_own(
    database: Database, new_account
) -> None:
    alice = Principal(new_account("alice").id, "alice", parse_scopes("pull push"))
    reader = Principal(alice.account_id, "alice", parse_scopes("pull"))
    bob = Principal(new_account("bob").id, "bob", parse_scopes("pull push"))
    with database.write() as session:
        authorize(session, alice, "alice/notes", Act.WRITE)
    arrivals = [
        Arrival(alice, body(1)),
        Arrival(bob, body(2)),
        Arrival(reader, body(3)),
        Arrival(ANONYMOUS, body(4)),
        Arrival(alice, body(5, "alice/absent")),
        Arrival(alice, body(6, key=MALLORY.public_key)),
        Arrival(alice, b"{"),
        Arrival(alice, body(7)),
    ]
    log = TransparencyLog(database, b"\x07" * 32, "log.example", witnesses.parse(""))
    batches: list[int] = []
    add_all = log.add_all

    def counted(batch):
        batches.append(len(batch))
        return add_all(batch)

    log.add_all = counted  # type: ignore[method-assign]

    async def take() -> list[bytes | BaseException]:
        return await asyncio.gather(*map(log.take, arrivals), return_exceptions=True)

    first, *refused, last = asyncio.run(take())
    kinds = [type(one) for one in refused]
    assert kinds == [
        ForbiddenError,
        ForbiddenError,
        UnauthenticatedError,
        NotFoundError,
        SignatureInvalidError,
        InvalidJsonError,
    ]
    entries = [TlogEntry.from_json(json.loads(one)) for one in (first, last)]
    assert [entry.index for entry in entries] == [0, 1]
    assert log.checkpoint().checkpoint.size == sum(batches) == 2
