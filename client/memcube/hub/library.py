"""What is written to the Hub, through `huggingface_hub`: repositories, uploads, commits, tags.

Uploads go by LFS, whose object id is the SHA-256 of the content, so that the Hub checks what arrives; Xet
names content by hashes of its own, and is never used. Where a Hub takes nothing else, that is said.
"""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    ConflictError,
    ForbiddenError,
    LimitExceededError,
    MemcubeError,
    MissingDependencyError,
    NetworkError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

from memcube.http.failures import harmless
from memcube.hub import posting
from memcube.hub.reading import MAIN
from memcube.hub.site import Site, repository_of

SAMPLE_BYTES: Final = 512
"""Of each file, the Hub wants to see so many before it says how to send it."""
_QUERY: Final = re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]*")


@dataclass(frozen=True, slots=True)
class Addition:
    """A file to add: its path in the repository, and its content, in memory or in a file of the store."""

    path: str
    digest: Digest
    size: int
    content: bytes | Path

    def start(self, size: int) -> bytes:
        """The first bytes, at most `size` of them.

        Raises:
            OSError: the file cannot be read.
        """
        if isinstance(self.content, bytes):
            return self.content[:size]
        with self.content.open("rb") as file:
            return file.read(size)


class StoredFile(io.BufferedIOBase):
    """A file of the store as the library reads it: opened when it is first read, and watched.

    Files given as streams are the ones that the library never sends through Xet.
    """

    def __init__(self, path: Path, on_read: Callable[[int], None]) -> None:
        super().__init__()
        self._path = path
        self._on_read = on_read
        self._file: io.BufferedReader | None = None
        self._furthest = 0

    def readable(self) -> bool:
        """Whether it can be read: it can."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read again: it can."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._file.tell() if self._file else 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Let the next read begin elsewhere."""
        return self._opened().seek(offset, whence)

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        content = self._opened().read(size)
        at = self._opened().tell()
        if at > self._furthest:
            self._on_read(at - self._furthest)
            self._furthest = at
        return content

    def close(self) -> None:
        """Close the file for good."""
        self.release()
        super().close()

    def release(self) -> None:
        """Close the file until it is read again, from its beginning."""
        if self._file:
            self._file.close()
            self._file = None

    def _opened(self) -> io.BufferedReader:
        if self._file is None:
            self._file = self._path.open("rb")
        return self._file


@contextmanager
def _released(operations: Sequence[Any]) -> Iterator[None]:
    """Close the files of `operations` at the end, which the library leaves open."""
    try:
        yield
    finally:
        for operation in operations:
            if isinstance(operation.path_or_fileobj, StoredFile):
                operation.path_or_fileobj.release()


def _api_class() -> Any:
    # The library decides when it is loaded; without this it warns that a stream is not sent by Xet.
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    from huggingface_hub import HfApi

    return HfApi


