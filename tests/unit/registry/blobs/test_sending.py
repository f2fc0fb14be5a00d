"""How a blob leaves: by a URL only where everybody would get the same bytes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import StorageError
from memcube_registry.blobs.sending import Offer, send
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.delivery.decision import Form
from memcube_registry.http.exchange import Answer, Request, Response, StreamAnswer
from memcube_registry.storage import MemoryStore
from memcube_registry.storage.local import FilesBehindNginx

CONTENT = b"0123456789"
UPLOAD = "0" * 32
URL = "https://objects.example.org/blob?signature=1"


class StoreWithUrls(MemoryStore):
    """A store from which clients can fetch for themselves."""

    def url(self, location: str, *, media_type: str) -> str | None:
        assert media_type == "application/octet-stream"
        return URL


def answer(form: Form, **headers: str) -> Response:
    store = StoreWithUrls()
    sink = store.open("upload", size=0)
    sink.write([CONTENT])
    sink.close()
    location = store.finish("upload", size=len(CONTENT))
    digest = Digest.of(CONTENT)
    offer = Offer(
        StoredBlob(digest, len(CONTENT), location, (1, 1), form),
        str(digest),
        [(b"docker-content-digest", str(digest).encode()), (b"cache-control", b"immutable")],
    )
    scope: Any = {
        "method": "GET",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    return asyncio.run(send(Request(scope, None), store, offer))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", Form)
def test_only_the_open_form_leaves_by_a_url(form: Form) -> None:
    found = answer(form)
    assert (found.status == 307) is (form is Form.OPEN)
    assert isinstance(found, Answer if form is Form.OPEN else StreamAnswer)


def test_a_redirect_is_kept_by_no_cache_and_carries_no_body() -> None:
    found = answer(Form.OPEN)
    assert isinstance(found, Answer)
    headers = dict(found.headers)
    assert headers[b"location"] == URL.encode()
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"docker-content-digest"] == str(Digest.of(CONTENT)).encode()
    assert found.body == b""
    assert len(headers) == len(found.headers), "nothing stands twice"


def test_who_has_the_blob_already_is_sent_nowhere() -> None:
    found = answer(Form.OPEN, **{"if-none-match": f'"{Digest.of(CONTENT)}"'})
    assert found.status == 304
    assert b"location" not in dict(found.headers)


def kept(folder: Path) -> tuple[FilesBehindNginx, str]:
    """A store whose files nginx sends, and where CONTENT lies in it."""
    store = FilesBehindNginx(folder)
    sink = store.open(UPLOAD, size=0)
    sink.write([CONTENT])
    sink.close()
    return store, store.finish(UPLOAD, size=len(CONTENT))


def test_what_nginx_sends_is_authorised_named_and_left_to_it(tmp_path: Path) -> None:
    store, location = kept(tmp_path)
    digest = Digest.of(CONTENT)
    offer = Offer(StoredBlob(digest, len(CONTENT), location, (1, 1), Form.OPEN), str(digest))
    scope: Any = {"method": "GET", "headers": [(b"range", b"bytes=2-3")]}
    found = asyncio.run(send(Request(scope, None), store, offer))  # type: ignore[arg-type]
    assert isinstance(found, Answer)
    headers = dict(found.headers)
    assert headers[b"x-accel-redirect"].decode() == f"/.memcube-blobs/{location[:2]}/{location}"
    assert (found.status, found.body, b"content-range" in headers) == (200, b"", False)


def test_a_blob_of_another_length_is_not_left_to_nginx(tmp_path: Path) -> None:
    store, location = kept(tmp_path)
    digest = Digest.of(CONTENT)
    scope: Any = {"method": "GET", "headers": []}
    for place, size in ((location, len(CONTENT) + 1), ("f" * 32, len(CONTENT))):
        offer = Offer(StoredBlob(digest, size, place, (1, 1), Form.OPEN), str(digest))
        with pytest.raises(StorageError, match="damaged or lost"):
            asyncio.run(send(Request(scope, None), store, offer))  # type: ignore[arg-type]


def test_no_other_name_than_an_objects_becomes_a_path(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not the name"):
        FilesBehindNginx(tmp_path).place_before("../token.key")
