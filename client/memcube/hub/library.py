"""What is written to the Hub, through `huggingface_hub`: repositories, uploads, commits, tags.

Uploads go by LFS, whose object id is the SHA-256 of the content, so that the Hub checks what arrives; Xet
names content by hashes of its own, and is never used. Where a Hub takes nothing else, that is said.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Final

from memcube_protocol.errors import MemcubeError, MissingDependencyError, UnauthenticatedError

from memcube.hub import posting
from memcube.hub.additions import SAMPLE_BYTES, Addition, StoredFile
from memcube.hub.failures import failure_of, status_of
from memcube.hub.reading import MAIN
from memcube.hub.site import Site, repository_of


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

    def create(self, name: str) -> None:
        """Make sure that the repository `name` exists, private if it is new.

        A token that may make none is enough where it exists.

        Raises:
            ForbiddenError, UnauthenticatedError, NetworkError: as the Hub answers.
        """
        kind, own = repository_of(name)
        with self._translated(name) as api:
            from huggingface_hub.errors import HfHubHTTPError

            try:
                api.create_repo(own, repo_type=kind, private=True)
            except HfHubHTTPError as error:
                # `exist_ok=True` says the same, and fails at Hubs other than the one that HF_ENDPOINT named at first.
                refused = status_of(error) in (401, 402, 403)
                if status_of(error) != 409 and not (
                    refused and api.repo_exists(own, repo_type=kind)
                ):
                    raise

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
            found = failure_of(error, self._site, name)
            if found is None:
                raise
            raise found from error


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
