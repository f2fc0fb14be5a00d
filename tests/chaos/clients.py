"""Threads that speak HTTP as registries' clients do: what they do is planned, how far they come is not."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Sequence
from typing import Any

from memcube_protocol.digest import Digest
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from support.signing import ALICE

from chaos.contents import Content, Contents, Image
from chaos.plan import PUBLIC, Action
from chaos.requests import Requests

CHUNKS = 3
LOOKS = 20
"""How often a client asks whether a direct upload has become a blob."""
_PUSHES = ("push", "keep", "release")


class HttpClient(threading.Thread):
    """Works through its script, again from the start if time is left, until `stop`."""

    def __init__(
        self,
        script: Sequence[Action],
        contents: Contents,
        requests: Requests,
        stop: threading.Event,
    ) -> None:
        super().__init__(name="http client", daemon=True)
        self._script, self._contents = script, contents
        self._requests, self._stop_asked = requests, stop
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stop_asked.is_set():
                self.run_once()
        except BaseException as error:  # a mistake of the harness must not look like a calm round
            self.failure = error

    def run_once(self) -> None:
        """Work through the script, as far as `stop` allows."""
        for at, action in enumerate(self._script):
            if not self._requests.wait_until_reachable(self._stop_asked):
                return
            getattr(self, f"_{action.kind}")(action, at)

    # Pushes

    def _push(self, action: Action, at: int) -> None:
        image = self._image(action)
        if self._push_image(action, image, action.arguments["tag"]):
            return
        if action.arguments["again"] and self._requests.wait_until_reachable(self._stop_asked):
            self._push_image(action, image, action.arguments["tag"])

    def _keep(self, action: Action, at: int) -> None:
        """Push under a tag that nobody moves or deletes."""
        self._push_image(action, self._image(action), f"keep-{action.arguments['label']}")

    def _release(self, action: Action, at: int) -> None:
        """Push under a version, which may be another image's already."""
        self._push_image(action, self._image(action), action.arguments["tag"])

    def _push_image(self, action: Action, image: Image, tag: str | None) -> bool:
        """Whether all of it was acknowledged."""
        for blob in image.blobs:
            if not self._push_blob(action.repository, blob, action.arguments["how"]):
                return False
        reply = self._requests.put_manifest(action.repository, image, tag)
        return reply is not None and reply.status == 201

    def _push_blob(self, name: str, blob: Content, how: str) -> bool:
        if how != "monolithic" and self._requests.holds(name, blob):
            return True
        if how == "monolithic":
            reply = self._requests.post_blob(name, blob)
        elif how == "direct":
            reply = self._send_direct(name, blob)
        else:
            place = self._requests.begin_upload(name, blob.digest)
            if place is None:
                return False
            reply = getattr(self, f"_send_{how}")(name, blob, place)
        return reply is not None and reply.status == 201

    def _send_direct(self, name: str, blob: Content) -> Any:
        """Into the store, in parts; then ask until it is a blob."""
        upload = self._requests.announce(name, blob)
        if upload is None or upload["state"] != "open":
            return None
        for number in range(1, upload["partCount"] + 1):
            if number in upload["received"]:
                continue
            if not self._requests.put_part(name, blob, upload, number):
                return None
        for _ in range(LOOKS):
            reply = self._requests.complete(name, blob, upload)
            if reply is None or reply.status != 202 or self._stop_asked.wait(0.2):
                return reply
        return None

    def _send_post_put(self, name: str, blob: Content, place: str) -> Any:
        return self._requests.finish_upload(name, blob, place, 0)

    def _send_chunked(self, name: str, blob: Content, place: str) -> Any:
        at, step = 0, max(1, len(blob.raw) // CHUNKS)
        for stop in range(step, len(blob.raw), step):
            following = self._requests.chunk(name, blob, place, at, stop)
            if following is None:
                return None
            at, place = stop, following
        return self._requests.finish_upload(name, blob, place, at)

    def _send_streamed(self, name: str, blob: Content, place: str) -> Any:
        step = 64 * 1024
        pieces = (blob.raw[at : at + step] for at in range(0, len(blob.raw), step))
        following = self._requests.stream(name, blob, place, pieces)
        if following is None:
            return None
        return self._requests.finish_upload(name, blob, following, len(blob.raw))

    def _send_resumed(self, name: str, blob: Content, place: str) -> Any:
        """Half of it; then ask, whatever became of that, and go on from the answer."""
        if len(blob.raw) < 2:
            return self._send_post_put(name, blob, place)
        self._requests.chunk(name, blob, place, 0, len(blob.raw) // 2)
        if not self._requests.wait_until_reachable(self._stop_asked):
            return None
        held = self._requests.offset(name, blob, place)
        if held is None or held > len(blob.raw):
            return None
        return self._requests.finish_upload(name, blob, place, held if held > 1 else 0)

    def _refer(self, action: Action, at: int) -> None:
        """Attach a note to an image that was kept before, or to one that nobody pushed."""
        kept = [one for one in self._earlier(action, at) if one.kind == "keep"]
        subject = self._image(kept[-1] if kept else action)
        note = self._contents.note(action.arguments["label"], subject)
        for blob in note.blobs:
            if not self._push_blob(action.repository, blob, "post_put"):
                return
        more = {"subject": subject.manifest.digest, "is_kept": bool(kept)}
        self._requests.put_manifest(action.repository, note, None, **more)

    def _index(self, action: Action, at: int) -> None:
        images = tuple(self._image(one) for one in self._earlier(action, at)[-2:])
        if images:
            label = action.arguments["label"]
            tag = f"keep-{label}" if action.arguments["again"] else None
            self._requests.put_manifest(action.repository, self._contents.index(label, images), tag)

    # What changes what is there

    def _retag(self, action: Action, at: int) -> None:
        if image := self._back(action, at):
            self._requests.put_manifest(action.repository, image, action.arguments["tag"])

    def _delete_tag(self, action: Action, at: int) -> None:
        tag = action.arguments["tag"]
        self._requests.delete("delete tag", action.repository, f"manifests/{tag}", tag)

    def _delete_manifest(self, action: Action, at: int) -> None:
        if image := self._back(action, at):
            digest = image.manifest.digest
            self._requests.delete(
                "delete manifest", action.repository, f"manifests/{digest}", digest
            )

    def _delete_blob(self, action: Action, at: int) -> None:
        digest = self._shared(action).digest
        self._requests.delete("delete blob", action.repository, f"blobs/{digest}", digest)

    def _mount(self, action: Action, at: int) -> None:
        source = action.arguments["source"]
        if action.repository.startswith("bob/") and source != action.repository:
            source = PUBLIC
        self._requests.mount(action.repository, self._shared(action), source)

    def _log(self, action: Action, at: int) -> None:
        said = Statement(
            "cube",
            Digest.parse(self._image(action).manifest.digest),
            "https://example.org/chaos",
            {"label": f"{self._contents.seed}/{action.arguments['label']}"},
        )
        submission = {
            "repository": action.repository,
            "envelope": sign(said, ALICE).envelope.to_json(),
            "publicKey": base64.b64encode(ALICE.public_key.der).decode(),
        }
        self._requests.add_log_entry(action.repository, submission)

    # Uploads that come to nothing

    def _abandon(self, action: Action, at: int) -> None:
        blob = self._unfinished(action)
        if place := self._requests.begin_upload(action.repository, blob.digest):
            self._requests.chunk(action.repository, blob, place, 0, len(blob.raw))

    def _hang_up(self, action: Action, at: int) -> None:
        blob = self._unfinished(action)
        if place := self._requests.begin_upload(action.repository, blob.digest):
            self._requests.hang_up(action.repository, blob, place)

    def _cancel(self, action: Action, at: int) -> None:
        blob = self._unfinished(action)
        place = self._requests.begin_upload(action.repository, blob.digest)
        if place and self._requests.chunk(action.repository, blob, place, 0, len(blob.raw)):
            path = place.partition(f"/v2/{action.repository}/")[2]
            self._requests.delete("cancel upload", action.repository, path, blob.digest)

    # Pulls

    def _pull(self, action: Action, at: int) -> None:
        reply = self._requests.read_tag(action.repository, action.arguments["tag"])
        if reply is None or reply.status != 200:
            return
        body = json.loads(reply.body)
        for descriptor in [body.get("config"), *body.get("layers", ())]:
            if descriptor:
                self._requests.read_blob(
                    action.repository, descriptor["digest"], descriptor["size"]
                )

    def _pull_range(self, action: Action, at: int) -> None:
        blob = self._shared(action)
        start = int(action.arguments["share"] * (len(blob.raw) - 1))
        self._requests.read_range(action.repository, blob, start, len(blob.raw))

    # What the plan names

    def _image(self, action: Action) -> Image:
        given = action.arguments
        return self._contents.image(given["label"], given["size"], given["shared"])

    def _shared(self, action: Action) -> Content:
        return self._contents.shared(action.arguments["shared"])

    def _unfinished(self, action: Action) -> Content:
        given = action.arguments
        return self._contents.blob(f"unfinished/{given['label']}", max(2, given["size"]))

    def _earlier(self, action: Action, at: int) -> list[Action]:
        """Pushes of the script to the same repository before `at`."""
        return [
            one
            for one in self._script[:at]
            if one.kind in _PUSHES and one.repository == action.repository
        ]

    def _back(self, action: Action, at: int) -> Image | None:
        """The image that was pushed `back` pushes ago, and is not kept."""
        found = [one for one in self._earlier(action, at) if one.kind != "keep"]
        return self._image(found[-1 - action.arguments["back"] % len(found)]) if found else None
