"""The OpenSSF model signature covers exactly the files of a manifest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from memcube_protocol import canonical_json, media_types, oci
from memcube_protocol.errors import InvalidStatementError, MemcubeError, SignatureInvalidError
from memcube_signing.predicates import model_signature
from support.signing import ALICE, MALLORY, changed

FILES = {"README.md": b"card", "b/x.jsonl.zst": b"two", "b.md": b"three", "a/b/c": b"four"}


def cube(files: dict[str, bytes]) -> oci.Manifest:
    return oci.write_manifest(
        artifact_type=media_types.CUBE,
        config=oci.EMPTY,
        layers=[
            oci.Descriptor.of(media_types.CARD, content, {media_types.TITLE: path})
            for path, content in files.items()
        ],
    )


def bundle(files: dict[str, bytes] = FILES, key: Any = ALICE) -> bytes:
    return model_signature.sign(model_signature.of_manifest(cube(files), "notes"), key).raw


def resigned(change: dict[str, Any], root: str | None = None) -> bytes:
    value = model_signature.of_manifest(cube(FILES), "notes")
    statement = json.loads(value.to_statement().to_bytes())
    statement["predicate"] |= change
    if root:
        statement["subject"][0]["digest"]["sha256"] = root
    from memcube_signing import bundle as bundles
    from memcube_signing.dsse import Envelope, Signature, pae

    payload = canonical_json.dump(statement)
    signature = Signature(ALICE.sign(pae(media_types.IN_TOTO, payload)))
    envelope = Envelope(media_types.IN_TOTO, payload, (signature,))
    return bundles.write(envelope, ALICE.public_key.pem_id).raw


def verify(raw: bytes, files: dict[str, bytes] = FILES):
    return model_signature.verify(raw, keys=[ALICE.public_key], manifest=cube(files))


def test_is_accepted_about_its_own_files():
    read = verify(bundle())
    assert read.value == model_signature.of_manifest(cube(FILES), "notes")
    assert read.key == ALICE.public_key


def test_lists_files_in_the_order_of_their_components():
    names = [path for path, _ in model_signature.of_manifest(cube(FILES), "notes").files]
    assert names == ["README.md", "a/b/c", "b/x.jsonl.zst", "b.md"]


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"extra.md": b"five"},
        {path: content for path, content in FILES.items() if path != "b.md"},
        FILES | {"b.md": b"changed"},
    ],
    ids=["extra file", "missing file", "changed file"],
)
def test_is_refused_about_other_files(files):
    with pytest.raises(SignatureInvalidError) as caught:
        verify(bundle(), files)
    assert caught.value.reason == "wrong-subject"


def test_is_refused_where_two_files_changed_their_names():
    """The root does not cover names: the list is compared."""
    swapped = {
        "README.md": b"card",
        "b/x.jsonl.zst": b"two",
        "b.md": b"three",
        "a/b/d": b"four",
    }
    with pytest.raises(SignatureInvalidError) as caught:
        verify(bundle(), swapped)
    assert "names other files" in str(caught.value)


def test_is_refused_by_another_key():
    with pytest.raises(SignatureInvalidError):
        verify(bundle(key=MALLORY))


def test_is_refused_where_its_hint_is_changed():
    raw = changed(bundle(), "verificationMaterial.publicKey.hint", ALICE.public_key.id)
    with pytest.raises(SignatureInvalidError):
        verify(raw)


@pytest.mark.parametrize(
    "change",
    [
        {"serialization": {"method": "shards", "hash_type": "sha256"}},
        {"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": True}},
        {"serialization": {"method": "files", "hash_type": "sha256", "ignore_paths": ["b.md"]}},
        {"resources": []},
        {"resources": "all"},
    ],
    ids=["shards", "symbolic links", "ignored files", "no file", "no list"],
)
def test_is_refused_where_it_does_not_cover_every_file(change):
    with pytest.raises(InvalidStatementError):
        verify(resigned(change))


def test_is_refused_where_its_files_leave_the_folder():
    statement = model_signature.of_manifest(cube(FILES), "notes").to_statement()
    resources = [dict(item) for item in statement.predicate["resources"]]
    resources[0]["name"] = "../README.md"
    with pytest.raises(MemcubeError):
        verify(resigned({"resources": resources}))
