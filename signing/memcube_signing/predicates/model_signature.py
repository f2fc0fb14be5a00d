"""OpenSSF model signing v1.0 over the files of a cube, as `oras pull` and `memcube unpack` write them.

`model_signing verify key` accepts the folder with this bundle. The files' SHA-256 digests are those of
the manifest's layers, so that signing reads no file. The statement's subject is a root over the
files' digests that does not cover their names: it identifies nothing, and memcube compares the whole
list with the manifest instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any, Final

from memcube_protocol import media_types, oci, paths
from memcube_protocol.digest import Digest
from memcube_protocol.errors import SignatureInvalidError
from memcube_protocol.values import frozen

from memcube_signing import bundle as bundles
from memcube_signing.bundle import ALL_ALGORITHMS, Bundle, Policy
from memcube_signing.keys import Algorithm, PublicKey, Signer
from memcube_signing.predicates.kind import Attested, Kind
from memcube_signing.predicates.reading import Reader, malformed
from memcube_signing.statement import Statement

PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"
_ALGORITHM: Final = "sha256"
_SERIALIZATION: Final = {
    "method": "files",
    "hash_type": _ALGORITHM,
    "allow_symlinks": False,
    "ignore_paths": [],
}


@frozen
class ModelSignature:
    """A folder called `name`, and each of its files: path below it, and SHA-256.

    Raises:
        InvalidStatementError: no file, a path twice, or another digest algorithm.
        UnsafePathError: a path that leaves the folder, or two that collide.
    """

    name: str
    files: tuple[tuple[str, Digest], ...]

    def __post_init__(self) -> None:
        if not self.files or self.files != tuple(sorted(self.files, key=_order)):
            raise malformed("its resources are not files in the order of their paths")
        if any(digest.algorithm != _ALGORITHM for _, digest in self.files):
            raise malformed("a resource is not named by SHA-256")
        paths.require_distinct(path for path, _ in self.files)
        for path, _ in self.files:
            paths.require_safe(path)

    @property
    def root(self) -> Digest:
        """SHA-256 over the files' digests in order: the statement's subject."""
        joined = b"".join(bytes.fromhex(digest.hex) for _, digest in self.files)
        return Digest(_ALGORITHM, hashlib.sha256(joined).hexdigest())

    def to_statement(self) -> Statement:
        """The in-toto statement of this signature."""
        resources = [
            {"name": path, "algorithm": _ALGORITHM, "digest": digest.hex}
            for path, digest in self.files
        ]
        predicate: dict[str, Any] = {"serialization": _SERIALIZATION, "resources": resources}
        return Statement(self.name, self.root, PREDICATE_TYPE, predicate)


def of_manifest(manifest: oci.Manifest, name: str) -> ModelSignature:
    """The signature of the folder `name` that the layers of `manifest` are written to.

    Raises:
        InvalidStatementError: a layer without path, or not named by SHA-256.
        UnsafePathError: a path that no cube may have.
    """
    return ModelSignature(name, _files(manifest.layers))


def sign(value: ModelSignature, signer: Signer) -> Bundle:
    """`value` signed; `model_signing` wants the key named by the SHA-256 of its PEM, not of its DER.

    Raises:
        SigningKeyError: the signer cannot sign now.
    """
    return bundles.sign(value.to_statement(), signer, hint=signer.public_key.pem_id)


def verify(
    bundle: bytes,
    *,
    keys: Collection[PublicKey],
    manifest: oci.Manifest,
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS,
) -> Attested[ModelSignature]:
    """The signature over exactly the files of `manifest`, no more and no fewer.

    Raises:
        InvalidStatementError, InvalidJsonError, LimitExceededError: the bundle is malformed.
        SignatureInvalidError: another key, or other files.
    """
    expected = of_manifest(manifest, "cube")
    policy = Policy(keys, PREDICATE_TYPE, expected.root, algorithms, pem_hint=True)
    said, key = bundles.verify(bundles.parse(bundle), policy)
    value = read(said)
    if value.files != expected.files:
        raise SignatureInvalidError(
            "the model signature names other files than the manifest",
            hint="somebody attached the signature of another cube: do not use it",
            reason="wrong-subject",
        )
    return Attested(value, key)


def read(said: Statement) -> ModelSignature:
    """The signature in a statement of its predicate type; unknown fields are ignored.

    Raises:
        InvalidStatementError: not a list of files, symbolic links allowed, files left out, or a root
            that is not theirs.
        UnsafePathError: a path that leaves the folder.
    """
    fields = Reader(said.predicate, "model signature")
    serialization = fields.mapping("serialization")
    if any(serialization.get(name, value) != value for name, value in _SERIALIZATION.items()):
        raise malformed("it does not cover every file, by SHA-256, without symbolic links")
    files = tuple(_resource(item) for item in fields.tables("resources"))
    value = ModelSignature(said.name, files)
    if value.root != said.subject:
        raise malformed("its subject is not the root of its resources", "wrong-subject")
    return value


def _files(layers: Iterable[oci.Descriptor]) -> tuple[tuple[str, Digest], ...]:
    files = [(layer.annotations.get(media_types.TITLE, ""), layer.digest) for layer in layers]
    return tuple(sorted(files, key=_order))


def _order(file: tuple[str, Digest]) -> list[str]:
    """Paths in the order of their components, as model_signing sorts them."""
    return file[0].split("/")


def _resource(fields: Reader) -> tuple[str, Digest]:
    fields.choice("algorithm", (_ALGORITHM,))
    return fields.text("name"), Digest(_ALGORITHM, fields.text("digest"))


KIND: Final = Kind(PREDICATE_TYPE, read)
