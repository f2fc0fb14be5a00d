"""One request at a time, each noted in the journal: the vocabulary of the HTTP clients."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from support.repository import Repository, with_query
from support.wire import Reply, Wire

from chaos.contents import Content, Image, digest_of
from chaos.journal import Event, Journal, Outcome

POLL_S = 0.05


@dataclass(frozen=True)
class Endpoints:
    """Where the replicas answer, and the tokens of the accounts."""

    urls: tuple[str, ...]
    tokens: dict[str, str]

    def repository(self, name: str, replica: int) -> Repository:
        url = self.urls[replica % len(self.urls)]
        return Repository(Wire(url).bearer(self.tokens[name.partition("/")[0]]), name)


class Requests:
    """Sends requests for one client and notes what became of them."""

    def __init__(
        self, round_number: int, client: str, endpoints: Endpoints, journal: Journal, replica: int
    ) -> None:
        self._round, self._client = round_number, client
        self._endpoints, self._journal = endpoints, journal
        self.replica = replica

    def repository(self, name: str) -> Repository:
        """`name` at the replica that this client talks to at present."""
        return self._endpoints.repository(name, self.replica)

    def wait_until_reachable(self, stop: threading.Event) -> bool:
        """Whether some replica answers before `stop`; the client goes on there."""
        while not stop.is_set():
            try:
                wire = self.repository("ada/one").wire
                if replace(wire, authorization=None).get("/healthz", timeout_s=5).status == 200:
                    return True
            except (OSError, http.client.HTTPException):
                pass
            self.replica += 1
            time.sleep(POLL_S)
        return False

    def attempt(
        self,
        operation: str,
        repository: str,
        key: str,
        call: Callable[[], Reply],
        value: str = "",
        good: tuple[int, ...] = (200, 201, 202, 204, 206),
        unsure: tuple[int, ...] = (),
        note: Callable[[Reply], dict[str, Any]] = lambda _: {},
        **more: Any,
    ) -> Reply | None:
        """The answer to `call`, if there is one; the journal knows what it means."""
        start, status, reply = self._journal.now(), 0, None
        try:
            reply = call()
            status = reply.status
            outcome = Outcome.REFUSED
            if status in good:
                outcome, more = Outcome.ACKNOWLEDGED, more | note(reply)
            elif status >= 500 or status in unsure:
                outcome = Outcome.UNKNOWN
        except ConnectionRefusedError:
            outcome = Outcome.REFUSED
        except (OSError, http.client.HTTPException) as error:
            outcome, more = Outcome.UNKNOWN, more | {"error": type(error).__name__}
        if reply is not None and status >= 400:
            more = more | {"answer": reply.body[:300].decode("utf-8", "replace")}
        self._journal.write(
            Event(
                self._round,
                self._client,
                operation,
                repository,
                key,
                str(more.pop("value", value)),
                start,
                self._journal.now(),
                outcome,
                status,
                more,
            )
        )
        return reply

    def begin_upload(self, name: str, key: str) -> str | None:
        """Where a new upload lies."""
        reply = self.attempt("begin upload", name, key, self.repository(name).start_upload)
        return reply.header("Location") if reply is not None and reply.status == 202 else None

    def chunk(self, name: str, blob: Content, place: str, start: int, stop: int) -> str | None:
        """Send bytes `start` to `stop`; where the upload goes on."""
        piece = blob.raw[start:stop]
        reply = self.attempt(
            "send chunk",
            name,
            blob.digest,
            lambda: self.repository(name).patch(place, piece, start=start),
            upload=place.partition("?")[0],
            stop=stop,
        )
        return reply.header("Location") if reply is not None and reply.status == 202 else None

    def stream(self, name: str, blob: Content, place: str, pieces: Iterator[bytes]) -> str | None:
        """Send `pieces` without saying how many there are."""
        reply = self.attempt(
            "send stream",
            name,
            blob.digest,
            lambda: self.repository(name).patch(place, pieces),
            upload=place.partition("?")[0],
        )
        return reply.header("Location") if reply is not None and reply.status == 202 else None

    def offset(self, name: str, blob: Content, place: str) -> int | None:
        """How many bytes the upload holds, as the registry says."""
        reply = self.attempt(
            "ask upload",
            name,
            blob.digest,
            lambda: self.repository(name).wire.get(place),
            note=lambda reply: {"held": _held(reply)},
            upload=place.partition("?")[0],
        )
        return _held(reply) if reply is not None and reply.status == 204 else None

    def finish_upload(self, name: str, blob: Content, place: str, start: int) -> Reply | None:
        """Send the rest from `start` on, and turn the upload into a blob."""
        rest = blob.raw[start:]
        return self.attempt(
            "put blob",
            name,
            blob.digest,
            lambda: self.repository(name).finish_upload(
                place, blob.digest, rest, start=start if rest and start else None
            ),
            blob.digest,
        )

    def post_blob(self, name: str, blob: Content) -> Reply | None:
        """The whole blob in one request."""
        return self.attempt(
            "put blob",
            name,
            blob.digest,
            lambda: self.repository(name).post_blob(blob.raw, blob.digest),
            blob.digest,
        )

    def announce(self, name: str, blob: Content) -> dict[str, Any] | None:
        """The direct upload of the blob, as the registry sees it."""
        wanted = {"repository": name, "digest": blob.digest, "sizeBytes": len(blob.raw)}
        reply = self._ask(name, "announce upload", blob, "/api/v1/uploads", wanted, note=_state)
        return reply.json() if reply is not None and reply.status == 200 else None

    def put_part(self, name: str, blob: Content, upload: dict[str, Any], number: int) -> bool:
        """Whether the store took part `number`."""
        start = (number - 1) * upload["partBytes"]
        piece = blob.raw[start : start + upload["partBytes"]]
        part = {"number": number}
        if upload["partSha256"]:
            part["sha256"] = hashlib.sha256(piece).hexdigest()
        path = f"/api/v1/uploads/{upload['id']}/requests"
        reply = self._ask(name, "sign part", blob, path, {"parts": [part]})
        if reply is None or reply.status != 200:
            return False
        (signed,) = reply.json()["requests"]
        wire, target = _elsewhere(signed["url"])
        put = self.attempt(
            "put part",
            name,
            blob.digest,
            lambda: wire.put(target, body=piece, headers=signed["headers"]),
        )
        return put is not None and put.status in (200, 201, 412)

    def complete(self, name: str, blob: Content, upload: dict[str, Any]) -> Reply | None:
        """Make a direct upload a blob; 202: the registry still reads it, and may end without us."""
        path = f"/api/v1/uploads/{upload['id']}/completion"
        more = {"value": blob.digest, "good": (201,), "unsure": (202,)}
        return self._ask(name, "put blob", blob, path, {}, **more)

    def _ask(
        self, name: str, operation: str, blob: Content, path: str, document: object, **more: Any
    ) -> Reply | None:
        """POST to the API."""
        wire, body = self.repository(name).wire, json.dumps(document).encode()
        return self.attempt(
            operation,
            name,
            blob.digest,
            lambda: wire.post(path, body=body, headers={"Content-Type": "application/json"}),
            **more,
        )

    def holds(self, name: str, blob: Content) -> bool:
        """Whether the registry says that it holds the blob."""
        reply = self.attempt(
            "look for blob",
            name,
            blob.digest,
            lambda: self.repository(name).head_blob(blob.digest),
        )
        return reply is not None and reply.status == 200

    def put_manifest(self, name: str, image: Image, tag: str | None, **more: Any) -> Reply | None:
        """Push the manifest under its digest, or under `tag`."""
        manifest = image.manifest
        return self.attempt(
            "put manifest",
            name,
            manifest.digest,
            lambda: self.repository(name).put_manifest(
                tag or manifest.digest, manifest.raw, manifest.media_type
            ),
            manifest.digest,
            tag=tag,
            **more,
        )

    def read_tag(self, name: str, tag: str) -> Reply | None:
        """The manifest that `tag` names now."""
        return self.attempt(
            "read tag",
            name,
            tag,
            lambda: self.repository(name).get_manifest(tag),
            good=(200, 404),
            note=lambda reply: {"value": digest_of(reply.body) if reply.status == 200 else ""},
        )

    def read_blob(self, name: str, digest: str, size: int) -> None:
        """Fetch the whole blob; whether its bytes are the right ones is noted."""
        self.attempt(
            "read blob",
            name,
            digest,
            lambda: fetched(self.repository(name), digest),
            note=lambda reply: {
                "value": digest_of(reply.body) if len(reply.body) == size else "another size"
            },
        )

    def read_range(self, name: str, blob: Content, start: int, stop: int) -> None:
        """Fetch a part of the blob."""
        wanted = blob.raw[start:stop]
        self.attempt(
            "read range",
            name,
            blob.digest,
            lambda: fetched(self.repository(name), blob.digest, f"bytes={start}-{stop - 1}"),
            note=lambda reply: {"value": blob.digest if reply.body == wanted else "other bytes"},
        )

    def delete(self, operation: str, name: str, target: str, key: str) -> Reply | None:
        """DELETE of `target` below the repository."""
        wire, path = self.repository(name).wire, self.repository(name).path(target)
        return self.attempt(operation, name, key, lambda: wire.delete(path))

    def mount(self, name: str, blob: Content, source: str) -> None:
        """Link the blob of `source`; 202 means that it was not."""
        self.attempt(
            "mount blob",
            name,
            blob.digest,
            lambda: self.repository(name).mount(blob.digest, source),
            blob.digest,
            good=(201,),
        )

    def add_log_entry(self, name: str, submission: dict[str, Any]) -> None:
        """Have a signed statement logged; the promise is noted."""
        body = json.dumps(submission).encode()
        headers = {"Content-Type": "application/json"}
        self.attempt(
            "log entry",
            name,
            "",
            lambda: self.repository(name).wire.post(
                "/api/v1/log/entries", body=body, headers=headers
            ),
            note=_promise,
        )

    def hang_up(self, name: str, blob: Content, place: str) -> None:
        """Announce the whole blob, send half of it, and be gone."""
        target = with_query(place, digest=blob.digest)
        wire = self.repository(name).wire
        head = (
            f"PUT {target} HTTP/1.1\r\nHost: {wire.netloc}\r\nAuthorization: {wire.authorization}"
            f"\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(blob.raw)}\r\n\r\n"
        )
        start, outcome = self._journal.now(), Outcome.UNKNOWN
        try:
            with wire.connect() as connection:
                connection.sendall(head.encode() + blob.raw[: len(blob.raw) // 2])
        except ConnectionRefusedError:
            outcome = Outcome.REFUSED
        except OSError:
            pass
        # Half of the bytes were sent: whatever happens, the blob must not become visible by it.
        event = (self._round, self._client, "hang up", name, blob.digest, "")
        self._journal.write(Event(*event, start, self._journal.now(), outcome))


def fetched(repository: Repository, digest: str, range_header: str | None = None) -> Reply:
    """The answer to a GET of a blob, from where it was redirected to if it was."""
    reply = repository.get_blob(digest, range_header)
    if reply.status != 307:
        return reply
    wire, target = _elsewhere(reply.header("Location") or "")
    return wire.get(target, headers={"Range": range_header} if range_header else {})


def _elsewhere(url: str) -> tuple[Wire, str]:
    """Another server, asked without credentials, and the target there."""
    place = urlsplit(url)
    return Wire(f"{place.scheme}://{place.netloc}"), f"{place.path}?{place.query}"


def _held(reply: Reply) -> int:
    """Bytes that an upload holds: `Range: 0-0` is said of none and of one."""
    return int((reply.header("Range") or "0-0").partition("-")[2]) + 1


def _promise(reply: Reply) -> dict[str, Any]:
    """What the log said of an entry: its number, leaf, and the checkpoint that it is proved in."""
    said = reply.json()
    proof = said["inclusionProof"]
    return {
        "value": digest_of(b"\0" + base64.b64decode(said["canonicalizedBody"])),
        "index": int(said["logIndex"]),
        "size": int(proof["treeSize"]),
        "root": base64.b64decode(proof["rootHash"]).hex(),
        "hashes": [base64.b64decode(each).hex() for each in proof["hashes"]],
    }


def _state(reply: Reply) -> dict[str, Any]:
    return {"state": reply.json()["state"]}
