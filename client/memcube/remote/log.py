"""A registry's transparency log as a client sees it: its key, submissions, places of releases, tiles.

What comes is parsed here, and believed by nobody: `memcube_signing.transparency` verifies.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidError,
    NotFoundError,
    SigningKeyError,
)
from memcube_protocol.values import frozen
from memcube_signing.bundle import Bundle
from memcube_signing.dsse import Envelope
from memcube_signing.keys import PublicKey
from memcube_signing.transparency import bundled
from memcube_signing.transparency import checkpoint as checkpoints
from memcube_signing.transparency.checkpoint import NoteKey, SignedCheckpoint
from memcube_signing.transparency.entry import LOGGED, LogPolicy, TlogEntry
from memcube_signing.transparency.places import TakenPlace
from memcube_signing.transparency.tiles import Tile

from memcube.http import Request
from memcube.remote import Registry
from memcube.remote.connection import nonsense
from memcube.remote.interface import Remote

_ENTRY_BYTES: Final = 256 * limits.KIB
_TILE_BYTES: Final = 17 * limits.MIB
_LIST_BYTES: Final = 16 * limits.MIB
_JSON: Final = {"Content-Type": "application/json"}


@frozen
class RemoteLog:
    """The log of `registry`. `key` is what the registry itself says: pinned or not is policy.

    So is `registry_key`, with which it countersigns; None: it does not.
    """

    registry: Registry
    key: NoteKey
    registry_key: PublicKey | None = None

    def submit(self, repository: str, envelope: Envelope, key: PublicKey) -> TlogEntry:
        """The entry of a signed statement about `repository`; the same again has the same one.

        Raises:
            ConflictError: another manifest has the place of this release.
            ForbiddenError, UnauthenticatedError, NotFoundError: not a cube of this user's.
        """
        body = canonical_json.dump(
            {
                "repository": repository,
                "envelope": envelope.to_json(),
                "publicKey": base64.b64encode(key.der).decode(),
            }
        )
        url = f"{self.registry.endpoint.url}/api/v1/log/entries"
        request = Request("POST", url, _JSON, body, repeatable=True)
        with self.registry.http.send(request, (201,)) as response:
            return TlogEntry.from_json(canonical_json.parse(response.content(_ENTRY_BYTES)))

    def entry(self, leaf_hash: bytes) -> TlogEntry:
        """The entry with this leaf, proved against the newest checkpoint.

        Raises:
            NotFoundError: the log has none.
        """
        content = self._get(f"/api/v1/log/entries/{leaf_hash.hex()}", _ENTRY_BYTES)
        return TlogEntry.from_json(canonical_json.parse(content))

    def places(self, repository: str) -> tuple[TakenPlace, ...]:
        """Places that releases of this user's `repository` have taken."""
        try:
            found = canonical_json.parse(
                self._get(f"/api/v1/log/releases/{repository}", _LIST_BYTES)
            )
        except NotFoundError:
            return ()
        if not isinstance(found, list):
            raise nonsense(self.registry.host, "something else than a list of releases")
        return tuple(self._place(item) for item in found)

    def preimage(self, digest: str) -> dict[str, Any]:
        """The statement whose signed bytes have this SHA-256, as it was submitted; not verified.

        Raises:
            NotFoundError: there is none, or this user may not read it.
        """
        content = self._get(f"/api/v1/log/preimages/{digest}", _ENTRY_BYTES * 16)
        return canonical_json.parse_object(content, what="preimage")

    def namespace_key(self, namespace: str) -> bytes:
        """The key by which this user finds the entries of an own `namespace`.

        Raises:
            NotFoundError: it is not this user's.
        """
        content = self._get(f"/api/v1/log/namespaces/{namespace}", limits.MIB)
        key = canonical_json.parse_object(content, what="namespace").get("key")
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{64}", key):
            raise nonsense(self.registry.host, "a malformed key of a namespace")
        return bytes.fromhex(key)

    def checkpoint(self) -> SignedCheckpoint:
        """The newest checkpoint; not verified."""
        text = self._get("/log/checkpoint", checkpoints.NOTE_BYTES)
        return checkpoints.parse(text.decode("utf-8", "replace"))

    def tile(self, tile: Tile) -> bytes:
        """What the path of `tile` holds; not verified."""
        return self._get(f"/log/tile/{tile.path}", _TILE_BYTES)

    def _get(self, path: str, limit: int) -> bytes:
        request = Request("GET", f"{self.registry.endpoint.url}{path}")
        with self.registry.http.send(request, (200,)) as response:
            return response.content(limit)

    def _place(self, item: Any) -> TakenPlace:
        try:
            manifest = Digest.parse(item["manifest"])
            return TakenPlace(item["origin"], item["publishers"], int(item["seq"]), manifest)
        except (TypeError, KeyError, ValueError, InvalidError):
            raise nonsense(self.registry.host, "a malformed list of releases") from None


def logged(registry: Remote, repository: str, bundle: Bundle, key: PublicKey) -> Bundle:
    """`bundle`, signed by `key`, with its place in the registry's log, where that keeps one.

    Raises:
        SignatureInvalidError: the log's proof does not hold.
        ForbiddenError, UnauthenticatedError, NotFoundError: not a cube of this user's.
    """
    log = find_log(registry) if key.algorithm in LOGGED else None
    if log is None:
        return bundle
    found = bundled.attach(bundle, [log.submit(repository, bundle.envelope, key)])
    bundled.verify_logged(found, key, LogPolicy(log.key))
    return found


def log_of_releases(registry: Remote, key: PublicKey) -> RemoteLog | None:
    """The log that a release signed by `key` has to be in; None where `registry` keeps none.

    Raises:
        SigningKeyError: it keeps one, and signatures by such a key cannot be logged.
        NetworkError: no answer.
    """
    log = find_log(registry)
    if log is not None and key.algorithm not in LOGGED:
        raise SigningKeyError(
            f"key {key.id} signs with {key.algorithm}, which the log of {registry.host} cannot hold",
            hint="release with a P-256 key: memcube keys generate NAME, then --key NAME",
        )
    return log


def find_log(registry: Remote) -> RemoteLog | None:
    """The log that `registry` says it keeps; None where it keeps none, or is of another kind.

    Raises:
        NetworkError: no answer.
    """
    if not isinstance(registry, Registry):
        return None
    features = registry.features
    try:
        key = features["log"]["key"]
        if not isinstance(key, str):
            return None
        return RemoteLog(registry, NoteKey.parse(key), _registry_key(features))
    except (InvalidError, KeyError, TypeError):
        return None


def _registry_key(features: Mapping[str, Any]) -> PublicKey | None:
    """The key with which the registry says that it countersigns; a malformed one counts as none."""
    try:
        return PublicKey(base64.b64decode(features["countersignatures"]["key"], validate=True))
    except (InvalidError, KeyError, TypeError, ValueError):
        return None
