"""Watching a log for those who sign, and for everybody who doubts it: `memcube log monitor` and `audit`.

Entries count only once the root over all of them is the one that the log signed. A monitor that stopped at
some entry goes on there: the tree before it is known by as many hashes as its size has bits.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Iterable, Iterator

from memcube_protocol import canonical_json
from memcube_protocol.errors import (
    InvalidError,
    LogError,
    NotFoundError,
    SignatureInvalidError,
)
from memcube_protocol.reference import Reference
from memcube_protocol.values import frozen
from memcube_signing import statement
from memcube_signing.authority.inclusion import keys_of
from memcube_signing.dsse import Envelope
from memcube_signing.keys import PublicKey
from memcube_signing.predicates import countersignature
from memcube_signing.statement import Statement
from memcube_signing.transparency import merkle, tiles
from memcube_signing.transparency.checkpoint import Checkpoint
from memcube_signing.transparency.tiles import Tile

from memcube.consuming.finding import found_in_store
from memcube.context import Context
from memcube.log.watching import follow
from memcube.remote.log import RemoteLog, find_log
from memcube.trust import Attestation
from memcube.trust.question import registry_key_of


@frozen
class Audited:
    """Entries from `start` on that were hashed up to a signed checkpoint, and the bytes that it took."""

    checkpoint: Checkpoint
    start: int
    fetched_bytes: int


@frozen
class Sighting:
    """An entry in somebody's name: who signed it, whether that key is known here, and what it states.

    `said` is None where the log does not show the statement: it is then to be feared, not ignored.
    """

    index: int
    key_id: str
    known: bool
    said: Statement | None


@frozen
class Monitored:
    """Entries in the name of one namespace. `audited` says what was looked at."""

    audited: Audited
    sightings: tuple[Sighting, ...]

    @property
    def strangers(self) -> tuple[Sighting, ...]:
        """Entries signed by keys that are not known here."""
        return tuple(seen for seen in self.sightings if not seen.known)


class Frontier:
    """The root of a growing tree, by the roots of its complete subtrees."""

    def __init__(self, size: int = 0, hash_at: merkle.HashAt | None = None) -> None:
        """A tree over `size` leaves, whose hashes `hash_at` tells."""
        self.size = size
        self._roots: list[bytes] = []
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                assert hash_at
                self._roots.append(hash_at(level, (size >> level) - 1))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Add leaf hashes."""
        for added in leaves:
            carried, size = added, self.size
            while size & 1:
                carried, size = merkle.node_hash(self._roots.pop(), carried), size >> 1
            self._roots.append(carried)
            self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._roots:
            return merkle.EMPTY_ROOT
        *others, root = self._roots
        for left in reversed(others):
            root = merkle.node_hash(left, root)
        return root


def audit(context: Context, host: str) -> Audited:
    """The log of the registry at `host`, every entry fetched and hashed, and the root compared.

    The trees in which it has promised entries to this machine, with cubes pushed or pulled, must be
    its start.

    Raises:
        LogError: it keeps none, or the entries are not those of its checkpoint.
        SignatureInvalidError: it does not hold what it promised.
        NetworkError: no answer.
    """
    remote, state = _newest(context, host, _held(context, host))
    return _walk(remote, state, 0, lambda _index, _entry: None)


def monitor(context: Context, namespace: Reference, *, since: int = 0) -> Monitored:
    """What the log has in the name of `namespace` (host and first component), from entry `since` on.

    Entries are found by the namespace's key, which its registry tells its own people, and by the keys
    that this user knows as theirs, whatever the registry says.

    Raises:
        NotFoundError: the namespace is not this user's.
        LogError, SignatureInvalidError: the log cannot be relied on, or ends before `since`.
        NetworkError: no answer.
    """
    remote, state = _newest(context, namespace.host)
    if since > state.size:
        raise LogError(
            f"the log of {namespace.host} has {state.size} entries, and none from {since} on",
            hint=f"where an earlier run ended with {since}, the log was cut: ask the registry's operator; "
            "else give a smaller number",
            reason="log-shrank",
        )
    secret, own = remote.namespace_key(namespace.name), _own_keys(context, namespace)
    registry = registry_key_of(namespace.host.lower(), context.policy, context.logs.load())
    found: list[Sighting] = []
    tags = _Tags(remote, state.size)
    # A leaf has one form, and millions of leaves are of others: only those that hold a key are read.
    own_in_leaves = tuple(base64.b64encode(key.der) for key in own)

    def look(index: int, entry: bytes) -> None:
        wanted = hmac.digest(secret, merkle.leaf_hash(entry), "sha256")
        tagged = hmac.compare_digest(tags.at(index), wanted)
        if index < since or not (tagged or any(key in entry for key in own_in_leaves)):
            return
        key, signature, digest = _signed_in(entry)
        said = _statement(remote, key, signature, digest)
        if tagged or said is None or f"{said.name}/".startswith(f"{namespace.location}/"):
            known = key in own or (key == registry and _is_countersignature(said))
            found.append(Sighting(index, key.id if key else "unknown", known, said))

    audited = _walk(remote, state, since, look)
    return Monitored(audited, tuple(found))


