"""An embedder behind HTTP: `POST /embeddings` in OpenAI's form, which most servers of models speak."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urldefrag, urlsplit

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import (
    ForbiddenError,
    InvalidSettingError,
    MemcubeError,
    NetworkError,
    UnauthenticatedError,
)

from memcube.http import HttpClient, Origin, Request
from memcube.memories.plaintext.embedders import BATCH, SHARE, checked
from memcube.settings import Settings, is_loopback

if TYPE_CHECKING:
    from memcube.memories.plaintext.embedders import Matrix

TOKEN_VARIABLE: Final = "MEMCUBE_EMBEDDER_TOKEN"
ANSWER_BYTES: Final = 32 * limits.MIB
TEXT_CHARS: Final = 16_384
"""What is sent of a longer text: more than models read, and endpoints refuse what is too long."""


class EndpointEmbedder:
    """The model `#name` at the endpoint `url`; the beginning of every text and question is sent there.

    Plain http is spoken with this machine and with hosts under `insecure` only. The token in
    MEMCUBE_EMBEDDER_TOKEN goes to that address and to no redirect; credentials of registries never do.

    Raises:
        InvalidSettingError: the address would be asked unencrypted, or names no model.
    """

    share: float = SHARE

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        base, model = urldefrag(url)
        settings = settings or Settings.load()
        parts = urlsplit(base)
        if not model or not parts.hostname or parts.username or parts.query:
            raise _refused(parts.hostname or "", "it is not https://host/v1#model")
        if parts.scheme == "http" and not settings.allows_plain_http(parts.netloc):
            raise _refused(parts.netloc, "records would be sent unencrypted")
        self._url = base.rstrip("/") + "/embeddings"
        self._model = model
        self._http = HttpClient(settings)
        self.name = f"{model} at {parts.netloc}"
        self.remote = not is_loopback(parts.netloc)

    def texts(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder.texts`.

        Raises:
            NetworkError: no answer, or one that is none.
            InvalidError: the answer is not one finite vector for each text.
            MemcubeError: the endpoint refuses.
        """
        import numpy as np

        parts = [
            self._ask(list(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH)
        ]
        return np.concatenate(parts)

    def query(self, text: str) -> Matrix:
        """See `Embedder.query`; raises as `texts`."""
        return self._ask([text])

    def _ask(self, texts: list[str]) -> Matrix:
        token = os.environ.get(TOKEN_VARIABLE)
        cut = [text[:TEXT_CHARS] for text in texts]
        body = json.dumps({"model": self._model, "input": cut, "encoding_format": "float"})
        request = Request(
            "POST",
            self._url,
            {"Content-Type": "application/json"},
            body.encode("utf-8", "replace"),
            repeatable=True,
            led_from=Origin.of(self._url),
            authorization=f"Bearer {token}" if token else None,
        )
        try:
            with self._http.send(request) as response:
                content = response.content(ANSWER_BYTES)
        except (UnauthenticatedError, ForbiddenError) as error:
            raise type(error)(
                f"the embedder {self.name} lets nobody in: {error}",
                hint=f"put a token that it takes into {TOKEN_VARIABLE}",
            ) from None
        except MemcubeError as error:
            raise type(error)(
                f"the embedder {self.name} does not answer: {error}",
                hint="see that it runs, or mount without it: words alone are searched then",
            ) from None
        return checked(self._vectors(content, len(texts)), len(texts), self.name)

    def _vectors(self, content: bytes, count: int) -> list[Any]:
        """The vectors of an answer, in the order of the texts."""
        try:
            items = canonical_json.parse_object(content, what="answer of the embedder")["data"]
            found = {item["index"]: item["embedding"] for item in items}
            return [found[position] for position in range(count)]
        except (MemcubeError, KeyError, TypeError, IndexError) as error:
            raise NetworkError(
                f"the embedder {self.name} answers something else than embeddings",
                hint="check the address: OpenAI's form ends with /v1, and the model's name follows #",
            ) from error


def _refused(host: str, why: str) -> InvalidSettingError:
    return InvalidSettingError(
        f"the embedder at {host[:100]!r} is refused: {why}",
        hint="write https://host/v1#model; plain http is for this machine and for hosts under `insecure`",
    )
