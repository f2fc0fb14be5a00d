"""A small OCI registry that has the habits of foreign ones: each is a switch, and all of it is in memory.

    with quirky(Quirks(mount=False, patch_status=201)) as registry:
        Registry(registry.host, ...)

Uploads, blobs and tokens can lie on further origins (other ports), as behind a CDN.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from memcube_protocol.digest import Digest

from support.scripted import Answer, Received, Scripted, scripted

INDEX = "application/vnd.oci.image.index.v1+json"
USER, PASSWORD = "ann", "s3cret-of-ann"
_PATH = re.compile(r"/v2/(.+)/(blobs/uploads|blobs|manifests|referrers|tags)/([^/]*)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Quirks:
    """How this registry differs from what one would like it to be."""

    referrers: bool = True
    """Has the referrers API; else its clients keep the index under the fallback tag."""
    mount: bool = True
    """Mounts; else it answers a mount with an upload session."""
    patch_status: int = 202
    patch_location: bool = True
    """Says after a chunk where the session goes on."""
    put_status: int = 201
    """The answer to a whole blob."""
    manifest_status: int = 201
    delete_status: int = 202
    patch_range: bool = True
    """Tells in the answer to a chunk how far the session is."""
    patches: int | None = None
    """So many chunks a session takes; further ones are refused with `patch_refusal`."""
    patch_refusal: int = 416
    keeps_of_chunk: float = 1.0
    """The part of the first chunk of a session that it keeps; it tells so in `Range`."""
    loses_first_answer: bool = False
    """Keeps the first chunk that ever comes and answers 500, so that the client has to ask."""
    min_chunk_bytes: int = 0
    location: Literal["absolute", "relative", "elsewhere"] = "absolute"
    moving_location: bool = False
    """Each answer names another address of the session; older ones are not known any more."""
    location_refusals: int = 0
    """So many requests to upload addresses are answered with `location_refusal`."""
    location_refusal: int = 401
    digest_check: bool = True
    """Compares what was uploaded with its digest, as it has to."""
    upload_status: bool = True
    """Tells how far a session is; else 405."""
    blob_redirect: bool = False
    """Sends readers of blobs to signed addresses elsewhere."""
    blob_head: bool = True
    manifest_head: int | None = None
    """Status of every answer to HEAD of a manifest."""
    digest_header: bool = True
    type_parameters: str = ""
    """Follows the content type of a manifest."""
    tags_page: int = 0
    link: Literal["relative", "absolute", "elsewhere"] = "relative"
    busy: int = 0
    """Of so many requests the first is answered 429."""
    retry_after: Literal["seconds", "date"] = "seconds"
    login: Literal["none", "basic", "token", "anonymous"] = "none"
    token_uses: int = 0
    """A token is taken so many times, whatever life it was given; 0: always."""
    grants: str = "pull,push,delete,*"
    """Actions that the token server grants, of those asked for."""
    refuses_scope: str = ""
    """The token server refuses a request whose scopes hold this text."""


@dataclass
class Repository:
    """What one repository holds."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Session:
    """An upload: its bytes, the chunks that came, and the address at which it goes on."""

    name: str
    content: bytearray = field(default_factory=bytearray)
    patches: int = 0
    nonce: str = ""


@dataclass
class Token:
    """What a token allows, and how often it was taken."""

    scopes: tuple[str, ...]
    uses: int = 0


