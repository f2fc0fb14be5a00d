"""The functions of `import memcube`: each does one act with the settings of this user.

Use `Client` for several acts in a row, for other settings, or to watch progress.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from memcube_protocol.reference import Reference

from memcube.client import Client, Name, OverlayPlace
from memcube.context import NORMAL_TRUST, Trust

if TYPE_CHECKING:
    from memcube.accounts.session import Identity
    from memcube.consuming.finding import Found
    from memcube.consuming.holdings import Held
    from memcube.consuming.verifying import Verified
    from memcube.copying.registries import Copied
    from memcube.mounting import Asked, MountedMemory, Names, Plan
    from memcube.packing.pack import Packed
    from memcube.publishing.publish import Published
    from memcube.store import Pruned
    from memcube.trust import Verdict


def pack(folder: Path | str, *, name: str | None = None, version: str | None = None) -> Packed:
    """Pack a folder into the local store; see `Client.pack`."""
    with Client() as client:
        return client.pack(folder, name=name, version=version)


def push(
    source: Path | str,
    reference: Name | None = None,
    *,
    key: str | None = None,
    public: bool | None = None,
    trust: Trust = NORMAL_TRUST,
    expose: bool = False,
) -> Published:
    """Pack, sign and publish a folder, or publish a cube packed before; see `Client.push`."""
    with Client() as client:
        return client.push(source, reference, key=key, public=public, trust=trust, expose=expose)


def pull(reference: Name, *, filters: Iterable[str] = (), trust: Trust = NORMAL_TRUST) -> Verified:
    """Fetch a cube, verify it, and keep it in the local store; see `Client.pull`."""
    with Client() as client:
        return client.pull(reference, filters=filters, trust=trust)


def unpack(
    reference: Name,
    folder: Path | str,
    *,
    filters: Iterable[str] = (),
    trust: Trust = NORMAL_TRUST,
) -> Verified:
    """Write a verified cube as a plain folder; see `Client.unpack`."""
    with Client() as client:
        return client.unpack(reference, folder, filters=filters, trust=trust)


def path(reference: Name, memory: str, *, trust: Trust = NORMAL_TRUST) -> Path:
    """A folder with one verified memory, for tools that load files; see `Client.path`."""
    with Client() as client:
        return client.path(reference, memory, trust=trust)


def verify(reference: Name, *, trust: Trust = NORMAL_TRUST) -> Verdict:
    """The verdict on a cube, rule by rule; a refusal stands in its `error`. See `Client.verify`."""
    with Client() as client:
        return client.verify(reference, trust=trust)


def inspect(reference: Name) -> Found:
    """Manifest, config and attestations of a cube: nothing is judged; see `Client.inspect`."""
    with Client() as client:
        return client.inspect(reference)


def ls() -> tuple[Held, ...]:
    """The cubes in the local store; see `Client.ls`."""
    with Client() as client:
        return client.ls()


def rm(reference: Name) -> Reference:
    """Forget a cube; its bytes go with the next `prune`. See `Client.rm`."""
    with Client() as client:
        return client.rm(reference)


def prune(*, older_than_days: float | None = None, max_bytes: int | None = None) -> Pruned:
    """Free space in the local store; see `Client.prune`."""
    with Client() as client:
        return client.prune(older_than_days=older_than_days, max_bytes=max_bytes)


def login(token: str, host: str = "", *, username: str = "") -> Identity:
    """Keep a token for the registry at `host` once it was taken; see `Client.login`."""
    with Client() as client:
        identity, _ = client.login(token, host, username=username)
        return identity


def logout(host: str = "") -> bool:
    """Forget the token for the registry at `host`; says whether there was one. See `Client.logout`."""
    with Client() as client:
        return client.logout(host)


def whoami(host: str = "") -> Identity:
    """Who the registry at `host` takes us for; see `Client.whoami`."""
    with Client() as client:
        return client.whoami(host)


def tag(
    reference: Name, tag: str, *, trust: Trust = NORMAL_TRUST, backwards: bool = False
) -> Reference:
    """Point a moving tag at a published cube; see `Client.tag`."""
    with Client() as client:
        return client.tag(reference, tag, trust=trust, backwards=backwards)


def cp(source: Name, target: Name, *, trust: Trust = NORMAL_TRUST) -> Copied:
    """Copy a cube with everything attached to it; see `Client.cp`."""
    with Client() as client:
        return client.cp(source, target, trust=trust)


def mount(
    references: Names = (),
    *,
    model: Any = None,
    tokenizer: Any = None,
    overlay: OverlayPlace | None = None,
    **asked: Unpack[Asked],
) -> MountedMemory:
    """Make the memories of one cube or several usable by a model; see `Client.mount`."""
    with Client() as client:
        return client.mount(references, model=model, tokenizer=tokenizer, overlay=overlay, **asked)


def plan(
    references: Names = (), *, model: Any = None, tokenizer: Any = None, **asked: Unpack[Asked]
) -> Plan:
    """What `mount` would do with each memory and why, with bytes and seconds; see `Client.plan`."""
    with Client() as client:
        return client.plan(references, model=model, tokenizer=tokenizer, **asked)
