"""One public cube of a publisher on a hostile registry, and a consumer on another machine."""

from __future__ import annotations

import base64
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from memcube.client import Client
from memcube.consuming.verifying import Verified
from memcube.context import Trust
from memcube.publishing.publish import Published
from memcube.trust import Mode
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError
from memcube_signing import referrer
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey
from memcube_signing.release import PREDICATE_TYPE

from support.hostile import Hostile
from support.machine import client_on

if TYPE_CHECKING:
    from conftest import Person

Attached = tuple[oci.Manifest, bytes]


def reason_of(error: MemcubeError) -> str:
    """The stable reason of a refusal, or the code of the error where it has none."""
    return str(getattr(error, "reason", error.code))


@dataclass
class Story:
    """The cube `name` of `publisher`; homes of everybody lie in `folder`, the publisher's may be elsewhere."""

    hostile: Hostile
    publisher: Person
    folder: Path
    name: str
    publisher_home: Path
    published: dict[str, Published] = field(default_factory=dict)

    def push(self, version: str, *, home: str = "publisher", **more: Any) -> Published:
        source = self.publisher_home.parent / "source" / self.name / home / version
        (source / "plaintext").mkdir(parents=True, exist_ok=True)
        line = f'{{"id":"r1","text":"note {version} of {home}"}}\n'
        (source / "plaintext" / "notes.jsonl").write_text(line)
        with self.client(home) as client:
            made = client.push(source, f"{self.name}:{version}", public=True, **more)
        self.published[version] = made
        return made

    def pull(self, tag: str = "latest", *, home: str = "victim", **more: Any) -> Verified:
        with self.client(home) as client:
            return client.pull(f"{self.name}{'' if tag.startswith('@') else ':'}{tag}", **more)

    def refused(self, reason: str, tag: str = "latest", *, home: str = "victim") -> MemcubeError:
        """The error of a pull that has to fail, by `reason`, in both modes, and leave nothing behind."""
        for mode in Mode:
            before = self.held(home)
            with pytest.raises(MemcubeError) as caught:
                self.pull(tag, home=home, trust=Trust(mode))
            assert reason_of(caught.value) == reason, caught.value
            assert self.held(home) == before
        return caught.value

    def held(self, home: str = "victim") -> dict[str, Digest]:
        """What the consumer's store names."""
        with self.client(home) as client:
            return {str(ref.reference): ref.digest for ref in client.context.store.refs()}

    def client(self, home: str = "victim") -> AbstractContextManager[Client]:
        """The client of whoever lives in `home`."""
        place = self.publisher_home if home == "publisher" else self.folder / home
        return client_on(place, self.publisher)

    def digest(self, version: str) -> Digest:
        return self.published[version].cube.digest

    def raw(self, version: str) -> bytes:
        return self.published[version].cube.manifest.raw

    def key(self, home: str = "publisher") -> PrivateKey:
        """The publisher's signing key: what a thief has, or a test that speaks for the publisher."""
        with self.client(home) as client:
            signer = client.context.signer(None)
            assert isinstance(signer, PrivateKey)
            return signer

    def attached(self, version: str, kind: str = PREDICATE_TYPE) -> Attached:
        """The honest attestation of the predicate type `kind` with `version`: referrer and bundle."""
        for manifest in self.referrers(version):
            about = referrer.read(manifest)
            if about.predicate_type == kind:
                path = f"/v2/{self.name}/blobs/{about.bundle.digest}"
                return manifest, self.hostile.honest(path).body
        raise AssertionError(f"{version} has no {kind}")

    def referrers(self, version: str) -> list[oci.Manifest]:
        """The manifests that honestly refer to `version`."""
        found = self.hostile.honest(f"/v2/{self.name}/referrers/{self.digest(version)}")
        index = oci.parse(found.body)
        assert isinstance(index, oci.Index)
        paths = [f"/v2/{self.name}/manifests/{entry.digest}" for entry in index.manifests]
        return [oci.parse_manifest(self.hostile.honest(path).body) for path in paths]

    def carried(
        self, bundle: Bundle | bytes, subject: bytes, key: PrivateKey, kind: str = PREDICATE_TYPE
    ) -> Attached:
        """`bundle` with a referrer that attaches it to the manifest `subject` and offers `key`."""
        raw = bundle if isinstance(bundle, bytes) else bundle.raw
        annotations = {
            media_types.BUNDLE_CONTENT: "dsse-envelope",
            media_types.BUNDLE_PREDICATE: kind,
            media_types.PUBLISHER_KEY: base64.b64encode(key.public_key.der).decode(),
        }
        manifest = oci.write_manifest(
            artifact_type=media_types.SIGSTORE_BUNDLE,
            config=oci.EMPTY,
            layers=[oci.Descriptor.of(media_types.SIGSTORE_BUNDLE, raw)],
            subject=oci.parse_manifest(subject).descriptor(),
            annotations=annotations,
        )
        return manifest, raw
