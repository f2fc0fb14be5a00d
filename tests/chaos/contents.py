"""Contents that follow from the seed: the same bytes in every run, and other bytes for every label."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/octet-stream"
NOTE = "application/vnd.example.memcube.chaos.note"

KIB = 1024


@dataclass(frozen=True)
class Content:
    """Bytes with their digest and media type."""

    media_type: str
    raw: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}


@dataclass(frozen=True)
class Image:
    """A manifest and what has to be pushed before it."""

    manifest: Content
    blobs: tuple[Content, ...]
    children: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Contents:
    """Everything that clients of the run `seed` may push, by its label."""

    seed: int

    def blob(self, label: str, size: int) -> Content:
        return Content(LAYER, random.Random(f"{self.seed}/{label}").randbytes(size))

    def shared(self, number: int) -> Content:
        """One of a few blobs that many images use, so that pushes and deletes of it meet."""
        return self.blob(f"shared/{number}", (number * 37 % 11 + 1) * 4 * KIB)

    def image(self, label: str, size: int, shared: int) -> Image:
        """An image with a layer of its own of `size` bytes and one that is shared."""
        config = Content(CONFIG, _json({"author": f"{self.seed}/{label}", "os": "linux"}))
        layers = (self.blob(f"layer/{label}", size), self.shared(shared))
        return _manifest(config, layers)

    def note(self, label: str, subject: Image) -> Image:
        """An artifact that refers to `subject`."""
        return _manifest(
            Content(EMPTY, b"{}"),
            (Content(NOTE, f"{self.seed}/{label}".encode()),),
            subject=subject.manifest.descriptor,
            artifactType=NOTE,
        )

    def index(self, label: str, children: tuple[Image, ...]) -> Image:
        """An index of `children`."""
        body = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [child.manifest.descriptor for child in children],
            "annotations": {"label": f"{self.seed}/{label}"},
        }
        return Image(Content(INDEX, _json(body)), (), children)


def digest_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _manifest(config: Content, layers: tuple[Content, ...], **more: Any) -> Image:
    body = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": config.descriptor,
        "layers": [layer.descriptor for layer in layers],
    }
    return Image(Content(IMAGE, _json(body | more)), (config, *layers))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
