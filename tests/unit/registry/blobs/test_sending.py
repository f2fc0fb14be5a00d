"""How a blob leaves: by a URL only where everybody would get the same bytes."""

import asyncio
from typing import Any

import pytest
from memcube_protocol.digest import Digest
from memcube_registry.blobs.sending import Offer, send
from memcube_registry.blobs.service import StoredBlob
from memcube_registry.delivery.decision import Form
from memcube_registry.http.exchange import Answer, Request, Response, StreamAnswer
from memcube_registry.storage import MemoryStore

CONTENT = b"0123456789"
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
