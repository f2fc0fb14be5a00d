"""The repository that holds the objects: what is asked of the Hub, through `huggingface_hub`."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

# The library reads this when it is loaded. Xet names content by hashes of its own, and falls back to nothing.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_url,
)
from huggingface_hub.hf_api import RepoFile
from memcube_protocol.errors import NotFoundError, StorageError

from memcube_registry.storage.hub.patience import patiently
from memcube_registry.storage.interface import Object

_KIND: Final = "dataset"
_FOLDER: Final = "blobs"
_BRANCH: Final = "main"
_LOCATION: Final = re.compile(r"(?P<time>[0-9a-f]{12})(?P<upload>[0-9a-f]{32})[0-9a-f]{8}")
_PATH: Final = re.compile(rf"{_FOLDER}/[0-9a-f]{{2}}/(?P<location>[0-9a-f]{{52}})\.bin")
_METADATA_TIMEOUT_S: Final = 20.0
_RACES: Final = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A dataset repository `namespace/name` of the Hub at `endpoint`, and the token to use there.

    None stands for what the library's own variables say.
    """

    repository: str
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """Where the bytes of an object are now: a signed address of the CDN, or one that needs the token."""

    url: str = field(repr=False)
    size: int
    needs_token: bool


@dataclass(frozen=True, slots=True)
class Sent:
    """An object whose bytes the Hub has, and no commit names yet; and the upload that it came from."""

    operation: CommitOperationAdd
    upload: str


class Dataset:
    """The repository at `place`. Nothing is asked of the Hub when this is made."""

    def __init__(self, place: Place) -> None:
        self.endpoint = (place.endpoint or constants.ENDPOINT).rstrip("/")
        self.token = place.token or get_token()
        self._name = place.repository
        self._api = HfApi(endpoint=self.endpoint, token=self.token, library_name="memcube")
        self._is_private = threading.Event()

    def check(self) -> None:
        """Refuse a repository that is not there, or that everybody could read.

        Raises:
            StorageError: it is public, absent, or hidden from this token.
            UnavailableError: the Hub did not answer.
        """
        info = patiently(
            lambda: self._api.repo_info(self._name, repo_type=_KIND, timeout=_METADATA_TIMEOUT_S),
            "the repository",
        )
        if not info.private:
            self._is_private.clear()
            raise StorageError(
                f"the repository {self._name} is public: everybody could read private cubes in it",
                hint="make it private in its settings on the Hub",
            )
        self._is_private.set()

    def send(self, upload: str, source: Path) -> Sent:
        """Send the content of `upload`, which is staged in a file. The commit that names it makes it an object.

        Raises:
            StorageError, UnavailableError: the Hub did not take it.
        """
        if not self._is_private.is_set():
            self.check()

        def send() -> CommitOperationAdd:
            # As a stream: files given by their path go through Xet where that is installed.
            with source.open("rb") as stream:
                operation = CommitOperationAdd(path_of(new_location(upload)), stream)
                self._api.preupload_lfs_files(
                    self._name, [operation], repo_type=_KIND, free_memory=False
                )
            # What the Hub keeps in Git itself is part of the commit: small things, and none at all.
            is_sent = getattr(operation, "_is_uploaded", False)
            operation.path_or_fileobj = b"" if is_sent else source.read_bytes()
            return operation

        return Sent(patiently(send, "the blob"), upload)

    def add(self, sent: Sequence[Sent]) -> list[str]:
        """The locations of objects, all of which one commit has made durable.

        Raises:
            StorageError, UnavailableError: it was not made.
        """
        locations = [new_location(each.upload) for each in sent]
        operations = [each.operation for each in sent]
        for operation, location in zip(operations, locations, strict=True):
            operation.path_in_repo = path_of(location)
        self._commit(operations, f"Add {len(sent)} blobs")
        return locations

    def remove(self, locations: Iterable[str]) -> None:
        """Take objects out of the branch in one commit; absent ones are no error.

        Raises:
            StorageError, UnavailableError: it was not made.
        """
        wanted = [path_of(location) for location in set(locations)]
        for _ in range(_RACES):
            there = self._present(wanted)
            if not there:
                return
            operations = [CommitOperationDelete(path) for path in there]
            with suppress(NotFoundError):  # another replica has removed one of them meanwhile
                self._commit(operations, f"Remove {len(operations)} blobs")
                return

    def find(self, location: str) -> Found:
        """Where an object's bytes are. Signed addresses expire after some time that the Hub chooses.

        Raises:
            NotFoundError: there is no such object.
            StorageError, UnavailableError: the Hub does not say.
        """
        url = hf_hub_url(
            self._name,
            path_of(location),
            repo_type=_KIND,
            revision=_BRANCH,
            endpoint=self.endpoint,
        )
        found = patiently(
            lambda: self._api.get_hf_file_metadata(url=url, timeout=_METADATA_TIMEOUT_S),
            f"object {location}",
        )
        if found.size is None:
            raise StorageError(
                f"the Hub does not say how large object {location} is",
                hint="look at the registry's repository on the Hub",
            )
        return Found(found.location, found.size, self._is_own(found.location))

    def locations(self) -> Iterator[str]:
        """Every object that the branch holds.

        Raises:
            StorageError, UnavailableError: the Hub does not list them.
        """

        def listed() -> list[str]:
            tree = self._api.list_repo_tree(self._name, _FOLDER, recursive=True, repo_type=_KIND)
            return [entry.path for entry in tree if isinstance(entry, RepoFile)]

        try:
            paths = patiently(listed, "the list of blobs")
        except NotFoundError:  # there is no folder before the first object
            return
        for path in paths:
            if found := _PATH.fullmatch(path):
                yield found["location"]

    def _present(self, wanted: list[str]) -> list[str]:
        def asked() -> list[str]:
            found = self._api.get_paths_info(self._name, wanted, repo_type=_KIND)
            return sorted({entry.path for entry in found})

        return patiently(asked, "the blobs")

    def _commit(
        self,
        operations: Sequence[CommitOperationAdd | CommitOperationDelete],
        message: str,
    ) -> None:
        patiently(
            lambda: self._api.create_commit(
                self._name, operations, commit_message=message, repo_type=_KIND, revision=_BRANCH
            ),
            "the commit",
        )

    def _is_own(self, url: str) -> bool:
        """Whether an address is the Hub's own, where the token is needed and may go."""
        own, other = urlsplit(self.endpoint), urlsplit(url)
        return (own.scheme, own.netloc) == (other.scheme, other.netloc)


def new_location(upload: str) -> str:
    """The name of an object that is made of `upload` now: no other has it."""
    milliseconds = int(datetime.now(UTC).timestamp() * 1000)
    return f"{milliseconds:012x}{upload}{secrets.token_hex(4)}"


def described(location: str) -> Object:
    """When an object was made and of which upload, by its name: the Hub would have to be asked for each file.

    Raises:
        NotFoundError: it is not the name of an object.
    """
    parts = _parsed(location)
    made_at = datetime.fromtimestamp(int(parts["time"], 16) / 1000, UTC)
    return Object(location, made_at, parts["upload"])


def path_of(location: str) -> str:
    """Where an object lies in the repository.

    Raises:
        NotFoundError: it is not the name of an object.
    """
    _parsed(location)
    return f"{_FOLDER}/{location[-2:]}/{location}.bin"


def _parsed(location: str) -> re.Match[str]:
    # Names are made by this registry; anything else would be a path of somebody else's.
    found = _LOCATION.fullmatch(location)
    if found is None:
        raise NotFoundError(
            f"{location[:64]!r} is not the name of an object", hint="push the blob again"
        )
    return found