class QuirkyRegistry:
    """The registry: `main`, `storage` (uploads and blobs elsewhere) and `realm` (tokens) are its servers.

    `before` is called with each request to `main` and may answer in its place.
    """

    main: Scripted
    storage: Scripted
    realm: Scripted

    def __init__(self, quirks: Quirks) -> None:
        self.quirks = quirks
        self.repositories: dict[str, Repository] = {}
        self.sessions: dict[str, Session] = {}
        self.tokens: dict[str, Token] = {}
        self.before: Callable[[Received], Answer | None] = lambda request: None
        self._lock = threading.RLock()
        self._asked = self._refused = 0
        self._lost = False

    @property
    def host(self) -> str:
        return self.main.host

    @property
    def url(self) -> str:
        return self.main.url

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    def index_of(self, name: str, subject: Digest) -> list[str]:
        """Digests under the fallback tag of `subject`."""
        repository = self.repository(name)
        digest = repository.tags.get(f"{subject.algorithm}-{subject.hex}")
        if digest is None:
            return []
        return [e["digest"] for e in json.loads(repository.manifests[digest][1])["manifests"]]

    def answer(self, request: Received) -> Answer:
        """The answer of `main`."""
        with self._lock:
            early = self.before(request) or self._busy(request) or self._challenge(request)
            return early or self._route(request)

    def store(self, request: Received) -> Answer:
        """The answer of `storage`: addresses there are signed, and credentials are nobody's business."""
        assert "authorization" not in request.headers, "credentials were sent to another host"
        with self._lock:
            return self._route(request)

    def grant(self, request: Received) -> Answer:
        """The answer of `realm`: a token for the scopes, to whoever is allowed to ask."""
        pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        given = request.headers.get("authorization")
        if self.quirks.login == "anonymous":
            assert given is None
        elif given != f"Basic {pair}":
            return Answer(401)
        scopes = [v for k, v in parse_qsl(urlsplit(request.path).query) if k == "scope"]
        if self.quirks.refuses_scope and any(self.quirks.refuses_scope in one for one in scopes):
            return Answer(403)
        token = secrets.token_hex(8)
        self.tokens[token] = Token(tuple(scopes))
        return _json({"access_token": token, "expires_in": 300})

    def _busy(self, request: Received) -> Answer | None:
        self._asked += 1
        if not self.quirks.busy or self._asked % self.quirks.busy != 1:
            return None
        moment = datetime.now(UTC) - timedelta(seconds=1)
        date = format_datetime(moment, usegmt=True)
        wait = "0" if self.quirks.retry_after == "seconds" else date
        return Answer(429, {"Retry-After": wait}, _error("TOOMANYREQUESTS"))

    def _challenge(self, request: Received) -> Answer | None:
        login, given = self.quirks.login, request.headers.get("authorization", "")
        if login == "none":
            return None
        if login == "basic":
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            challenge = 'Basic realm="quirky"'
            return None if given == f"Basic {pair}" else _unauthorized(challenge)
        found = _PATH.match(urlsplit(request.path).path)
        name = found[1] if found else ""
        token = self.tokens.get(given.removeprefix("Bearer "))
        if token and self._allows(token, request.method, name):
            token.uses += 1
            return None
        action = "pull" if request.method in ("GET", "HEAD") else "pull,push"
        scope = f',scope="repository:{name}:{action}"' if name else ""
        return _unauthorized(f'Bearer realm="{self.realm.url}/token?x=1",service="quirky"{scope}')

    def _allows(self, token: Token, method: str, name: str) -> bool:
        if self.quirks.token_uses and token.uses >= self.quirks.token_uses:
            return False
        needed = "pull" if method in ("GET", "HEAD") else "delete" if method == "DELETE" else "push"
        held = {tuple(scope.split(":")) for scope in token.scopes}
        acts = {act for _, one, acts in held for act in acts.split(",") if one == name}
        return not name or (needed in acts and needed in self.quirks.grants)

    def _route(self, request: Received) -> Answer:
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path in ("/v2/", "/v2"):
            return _json({})
        if parts.path == "/v2/_catalog":
            return self._page("repositories", sorted(self.repositories), parts.path, query)
        found = _PATH.match(parts.path)
        if found is None:
            return Answer(404)
        name, kind, rest = found[1], found[2], found[3]
        handle = {
            "blobs/uploads": self._upload,
            "blobs": self._blob,
            "manifests": self._manifest,
            "referrers": self._referrers,
            "tags": self._tags,
        }[kind]
        return handle(request, name, rest, query)

    def _upload(self, request: Received, name: str, rest: str, query: Mapping[str, str]) -> Answer:
        if request.method == "POST":
            return self._begin(name, query)
        if self._refused < self.quirks.location_refusals:
            self._refused += 1
            return Answer(self.quirks.location_refusal)
        session = self.sessions.get(rest)
        if session is None or session.nonce != query.get("state", ""):
            return Answer(404, {}, _error("BLOB_UPLOAD_UNKNOWN"))
        if request.method == "GET":
            held = f"0-{max(len(session.content) - 1, 0)}"
            return self._go_on(204, rest, held) if self.quirks.upload_status else Answer(405)
        if request.method == "DELETE":
            del self.sessions[rest]
            return Answer(204)
        if request.method == "PATCH":
            return self._append(request, rest, session)
        return self._finish(request, rest, session, query)

    def _begin(self, name: str, query: Mapping[str, str]) -> Answer:
        source = self.repositories.get(query.get("from", ""))
        digest = query.get("mount", "")
        if self.quirks.mount and source and digest in source.blobs:
            self.repository(name).blobs[digest] = source.blobs[digest]
            return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}"})
        upload = secrets.token_hex(4)
        self.sessions[upload] = Session(name)
        return self._go_on(202, upload, None)

    def _append(self, request: Received, upload: str, session: Session) -> Answer:
        start = int(request.headers["content-range"].partition("-")[0])
        if start != len(session.content):
            return self._go_on(416, upload, None)
        if self.quirks.patches is not None and session.patches >= self.quirks.patches:
            return self._go_on(self.quirks.patch_refusal, upload, None)
        if len(request.body) < self.quirks.min_chunk_bytes:
            return Answer(400, {}, _error("SIZE_INVALID"))
        session.patches += 1
        kept = int(len(request.body) * self.quirks.keeps_of_chunk) if session.patches == 1 else None
        session.content += request.body[:kept]
        if self.quirks.loses_first_answer and not self._lost:
            self._lost = True
            return Answer(500)
        held = f"0-{len(session.content) - 1}" if self.quirks.patch_range else None
        return self._go_on(self.quirks.patch_status, upload, held)

    def _finish(
        self, request: Received, upload: str, session: Session, query: Mapping[str, str]
    ) -> Answer:
        content = bytes(session.content) + request.body
        digest = Digest.parse(query["digest"])
        wrong = Digest.of(content, digest.algorithm) != digest
        if wrong and self.quirks.digest_check:
            return Answer(400, {}, _error("DIGEST_INVALID"))
        del self.sessions[upload]
        self.repository(session.name).blobs[str(digest)] = content
        location = {"Location": f"/v2/{session.name}/blobs/{digest}"}
        return Answer(self.quirks.put_status, location)

    def _go_on(self, status: int, upload: str, held: str | None) -> Answer:
        """An answer about a session that says where it goes on."""
        session = self.sessions[upload]
        if self.quirks.moving_location:
            session.nonce = secrets.token_hex(4)
        query = f"?{urlencode({'state': session.nonce, 'x': 'a/b=c'})}" if session.nonce else ""
        path = f"/v2/{session.name}/blobs/uploads/{upload}{query}"
        prefix = {"absolute": self.url, "relative": "", "elsewhere": self.storage.url}
        told = session.patches == 0 or self.quirks.patch_location
        headers = {"Location": prefix[self.quirks.location] + path} if told else {}
        if held is not None:
            headers["Range"] = held
        if self.quirks.min_chunk_bytes and status == 202 and session.patches == 0:
            headers["OCI-Chunk-Min-Length"] = str(self.quirks.min_chunk_bytes)
        return Answer(status, headers)

    def _blob(self, request: Received, name: str, rest: str, query: Mapping[str, str]) -> Answer:
        content = self.repository(name).blobs.get(rest)
        if request.method == "HEAD" and not self.quirks.blob_head:
            return Answer(405)
        if content is None:
            return Answer(404, {}, _error("BLOB_UNKNOWN"))
        if self.quirks.blob_redirect and "signature" not in query:
            return Answer(307, {"Location": f"{self.storage.url}{request.path}?signature=a%2Fb"})
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted is None:
            return Answer(200, {"Content-Type": "application/octet-stream"}, content)
        start, stop = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return Answer(206, headers, content[start:stop])

    def _manifest(
        self, request: Received, name: str, rest: str, query: Mapping[str, str]
    ) -> Answer:
        repository = self.repository(name)
        if request.method == "PUT":
            return self._put_manifest(request, name, rest)
        if request.method == "HEAD" and self.quirks.manifest_head is not None:
            return Answer(self.quirks.manifest_head)
        digest = repository.tags.get(rest, rest)
        if digest not in repository.manifests:
            return Answer(404, {}, _error("MANIFEST_UNKNOWN"))
        if request.method == "DELETE":
            return self._delete_manifest(repository, rest)
        media_type, content = repository.manifests[digest]
        headers = {"Content-Type": media_type + self.quirks.type_parameters}
        if self.quirks.digest_header:
            headers["Docker-Content-Digest"] = digest
        return Answer(200, headers, content)

    def _put_manifest(self, request: Received, name: str, target: str) -> Answer:
        repository, digest = self.repository(name), str(Digest.of(request.body))
        value = json.loads(request.body)
        named = [value["config"], *value["layers"]] if "config" in value else []
        held = {**repository.blobs, **repository.manifests}
        if any(one["digest"] not in held for one in [*named, *value.get("manifests", ())]):
            return Answer(404, {}, _error("MANIFEST_BLOB_UNKNOWN"))
        repository.manifests[digest] = (request.headers["content-type"], request.body)
        if ":" not in target:
            repository.tags[target] = digest
        headers = {"Location": f"/v2/{name}/manifests/{digest}"}
        if self.quirks.digest_header:
            headers["Docker-Content-Digest"] = digest
        if self.quirks.referrers and "subject" in value:
            headers["OCI-Subject"] = value["subject"]["digest"]
        return Answer(self.quirks.manifest_status, headers)

    def _delete_manifest(self, repository: Repository, target: str) -> Answer:
        if target in repository.tags:
            del repository.tags[target]
            return Answer(self.quirks.delete_status)
        del repository.manifests[target]
        kept = {tag: one for tag, one in repository.tags.items() if one != target}
        repository.tags = kept
        return Answer(self.quirks.delete_status)

    def _referrers(
        self, request: Received, name: str, rest: str, query: Mapping[str, str]
    ) -> Answer:
        if not self.quirks.referrers:
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found")
        entries = []
        for digest, (media_type, content) in self.repository(name).manifests.items():
            value = json.loads(content)
            if value.get("subject", {}).get("digest") == rest:
                entry = {"mediaType": media_type, "digest": digest, "size": len(content)}
                entry["artifactType"] = value.get("artifactType", "")
                entry["annotations"] = value.get("annotations", {})
                entries.append(entry)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        return _json(index, INDEX)

    def _tags(self, request: Received, name: str, rest: str, query: Mapping[str, str]) -> Answer:
        if name not in self.repositories:
            return Answer(404, {}, _error("NAME_UNKNOWN"))
        tags = sorted(self.repository(name).tags)
        return self._page("tags", tags, f"/v2/{name}/tags/list", query)

    def _page(self, what: str, names: list[str], path: str, query: Mapping[str, str]) -> Answer:
        left = [name for name in names if name > query.get("last", "")]
        limit = self.quirks.tags_page or len(left) or 1
        shown, headers = left[:limit], {}
        if len(left) > limit:
            prefix = {"relative": "", "absolute": self.url, "elsewhere": self.storage.url}
            following = f"{prefix[self.quirks.link]}{path}?{urlencode({'last': shown[-1]})}"
            headers["Link"] = f'<{following}>; rel="next"'
        return Answer(200, headers, json.dumps({what: shown}).encode())


def _json(value: object, media_type: str = "application/json") -> Answer:
    return Answer(200, {"Content-Type": media_type}, json.dumps(value).encode())


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()


def _unauthorized(challenge: str) -> Answer:
    return Answer(401, {"WWW-Authenticate": challenge}, _error("UNAUTHORIZED"))


@contextmanager
def quirky(quirks: Quirks | None = None) -> Iterator[QuirkyRegistry]:
    """A running registry with `quirks`."""
    registry = QuirkyRegistry(quirks or Quirks())
    with ExitStack() as servers:
        registry.main = servers.enter_context(scripted(registry.answer))
        registry.storage = servers.enter_context(scripted(registry.store))
        registry.realm = servers.enter_context(scripted(registry.grant))
        yield registry