class HubLibrary:
    """`huggingface_hub` as memcube uses it, for one Hub."""

    def __init__(self, site: Site, *, threads: int) -> None:
        self._site = site
        self._threads = threads

    def create(self, name: str) -> bool:
        """Make sure that the repository `name` exists, private if it is new; whether it is new.

        Raises:
            ForbiddenError, UnauthenticatedError, NetworkError: as the Hub answers.
        """
        kind, own = repository_of(name)
        with self._translated(name) as api:
            try:
                api.create_repo(own, repo_type=kind, private=True)
            except self._http_error as error:
                if _status(error) != 409:
                    raise
                return False
        return True

    def set_private(self, name: str, private: bool) -> None:
        """Let everybody read the repository `name`, or its owners only."""
        kind, own = repository_of(name)
        with self._translated(name) as api:
            api.update_repo_settings(own, repo_type=kind, private=private)

    def operation(self, addition: Addition, on_sent: Callable[[int], None] = lambda _: None) -> Any:
        """The library's own value for `addition`; its SHA-256 is known, and not computed again.

        `on_sent` hears of the bytes that are read to be sent.
        """
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.lfs import UploadInfo

        if isinstance(addition.content, bytes):
            return CommitOperationAdd(addition.path, addition.content)
        operation: Any = CommitOperationAdd(addition.path, b"")
        operation.path_or_fileobj = StoredFile(addition.content, on_sent)
        operation.upload_info = UploadInfo(
            addition.size, addition.start(SAMPLE_BYTES), bytes.fromhex(addition.digest.hex)
        )
        return operation

    def upload(self, name: str, operations: Sequence[Any]) -> None:
        """Send the content of those that the Hub wants in LFS, which nobody sees before they are committed.

        Raises:
            UnsupportedError: the Hub takes uploads through Xet only.
            ForbiddenError, UnauthenticatedError, NetworkError: as the Hub answers.
        """
        kind, own = repository_of(name)
        with self._translated(name) as api, _released(operations):
            api.preupload_lfs_files(
                own,
                list(operations),
                repo_type=kind,
                num_threads=self._threads,
                free_memory=False,
                gitignore_content="",  # a .gitignore there must not keep a part of the cube away
            )

    def commit(
        self, name: str, operations: Sequence[Any], deleted: Sequence[str], parent: str, title: str
    ) -> str:
        """One commit on `main` behind `parent`; its full name.

        Raises:
            ConflictError: `main` does not lead to `parent` any more; nothing was changed.
            UnsupportedError, ForbiddenError, UnauthenticatedError, NetworkError: as `upload`.
        """
        from huggingface_hub import CommitOperationDelete

        kind, own = repository_of(name)
        removals = [CommitOperationDelete(path, is_folder=False) for path in deleted]
        with self._translated(name) as api, _released(operations):
            made = api.create_commit(
                own,
                [*removals, *operations],
                commit_message=title,
                repo_type=kind,
                revision=MAIN,
                parent_commit=parent,
                num_threads=self._threads,
            )
        return str(made.oid)

    def add_tag(self, name: str, tag: str, commit: str) -> None:
        """Let the new tag `tag` lead to `commit`.

        Raises:
            ConflictError: there is such a tag.
        """
        kind, own = repository_of(name)
        with self._translated(name) as api:
            api.create_tag(own, tag=tag, revision=commit, repo_type=kind)

    def drop_tag(self, name: str, tag: str) -> None:
        """Remove a tag."""
        kind, own = repository_of(name)
        with self._translated(name) as api:
            api.delete_tag(own, tag=tag, repo_type=kind)

    def require_ready(self) -> None:
        """Make sure, without loading the library, that it can be loaded and that there is a token for it.

        Raises:
            MissingDependencyError: it is not installed.
            UnauthenticatedError: there is no token.
        """
        if find_spec("huggingface_hub") is None:
            raise MissingDependencyError(
                "to write to the Hugging Face Hub takes huggingface_hub, which is not installed",
                hint="pip install 'memcube[hub]'",
            )
        if self._site.token is None:
            raise UnauthenticatedError(
                f"you are not logged in to {self._site.endpoint.host}",
                hint="set HF_TOKEN to a token that may write, or run: hf auth login",
            )

    @cached_property
    def _api(self) -> Any:
        self.require_ready()
        return _api_class()(endpoint=self._site.endpoint.url, token=self._site.token)

    @property
    def _http_error(self) -> type[Exception]:
        from huggingface_hub.errors import HfHubHTTPError

        return HfHubHTTPError

    @contextmanager
    def _translated(self, name: str) -> Iterator[Any]:
        """The library's API, whose errors come as ours."""
        try:
            api = self._api
            _bound_waits()
            with _BARS.hidden():
                yield api
        except MemcubeError:
            raise
        except Exception as error:
            found = self._error(name, error)
            if found is None:
                raise
            raise found from error

    def _error(self, name: str, error: BaseException) -> MemcubeError | None:
        """Our error for one of the library's; None: it is none that it tells on purpose."""
        page = self._site.page(name)
        shown = _QUERY.sub(r"\1", str(error))  # of a signed address
        words = harmless(shown.replace(self._site.token or "\0", "[the token]"))
        if isinstance(error, RuntimeError) and error.__cause__:
            return self._error(name, error.__cause__)
        if isinstance(error, self._http_error):
            return _by_status(_status(error), page, words)
        if isinstance(error, ValueError) and "LFS batch API" in words:
            return UnsupportedError(
                f"{page} takes no uploads by LFS: {words}",
                hint="memcube does not speak Xet: push to a registry, or upload the folder with hf upload",
            )
        if isinstance(error, ValueError):
            return UnsupportedError(f"{page} refuses this cube: {words}", hint="see its message")
        if isinstance(error, OSError) or type(error).__module__.startswith("httpx"):
            return NetworkError(f"{page}: {words}", hint="try again: what was sent is kept")
        return None


def _bound_waits() -> None:
    """Let the library's client, which would wait for ever, wait for a while only.

    The client is one for the whole process, and a new one after a failure.
    """
    from huggingface_hub import get_session

    session: Any = get_session()
    session.timeout = posting.PATIENCE_S


class _Bars:
    """The library's bars, one switch for the process: off while any thread of ours is in the library."""

    def __init__(self) -> None:
        self._switching = threading.Lock()
        self._threads = 0
        self._were_drawn = False

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Keep the library from drawing; whoever watches hears of the bytes from us."""
        from huggingface_hub.utils.tqdm import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )

        with self._switching:
            if not self._threads:
                self._were_drawn = not are_progress_bars_disabled()
            self._threads += 1
            if self._were_drawn:
                disable_progress_bars()
        try:
            yield
        finally:
            with self._switching:
                self._threads -= 1
                if self._were_drawn and not self._threads:
                    enable_progress_bars()


_BARS: Final = _Bars()


def overtaken(place: str) -> ConflictError:
    """The error of a publication behind whose back another one came."""
    return ConflictError(
        f"{place} was changed by somebody else meanwhile",
        hint="nothing of yours was published: run it again",
    )


def _status(error: BaseException) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _by_status(status: int, page: str, words: str) -> MemcubeError:
    said = f"{page}: {words}"
    if status == 401:
        return UnauthenticatedError(said, hint="set HF_TOKEN to a token that may write there")
    if status == 403:
        return ForbiddenError(
            said, hint="use a token with the role write, of a member of its owner"
        )
    if status == 404:
        return NotFoundError(said, hint="check the name")
    if status in (409, 412):
        return overtaken(page)
    if status == 413:
        return LimitExceededError(said, hint="see the limits of the Hub")
    if status == 429:
        return RateLimitedError(said, hint="wait a while, then try again", retry_after_s=60)
    if status >= 500:
        return UnavailableError(said, hint="try again later: what was sent is kept")
    return NetworkError(said, hint="see its message")
