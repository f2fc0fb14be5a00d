"""Content to push: blobs, manifests in the order in which they can be pushed, tags, referrers."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from memcube_protocol.digest import Digest

from support.repository import IMAGE, INDEX, OCTETS, Repository

CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY_JSON = "application/vnd.oci.empty.v1+json"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
TYPE_1 = "application/vnd.example.memcube.tests.v1"
TYPE_2 = "application/vnd.example.memcube.tests.v2"

Json = dict[str, Any]


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def layer(compressed: bool = True) -> bytes:
    """A tar archive of one file that nobody else has."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        text = os.urandom(24).hex().encode()
        entry = tarfile.TarInfo("./file.txt")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return gzip.compress(buffer.getvalue()) if compressed else buffer.getvalue()


@dataclass
class Sample:
    """A set of content; the builder methods return descriptors and remember what they made."""

    algorithm: str = "sha256"
    with_data: bool = False
    extra: bool = False
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    media_types: dict[Digest, str] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)
    referrers: dict[Digest, list[Json]] = field(default_factory=dict)

    def blob(self, content: bytes, media_type: str = OCTETS, **more: object) -> Json:
        digest = Digest.of(content, self.algorithm)
        self.blobs[digest] = content
        return self._descriptor(digest, content, media_type) | more

    def image(
        self,
        *,
        config: Json | None = None,
        layers: list[Json] | None = None,
        tag: str | None = None,
        subject: Json | None = None,
        **more: object,
    ) -> Json:
        if layers is None:
            layers = [self.blob(layer(), LAYER_GZIP) for _ in range(2)]
        if config is None:
            config = self.blob(to_json(self._spiced(_image_config(layers))), CONFIG)
        body = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}
        body |= more | ({"subject": subject} if subject else {})
        return self.add(body, IMAGE, tag, str(more.get("artifactType") or config["mediaType"]))

    def artifact(self, artifact_type: str = TYPE_1, **more: Any) -> Json:
        config = self.blob(b"{}", EMPTY_JSON)
        layers = more.pop("layers", None) or [self.blob(os.urandom(2048), artifact_type)]
        return self.image(config=config, layers=layers, artifactType=artifact_type, **more)

    def index(
        self,
        children: list[Json] | None = None,
        *,
        tag: str | None = None,
        subject: Json | None = None,
        **more: object,
    ) -> Json:
        if children is None:
            children = [
                self.image() | {"platform": {"os": "linux", "architecture": architecture}}
                for architecture in ("amd64", "arm64")
            ]
        body = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
        body |= more | ({"subject": subject} if subject else {})
        return self.add(body, INDEX, tag, str(more.get("artifactType", "")))

    def add(self, body: Json, media_type: str, tag: str | None, artifact_type: str = "") -> Json:
        content = to_json(self._spiced(body))
        digest = Digest.of(content, self.algorithm)
        self.manifests[digest] = content
        self.media_types[digest] = media_type
        if tag:
            self.tags[tag] = digest
        descriptor = self._descriptor(digest, content, media_type)
        if subject := body.get("subject"):
            entry = descriptor | ({"artifactType": artifact_type} if artifact_type else {})
            entry |= {"annotations": body["annotations"]} if "annotations" in body else {}
            entry.pop("data", None)
            self.referrers.setdefault(Digest.parse(subject["digest"]), []).append(entry)
        return descriptor

    @property
    def top(self) -> Digest:
        """The manifest that was made last."""
        return list(self.manifests)[-1]

    def push(self, repository: Repository) -> None:
        """Push everything by digest, in order, then each tag."""
        for digest, content in self.blobs.items():
            reply = repository.put_blob(content, digest)
            assert reply.status == 201, reply
        for digest, content in self.manifests.items():
            reply = repository.put_manifest(digest, content, self.media_types[digest])
            assert reply.status == 201, reply
        for tag, digest in self.tags.items():
            reply = repository.put_manifest(tag, self.manifests[digest], self.media_types[digest])
            assert reply.status == 201, reply

    def _descriptor(self, digest: Digest, content: bytes, media_type: str) -> Json:
        descriptor: Json = {"mediaType": media_type, "digest": str(digest), "size": len(content)}
        if self.with_data:
            descriptor["data"] = base64.b64encode(content).decode()
        return descriptor

    def _spiced(self, body: Json) -> Json:
        if self.extra:
            return body | {f"org.example.{os.urandom(4).hex()}": [1, None, {"deep": "valué"}]}
        return body


def _image_config(layers: list[Json]) -> Json:
    return {
        "author": os.urandom(8).hex(),
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }


def one_image(tag: str = "v1", algorithm: str = "sha256") -> Sample:
    sample = Sample(algorithm)
    sample.image(tag=tag)
    return sample


