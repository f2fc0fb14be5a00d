"""A mounted memory as a LangChain retriever; needs `memcube[langchain]`.

with memcube.mount("alice/notes") as memory:
    retriever = MemcubeRetriever(memory=memory, k=4)
    chain = {"context": retriever, "question": RunnablePassthrough()} | prompt | model
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final

from memcube_protocol.errors import MissingDependencyError

from memcube.integrations.plain_records import plain
from memcube.memories.plaintext.context import neutralise
from memcube.mounting import Hit

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import PrivateAttr
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"the retriever needs the package {error.name!r}", hint="pip install 'memcube[langchain]'"
    ) from None

RESULTS: Final = 8


class MemcubeRetriever(BaseRetriever):
    """The records of a mounted `memory`, the user's overlay among them, that answer a query.

    `k` is how many at most, also as an argument of `invoke`; `filters` are those of `memory.search`.
    The texts are made harmless for a prompt, but stand without delimiters: say in the prompt that
    they are data, or use `memory.context`, which fences them.
    """

    memory: Any
    k: int = RESULTS
    filters: Any = None
    _searching: Any = PrivateAttr(default_factory=Lock)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - the base class passes it
        k: int | None = None,
    ) -> list[Document]:
        with self._searching:
            hits = self.memory.search(query, self.k if k is None else k, self.filters)
        return [_document(hit) for hit in hits]


def _document(hit: Hit) -> Document:
    said = plain(hit.record)
    text = said.pop("text")
    metadata = {"record": hit.record.id, "cube": neutralise(hit.cube), "score": hit.score, **said}
    return Document(page_content=text, id=f"{hit.cube}#{hit.record.id}", metadata=metadata)
