"""What the Hub's test server answers, route by route; see `support.hub`."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from support import hub_commits
from support.hub import Exchange
from support.hub_repositories import Commit, File, Hub, Person, RefusedError, Repository

_KINDS = {"models": "model", "datasets": "dataset"}


def answer(exchange: Exchange) -> None:
    """Answer a request to the Hub."""
    try:
        _route(exchange, _who(exchange))
    except RefusedError as refused:
        headers = {"X-Error-Message": refused.message.encode("ascii", "replace").decode()}
        if refused.code:
            headers["X-Error-Code"] = refused.code
        exchange.body()
        exchange.reply_json({"error": refused.message}, refused.status, headers)
    except (KeyError, ValueError, TypeError) as error:
        exchange.body()
        exchange.reply_json({"error": f"malformed request: {error!r}"}, 400)


def _who(exchange: Exchange) -> Person | None:
    header = exchange.headers.get("Authorization")
    if header is None:
        return None
    who = exchange.server_of.state.people.get(header.removeprefix("Bearer "))
    if who is None:
        raise RefusedError(401, "Invalid credentials in Authorization header")
    return who


def _route(exchange: Exchange, who: Person | None) -> None:
    url = urlsplit(exchange.path)
    parts = url.path.split("/")[1:]
    query = dict(parse_qsl(url.query))
    if parts[0] == "api":
        _api(exchange, who, parts[1:], query)
        return
    kind = _KINDS.get(parts[0], "model")
    rest = parts[1:] if parts[0] in _KINDS else parts
    name, verb = "/".join(rest[:2]), rest[2] if len(rest) > 2 else ""
    if name.endswith(".git") and rest[2:] == ["info", "lfs", "objects", "batch"]:
        _batch(exchange, who, kind, name.removesuffix(".git"))
    elif name.endswith(".git") and rest[2:] == ["info", "lfs", "objects", "verify"]:
        _verify(exchange, who, kind, name.removesuffix(".git"))
    elif verb == "resolve" and len(rest) > 4:
        path = unquote("/".join(rest[4:]))
        _resolve(exchange, who, kind, name, unquote(rest[3]), path)
    else:
        raise RefusedError(404, f"no such page: {url.path}")


def _api(exchange: Exchange, who: Person | None, parts: list[str], query: dict[str, str]) -> None:
    match parts:
        case ["whoami-v2"]:
            _whoami(exchange, who)
        case ["validate-yaml"]:
            content = json.loads(exchange.body())["content"]
            hub_commits.require_card(content.encode())
            exchange.reply_json({"errors": [], "warnings": []})
        case ["repos", ("create" | "delete") as verb]:
            _repos(exchange, who, verb, json.loads(exchange.body()))
        case [kinds] if kinds in _KINDS:
            _list(exchange, who, kinds, query)
        case ["complete_multipart"]:
            _complete(exchange, query)
        case ["resolve-cache", kinds, owner, name, commit, *path]:
            repository = _state(exchange).files_of(_KINDS[kinds], f"{owner}/{name}", who)
            _regular(exchange, repository, repository.at(commit), unquote("/".join(path)))
        case [kinds, owner, name, *rest] if kinds in _KINDS:
            _repository(exchange, who, _KINDS[kinds], f"{owner}/{name}", rest, query)
        case _:
            raise RefusedError(404, f"no such page: {exchange.path}")


def _state(exchange: Exchange) -> Hub:
    return exchange.server_of.state


def _list(exchange: Exchange, who: Person | None, kinds: str, query: dict[str, str]) -> None:
    """Repositories that `who` may see, of one author, with one tag of their cards, in pages."""
    state, limit = _state(exchange), int(query.get("limit", "100"))
    found = [
        one
        for (kind, name), one in sorted(state.repositories.items())
        if kind == _KINDS[kinds]
        and name.partition("/")[0] == query.get("author", name.partition("/")[0])
        and (not one.private or (who is not None and who.is_of(name.partition("/")[0])))
        and query.get("filter", "") in ("", *hub_commits.card_tags(one))
    ]
    start = int(query.get("cursor", "0"))
    headers = {}
    if start + limit < len(found):
        more = urlencode(query | {"cursor": str(start + limit)})
        url = f"{exchange.server_of.url}/api/{kinds}?{more}"
        headers["Link"] = f'<{url}>; rel="next"'
    page = [{"id": one.name, "private": one.private} for one in found[start : start + limit]]
    exchange.reply_json(page, headers=headers)


def _whoami(exchange: Exchange, who: Person | None) -> None:
    if who is None:
        raise RefusedError(401, "Invalid username or password.")
    found = {
        "type": "user",
        "name": who.name,
        "orgs": [{"name": name, "roleInOrg": "write"} for name in who.organisations],
        "auth": {"accessToken": {"displayName": "test", "role": who.role}},
    }
    exchange.reply_json(found)


def _repos(exchange: Exchange, who: Person | None, verb: str, body: dict[str, Any]) -> None:
    state = _state(exchange)
    owner = body.get("organization") or (who.name if who else "")
    kind, name = body.get("type") or "model", f"{owner}/{body['name']}"
    state.require_writer(owner, who)
    url = f"{exchange.server_of.url}/{'' if kind == 'model' else kind + 's/'}{name}"
    if verb == "delete":
        with state.lock:
            if state.repositories.pop((kind, name), None) is None:
                raise RefusedError(404, "Repository not found", "RepoNotFound")
        exchange.reply_json({})
        return
    private = body.get("private") or body.get("visibility") == "private"
    try:
        state.create(kind, name, private=bool(private))
    except RefusedError as refused:
        exchange.reply_json({"error": refused.message, "url": url}, refused.status)
        return
    exchange.reply_json({"url": url, "name": name, "id": name})


def _repository(
    exchange: Exchange,
    who: Person | None,
    kind: str,
    name: str,
    rest: list[str],
    query: dict[str, str],
) -> None:
    state, method = _state(exchange), exchange.command
    if method in ("POST", "PUT", "DELETE") and rest[0] != "paths-info":
        _change(exchange, state.writable(kind, name, who), rest)
        return
    repository = state.readable(kind, name, who)
    match rest:
        case []:
            exchange.reply_json(_info(repository, repository.head, query))
        case ["revision", revision]:
            exchange.reply_json(_info(repository, repository.at(unquote(revision)), query))
        case ["refs"]:
            exchange.reply_json(hub_commits.refs(repository))
        case ["tree", revision, *folder]:
            commit = repository.at(unquote(revision))
            _tree(exchange, repository, commit, unquote("/".join(folder)), query)
        case ["paths-info", revision]:
            asked = parse_qs(exchange.body().decode()).get("paths", [])
            files = repository.at(unquote(revision)).files
            exchange.reply_json([files[path].to_json(path) for path in asked if path in files])
        case _:
            raise RefusedError(404, f"no such page: {exchange.path}")


def _change(exchange: Exchange, repository: Repository, rest: list[str]) -> None:
    state, body = _state(exchange), exchange.body()
    match exchange.command, rest:
        case "POST", ["preupload", revision]:
            asked = json.loads(body)
            exchange.reply_json(hub_commits.preupload(state, repository, unquote(revision), asked))
        case "POST", ["commit", branch]:
            made = hub_commits.commit(state, repository, unquote(branch), body)
            url = f"{exchange.server_of.url}/{repository.name}/commit/{made.oid}"
            exchange.reply_json({"success": True, "commitOid": made.oid, "commitUrl": url})
        case "POST", ["tag", revision]:
            hub_commits.add_tag(state, repository, unquote(revision), json.loads(body)["tag"])
            exchange.reply_json({})
        case "DELETE", ["tag", name]:
            hub_commits.drop_tag(state, repository, unquote(name))
            exchange.reply_json({})
        case "POST", ["branch", name]:
            start = json.loads(body or b"{}").get("startingPoint")
            hub_commits.add_branch(state, repository, unquote(name), start)
            exchange.reply_json({})
        case "DELETE", ["branch", name]:
            hub_commits.drop_branch(state, repository, unquote(name))
            exchange.reply_json({})
        case "PUT", ["settings"]:
            asked = json.loads(body)
            visibility = asked.get("visibility")
            repository.private = bool(asked.get("private", visibility == "private"))
            exchange.reply_json({"private": repository.private})
        case _:
            raise RefusedError(404, f"no such page: {exchange.path}")


def _info(repository: Repository, commit: Commit, query: dict[str, str]) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if query.get("blobs", "").lower() in ("1", "true"):
        for one in siblings:
            file = commit.files[one["rfilename"]]
            one |= {"size": file.size, "blobId": file.oid}
            if file.lfs:
                one["lfs"] = {"sha256": file.lfs, "size": file.size, "pointerSize": 130}
    return {
        "_id": commit.oid[:24],
        "id": repository.name,
        "author": repository.namespace,
        "sha": commit.oid,
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": siblings,
    }


def _tree(
    exchange: Exchange,
    repository: Repository,
    commit: Commit,
    folder: str,
    query: dict[str, str],
) -> None:
    inside = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        if not path.startswith(inside):
            continue
        steps = path.removeprefix(inside).split("/")
        for depth in range(1, len(steps)):
            above = inside + "/".join(steps[:depth])
            found[above] = {"type": "directory", "path": above, "size": 0, "oid": "0" * 40}
        found[path] = file.to_json(path)
    if query.get("recursive", "").lower() != "true":
        found = {path: one for path, one in found.items() if "/" not in path[len(inside) :]}
    if folder and not found:
        raise RefusedError(404, f"{folder} does not exist on {commit.oid}", "EntryNotFound")
    paths = sorted(found)
    begin = int(query.get("cursor", "0"))
    end = begin + _state(exchange).page_entries
    headers = {}
    if end < len(paths):
        following = urlencode({**query, "cursor": str(end)})
        address = f"{exchange.server_of.url}{urlsplit(exchange.path).path}?{following}"
        headers["Link"] = f'<{address}>; rel="next"'
    exchange.reply_json([found[path] for path in paths[begin:end]], headers=headers)


def _resolve(
    exchange: Exchange, who: Person | None, kind: str, name: str, revision: str, path: str
) -> None:
    state = _state(exchange)
    repository = state.files_of(kind, name, who)
    commit = repository.at(revision)
    file = _file(commit, path)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"'}
    if file.lfs is None:
        place = quote(f"/api/resolve-cache/{kind}s/{name}/{commit.oid}/{path}")
        exchange.reply(307, b"", {**headers, "Location": place})
        return
    headers |= {"X-Linked-Etag": f'"{file.lfs}"', "X-Linked-Size": str(file.size)}
    if state.xet_only:
        headers |= {"X-Xet-Hash": hashlib.sha256(file.lfs.encode()).hexdigest()}
        headers |= {"X-Error-Message": "This file can only be read through Xet."}
        exchange.reply(403, b"", headers)
        return
    stored = f"/lfs/{file.lfs}"
    signature = state.signature("GET", stored)
    headers["Location"] = f"{exchange.server_of.storage_url}{stored}?signature={signature}"
    exchange.reply(302, b"Found. Redirecting", headers)


def _file(commit: Commit, path: str) -> File:
    if path not in commit.files:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    return commit.files[path]


def _regular(exchange: Exchange, repository: Repository, commit: Commit, path: str) -> None:
    file = _file(commit, path)
    content = repository.contents[file.oid]
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.oid}"'}

    def send(begin: int, end: int) -> None:
        exchange.wfile.write(content[begin:end])

    exchange.reply_part(len(content), send, headers)


def _batch(exchange: Exchange, who: Person | None, kind: str, name: str) -> None:
    body, server = json.loads(exchange.body()), exchange.server_of
    repository = server.state.writable(kind, name, who)
    found = hub_commits.lfs_batch(server.state, repository, body, server.url, server.storage_url)
    exchange.reply_json(found)


def _verify(exchange: Exchange, who: Person | None, kind: str, name: str) -> None:
    asked = json.loads(exchange.body())
    repository = _state(exchange).writable(kind, name, who)
    oid, size = asked["oid"], asked["size"]
    if oid not in repository.lfs or _state(exchange).path_of(oid).stat().st_size != size:
        raise RefusedError(422, f"the object {oid} was not uploaded")
    exchange.reply_json({})


def _complete(exchange: Exchange, query: dict[str, str]) -> None:
    """Join the parts of an upload: the address is signed, so no token comes with it."""
    state, asked = _state(exchange), json.loads(exchange.body())
    upload = query["upload"]
    if query["signature"] != state.signature("POST", upload):
        raise RefusedError(403, "the signature does not match")
    folder = state.folder / "parts" / upload.rpartition("/")[2]
    joined, hashed = state.folder / f"joined-{secrets.token_hex(6)}", hashlib.sha256()
    with joined.open("wb") as whole:
        for part in asked["parts"]:
            place = folder / str(int(part["partNumber"]))
            content = place.read_bytes()
            if part["etag"].strip('"') != hashlib.md5(content).hexdigest():
                raise RefusedError(400, "a part has another ETag")
            hashed.update(content)
            whole.write(content)
    _keep(state, upload, hashed.hexdigest(), joined.rename)
    exchange.reply_json({})


def _keep(state: Hub, upload: str, actual: str, move: Callable[[Any], Any]) -> None:
    """Make an uploaded object known to its repository, if it is what its name says."""
    kind, name, oid = upload.split("/")[2], "/".join(upload.split("/")[3:5]), upload.split("/")[5]
    if actual != oid:
        raise RefusedError(400, f"the content of {oid} has the SHA-256 {actual}")
    with state.lock:
        move(state.path_of(oid))
        state.of(kind, name).lfs.add(oid)


def answer_storage(exchange: Exchange) -> None:
    """Answer a request to the storage: signed addresses only, and no credentials."""
    url, state = urlsplit(exchange.path), _state(exchange)
    signature = dict(parse_qsl(url.query)).get("signature")
    method = "GET" if exchange.command == "HEAD" else exchange.command
    if exchange.headers.get("Authorization"):
        exchange.body()
        exchange.reply(400, b"Only one auth mechanism allowed")
    elif signature != state.signature(method, url.path):
        exchange.body()
        exchange.reply(403, b"SignatureDoesNotMatch")
    elif method == "GET":
        _send_stored(exchange, url.path)
    else:
        _take(exchange, url.path)


def _send_stored(exchange: Exchange, path: str) -> None:
    place = _state(exchange).path_of(path.removeprefix("/lfs/"))
    if not place.exists():
        exchange.reply(404, b"NoSuchKey")
        return

    def send(begin: int, end: int) -> None:
        exchange.send_file(place, begin, end)

    exchange.reply_part(place.stat().st_size, send, {"ETag": f'"{place.name}"'})


def _take(exchange: Exchange, path: str) -> None:
    """Keep what is uploaded: a part until the upload is completed, or a whole object."""
    state, steps = _state(exchange), path.split("/")
    is_part = len(steps) == 8
    folder = state.folder / "parts" / steps[6]
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / (steps[7] if is_part else "whole")
    hashed = hashlib.md5() if is_part else hashlib.sha256()
    with place.open("wb") as file:
        for piece in exchange.pieces():
            hashed.update(piece)
            file.write(piece)
    if not is_part:
        try:
            _keep(state, path, hashed.hexdigest(), place.rename)
        except RefusedError as refused:
            exchange.reply(refused.status, refused.message.encode())
            return
    exchange.reply(200, headers={"ETag": f'"{hashed.hexdigest()}"'})
