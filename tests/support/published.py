"""A cube at some registry as other people find it: released, with a build that is attested to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memcube.remote import Registry
from memcube.store import Store
from memcube.transfer import push_blobs
from memcube_protocol import media_types, oci

from support.machine import Machine


def write_cube(folder: Path, name: str, version: str, *, picture_bytes: int = 10_000) -> Path:
    """The folder of a cube with one record and a picture of so many random bytes."""
    (folder / "plaintext").mkdir(parents=True, exist_ok=True)
    (folder / "plaintext" / "notes.jsonl").write_text(f'{{"id":"r1","text":"note of {version}"}}\n')
    (folder / "memcube.toml").write_text(f'name = "{name}"\nversion = "{version}"\n')
    (folder / "attachments").mkdir(exist_ok=True)
    picture = b"\x89PNG\r\n\x1a\n" + os.urandom(picture_bytes)
    (folder / "attachments" / "picture.png").write_bytes(picture)
    return folder


@dataclass(frozen=True)
class Published:
    """A cube `name` that `machine` publishes at its default registry."""

    machine: Machine
    name: str
    folder: Path

    def push(self, version: str = "1.0.0", *, picture_bytes: int = 10_000) -> dict[str, Any]:
        folder = write_cube(self.folder / version, self.name, version, picture_bytes=picture_bytes)
        return self.machine.json("push", folder, f"{self.name}:{version}")

    def attach_build(self, version: str = "1.0.0") -> tuple[oci.Manifest, oci.Manifest]:
        """A build for the cube, and something attested to the build."""
        with self.machine.client() as client:
            registry, store = client.context.registry(""), Store(self.folder / "builder")
            cube = registry.manifest(self.name, version)
            weights = oci.Descriptor(media_types.LORA, *store.blobs.add(os.urandom(50_000)))
            build = self._attach(registry, store, cube, media_types.BUILD, weights)
            text = oci.Descriptor(media_types.SIGSTORE_BUNDLE, *store.blobs.add(os.urandom(500)))
            attested = self._attach(registry, store, build, media_types.SIGSTORE_BUNDLE, text)
        return build, attested

    def _attach(
        self,
        registry: Registry,
        store: Store,
        subject: oci.Manifest | oci.Index,
        artifact_type: str,
        layer: oci.Descriptor,
    ) -> oci.Manifest:
        store.blobs.add(b"{}")
        manifest = oci.write_manifest(
            artifact_type=artifact_type,
            config=oci.EMPTY,
            layers=[layer],
            subject=subject.descriptor(),
        )
        push_blobs(registry, self.name, manifest.blobs, store)
        registry.put_manifest(self.name, manifest)
        return manifest