def _uncompressed() -> Sample:
    sample = Sample()
    sample.image(layers=[sample.blob(layer(compressed=False), LAYER_TAR)], tag="plain")
    return sample


def _large() -> Sample:
    sample = Sample()
    annotations = {f"large-annotation-{number}": "A" * 10_000 for number in range(390)}
    sample.image(annotations=annotations, tag="large")
    return sample


def _largest() -> Sample:
    """A manifest of exactly 4 MiB, the most that the specification asks registries to take."""
    sample = Sample()
    config, layers = sample.blob(b"{}", EMPTY_JSON), [sample.blob(layer(), LAYER_GZIP)]
    body = {"schemaVersion": 2, "mediaType": IMAGE, "config": config, "layers": layers}
    padding = 4 * 1024 * 1024 - len(to_json(body | {"annotations": {"a": ""}}))
    sample.add(body | {"annotations": {"a": "x" * padding}}, IMAGE, "largest")
    return sample


def _index() -> Sample:
    sample = Sample()
    sample.index(tag="index")
    return sample


def _nested_index() -> Sample:
    sample = Sample()
    sample.index([sample.index(), sample.index()], tag="index-of-index")
    return sample


def _empty_index() -> Sample:
    sample = Sample()
    sample.index([], tag="empty", annotations={"unique": os.urandom(8).hex()})
    return sample


def _artifact() -> Sample:
    sample = Sample()
    sample.artifact(tag="artifact")
    return sample


def _artifact_index() -> Sample:
    sample = Sample()
    sample.index([sample.artifact(), sample.artifact()], artifactType=TYPE_1, tag="artifact-index")
    return sample


def _artifact_without_layers() -> Sample:
    sample = Sample()
    empty = sample.blob(b"{}", EMPTY_JSON)
    unique = {"unique": os.urandom(8).hex()}
    sample.artifact(layers=[empty], annotations=unique, tag="artifact-without-layers")
    return sample


def _subject() -> Sample:
    sample = Sample()
    subject = sample.image(tag="image")
    sample.image(subject=subject)
    for number, artifact_type in enumerate((TYPE_1, TYPE_2), 1):
        notes = {"org.example.note": "hello", f"org.example.{os.urandom(4).hex()}": "unique"}
        tag = f"tagged-artifact-{number}"
        sample.artifact(artifact_type, subject=subject, annotations=notes, tag=tag)
    return sample


def _index_subject() -> Sample:
    sample = Sample()
    subject = sample.index(tag="index")
    notes = {"org.example.note": "hello", f"org.example.{os.urandom(4).hex()}": "unique"}
    children = [sample.artifact(), sample.artifact()]
    sample.index(children, artifactType=TYPE_1, subject=subject, annotations=notes, tag="tagged")
    return sample


def _missing_subject() -> Sample:
    sample = Sample()
    absent = {"mediaType": IMAGE, "digest": str(Digest.of(os.urandom(16))), "size": 123}
    sample.artifact(subject=absent, annotations={"org.example.note": "hello"}, tag="orphan")
    return sample


def _data_field() -> Sample:
    sample = Sample(with_data=True)
    sample.image(tag="data-field")
    return sample


def _foreign_layers() -> Sample:
    sample = Sample()
    absent = Digest.of(os.urandom(16))
    urls = [f"https://store.example.com/blobs/{absent}"]
    descriptor = {"mediaType": LAYER_FOREIGN, "digest": str(absent), "size": 123456, "urls": urls}
    sample.image(layers=[descriptor, sample.blob(layer(), LAYER_GZIP)], tag="foreign")
    return sample


def _custom_fields() -> Sample:
    sample = Sample(extra=True)
    sample.index(tag="custom-fields")
    return sample


def _no_layers() -> Sample:
    sample = Sample()
    sample.image(layers=[], tag="no-layers")
    return sample


def _sha512() -> Sample:
    """Pushed by digest alone: a registry names what is pushed by tag with SHA-256."""
    sample = Sample("sha512")
    sample.index()
    return sample


SAMPLES: dict[str, Callable[[], Sample]] = {
    "image": one_image,
    "uncompressed image": _uncompressed,
    "large manifest": _large,
    "manifest of 4 MiB": _largest,
    "index": _index,
    "nested index": _nested_index,
    "empty index": _empty_index,
    "artifact": _artifact,
    "artifact index": _artifact_index,
    "artifact without layers": _artifact_without_layers,
    "artifacts with subject": _subject,
    "index with subject": _index_subject,
    "missing subject": _missing_subject,
    "data field": _data_field,
    "non-distributable layers": _foreign_layers,
    "custom fields": _custom_fields,
    "no layers": _no_layers,
    "sha512": _sha512,
}