def _is_countersignature(said: Statement | None) -> bool:
    """Whether it is the one kind of statement that a registry makes in a publisher's namespace."""
    return said is not None and said.predicate_type == countersignature.PREDICATE_TYPE


def _held(context: Context, host: str) -> Iterator[Attestation]:
    """What the store holds of the cubes at `host` beside their content."""
    for ref in context.store.refs():
        if ref.reference.host.lower() == host.lower():
            found = found_in_store(context.store, ref)
            yield from found.attestations if found else ()


def _newest(
    context: Context, host: str, attestations: Iterable[Attestation] = ()
) -> tuple[RemoteLog, Checkpoint]:
    log, remote = follow(context, host, attestations), find_log(context.registry(host))
    if log is None or remote is None:
        raise LogError(
            f"{host} keeps no transparency log", hint="name another registry", reason="log-unknown"
        )
    return remote, log.state


def _walk(
    remote: RemoteLog, state: Checkpoint, since: int, look: Callable[[int, bytes], None]
) -> Audited:
    """Show `look` every entry from the bundle of `since` on, then require that the root is the signed one."""
    start, fetched = since // tiles.WIDTH * tiles.WIDTH, 0

    def read(level: int, number: int) -> bytes:
        nonlocal fetched
        content = remote.tile(Tile(level, number, tiles.width_at(level, number, state.size)))
        fetched += len(content)
        return content

    tree = Frontier(start, tiles.reader(state.size, read))
    for content, entries in _bundles(remote, start, state.size):
        fetched += len(content)
        for offset, entry in enumerate(entries):
            look(tree.size + offset, entry)
        tree.extend(merkle.leaf_hash(entry) for entry in entries)
    if tree.size != state.size or tree.root() != state.root:
        raise _forked(f"the entries of {state.origin} are not those that its checkpoint commits to")
    return Audited(state, start, fetched)


def _bundles(remote: RemoteLog, start: int, size: int) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    for number in range(start // tiles.WIDTH, -(-size // tiles.WIDTH)):
        width = min(tiles.WIDTH, size - number * tiles.WIDTH)
        content = remote.tile(Tile(None, number, width, tiles.ENTRIES))
        entries = tiles.parse_entries(content)
        if len(entries) != width:
            raise _forked(f"bundle {number} holds {len(entries)} entries, not {width}")
        yield content, entries


class _Tags:
    """The tags of namespaces, one bundle kept at a time."""

    def __init__(self, remote: RemoteLog, size: int) -> None:
        self._remote, self._size = remote, size
        self._number, self._content = -1, b""

    def at(self, index: int) -> bytes:
        """The tag of entry `index`."""
        number, offset = divmod(index, tiles.WIDTH)
        if number != self._number:
            width = min(tiles.WIDTH, self._size - number * tiles.WIDTH)
            self._content = self._remote.tile(Tile(None, number, width, "names"))
            self._number = number
        return self._content[offset * 32 : (offset + 1) * 32]


def _own_keys(context: Context, namespace: Reference) -> frozenset[PublicKey]:
    """Keys of this machine, and those pinned for or in charge of the namespace; none that was revoked."""
    name = namespace.location.lower()
    own = {entry.public_key for entry in context.keys.entries()}
    for origin, pin in context.pins.load().origins.items():
        if origin.startswith(f"{name}/"):
            own.update(pin.publishers)
    authority = context.authorities.load(name)
    if authority is not None:
        own.update(keys_of(authority))
        revoked = {one.key_id for one in authority.current.revoked}
        own = {key for key in own if key.id not in revoked}
    return frozenset(own)


def _signed_in(entry: bytes) -> tuple[PublicKey | None, bytes, str]:
    """Key, signature and hash in a leaf; no key where it is not one of ours."""
    try:
        spec = canonical_json.parse_object(entry, what="entry")["spec"]["hashedRekordV002"]
        der = base64.b64decode(spec["signature"]["verifier"]["publicKey"]["rawBytes"])
        signature = base64.b64decode(spec["signature"]["content"])
        digest = base64.b64decode(spec["data"]["digest"]).hex()
        key = PublicKey(der)
        return key, signature, digest
    except (InvalidError, KeyError, TypeError, ValueError):
        return None, b"", ""


def _statement(
    remote: RemoteLog, key: PublicKey | None, signature: bytes, digest: str
) -> Statement | None:
    """What the entry states, once the statement behind it is the one that was signed.

    Several keys may have signed the same statement, and the log shows it once: so the signature in the
    leaf is looked at, not that of the envelope.
    """
    if key is None:
        return None
    try:
        envelope = Envelope.from_json(remote.preimage(digest).get("envelope"))
        key.verify(signature, envelope.signed)
        return statement.parse(envelope.payload)
    except (NotFoundError, InvalidError, SignatureInvalidError):
        return None


def _forked(why: str) -> LogError:
    return LogError(
        f"the transparency log is not accepted: {why}",
        hint="do not use what it proves; ask the registry's operator, and compare with others",
        reason="log-forked",
    )
