"""The registry application in this process, with cubes that are pushed and released by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from litestar.testing import TestClient
from memcube_protocol import media_types, oci
from memcube_protocol.digest import Digest
from memcube_signing import bundle as bundles
from memcube_signing import referrer
from memcube_signing.authority import carrier
from memcube_signing.bundle import Bundle
from memcube_signing.keys import PrivateKey, PublicKey
from memcube_signing.predicates import Attested, countersignature, verify
from memcube_signing.predicates.countersignature import Countersignature
from memcube_signing.release import PREDICATE_TYPE, Release, sign_release
from memcube_signing.transparency import bundled
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import TlogEntry

from support.signing import ALICE, manifest, release

NAME = "alice/notes"
OCI = media_types.OCI_MANIFEST


@dataclass
class Registry:
    """One person's view of a registry whose namespace is `alice`."""

    client: TestClient[Any]
    token: str

    @property
    def features(self) -> dict[str, Any]:
        return dict(self.client.get("/.well-known/memcube.json").json()["features"])

    @property
    def log_key(self) -> NoteKey:
        return NoteKey.parse(self.features["log"]["key"])

    @property
    def key(self) -> PublicKey:
        """The registry's own key, as it says."""
        return PublicKey(base64.b64decode(self.features["countersignatures"]["key"]))

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {self.token}"} | options.pop("headers", {})
        return self.client.request(method, path, headers=headers, **options)

    def push_blob(self, content: bytes, name: str = NAME) -> None:
        path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(content)}"
        answer = self.ask("POST", path, content=content)
        assert answer.status_code == 201, answer.text

    def push_manifest(self, value: oci.Manifest, name: str = NAME, tag: str = "") -> None:
        path = f"/v2/{name}/manifests/{tag or value.digest}"
        answer = self.ask("PUT", path, content=value.raw, headers={"content-type": OCI})
        assert answer.status_code == 201, answer.text

    def push_cube(self, cube: oci.Manifest | None = None, name: str = NAME) -> None:
        self.push_blob(b"{}", name)
        self.push_manifest(cube or manifest(), name)

    def log(self, bundle: Bundle, key: PrivateKey, name: str = NAME) -> Bundle:
        body = {
            "repository": name,
            "envelope": bundle.envelope.to_json(),
            "publicKey": base64.b64encode(key.public_key.der).decode(),
        }
        answer = self.ask("POST", "/api/v1/log/entries", json=body)
        assert answer.status_code == 201, answer.text
        return bundled.attach(bundle, [TlogEntry.from_json(answer.json())])

    def attach(
        self,
        bundle: Bundle,
        key: PrivateKey,
        *,
        kind: str = PREDICATE_TYPE,
        name: str = NAME,
        cube: oci.Manifest | None = None,
    ) -> oci.Manifest:
        """Push `bundle` as a referrer of `cube`."""
        subject = (cube or manifest()).descriptor()
        attached = referrer.write(bundle, kind, subject, key.public_key)
        self.push_blob(bundle.raw, name)
        self.push_manifest(attached, name)
        return attached

    def release(
        self, key: PrivateKey = ALICE, said: Release | None = None, cube: oci.Manifest | None = None
    ) -> Bundle:
        """Push, log and attach a release; its bundle."""
        self.push_cube(cube)
        bundle = self.log(sign_release(said or release(key), key), key)
        self.attach(bundle, key, cube=cube)
        return bundle

    def announce(self, found: Iterable[Bundle]) -> None:
        """Publish key documents of the namespace."""
        carried = carrier.write(list(found))
        name = f"alice/{carrier.NAME}"
        self.push_blob(b"{}", name)
        for bundle in found:
            self.push_blob(bundle.raw, name)
        self.push_manifest(carried, name, carrier.TAG)

    def referrers(self, subject: Digest | None = None, name: str = NAME) -> list[oci.Manifest]:
        wanted = subject or manifest().digest
        entries = self.ask("GET", f"/v2/{name}/referrers/{wanted}").json()["manifests"]
        return [
            oci.parse_manifest(self.ask("GET", f"/v2/{name}/manifests/{one['digest']}").content)
            for one in entries
        ]

    def countersignatures(
        self, subject: Digest | None = None, name: str = NAME
    ) -> list[tuple[Bundle, Attested[Countersignature]]]:
        """What the registry signed about `subject`, verified."""
        wanted = subject or manifest().digest
        found = []
        for one in self.referrers(wanted, name):
            about = referrer.read(one)
            if about.predicate_type == countersignature.PREDICATE_TYPE:
                raw = self.ask("GET", f"/v2/{name}/blobs/{about.bundle.digest}").content
                said = verify(raw, countersignature.KIND, keys=[self.key], subject=wanted)
                found.append((bundles.parse(raw), said))
        return found
