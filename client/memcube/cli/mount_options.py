"""What every command takes that mounts cubes: which, with what of a role, how much, searched how, trusted how."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.errors import NotFoundError
from memcube_protocol.values import frozen

from memcube.cli.options import offline_option, trust_of, trust_options
from memcube.packing.draft import FILE_NAME

if TYPE_CHECKING:
    from memcube_protocol.reference import Reference

    from memcube.context import Trust
    from memcube.mounting.choosing import Asked

_TRUST: Final = ("trust_mode", "accept_publisher", "accept_origin", "accept_rollback")

_OPTIONS: Final = (
    click.option(
        "--profile", metavar="NAME", help="Mount the cubes of this profile in config.toml."
    ),
    click.option(
        "--overlay",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
        help="Mount the memories in this cube folder of your own as well.",
    ),
    click.option(
        "--priority",
        "priorities",
        multiple=True,
        metavar="REFERENCE=N",
        help="Share of a cube among several, 1 to 100; repeatable.",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="KEY=VALUE",
        help="Only kind=… or memory=ID.",
    ),
    click.option(
        "--budget",
        "budget_tokens",
        type=click.IntRange(min=1),
        help="Tokens of text for one question, over all cubes. Default: the profile's, or 1024.",
    ),
    click.option(
        "--embedder",
        metavar="NAME",
        help="Search by meaning too: a sentence-transformers folder, http(s)://HOST/v1#MODEL, lsa, a plug-in.",
    ),
    click.option("--search-server", metavar="URL", help="Search on this Qdrant server."),
)
_NAMES: Final = ("references", "profile", "overlay", "priorities", "filters", "budget_tokens")
_FIELDS: Final = (*_NAMES, "embedder", "search_server", "offline")

_FIT: Final = (
    click.option(
        "--allow-unverified-base",
        is_flag=True,
        help="Mount an adapter though it does not say which base it was trained on.",
    ),
    click.option(
        "--prefix-tokens",
        metavar="N",
        type=click.IntRange(min=1),
        help="Mount, and fetch, only the first N tokens of a KV cache.",
    ),
    click.option(
        "--compose",
        is_flag=True,
        help="Mount several KV caches behind each other: approximate, they do not see each other.",
    ),
    click.option("--rebuild", is_flag=True, help="Compute a KV cache that does not fit anew."),
)
_FIT_NAMES: Final = ("allow_unverified_base", "prefix_tokens", "compose", "rebuild")


@frozen
class MountOptions:
    """What a person said of a mount. `trust` is None where the command does not ask for it."""

    references: tuple[str, ...] = ()
    profile: str | None = None
    overlay: Path | None = None
    priorities: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    budget_tokens: int | None = None
    embedder: str | None = None
    search_server: str | None = None
    offline: bool = False
    trust: Trust | None = None

    @property
    def names_something(self) -> bool:
        """Whether there is anything to mount."""
        return bool(self.references) or self.profile is not None or self.overlay is not None

    def require_something(self) -> None:
        """Refuse a command that names nothing to mount, before it loads a model for it."""
        if not self.names_something:
            raise click.UsageError(
                "name a cube, a --profile, or a folder with --overlay", click.get_current_context()
            )

    @property
    def read_overlay(self) -> Path | None:
        """The overlay of a command that remembers nothing: a mistyped name makes no folder, nor a cube of one.

        Raises:
            NotFoundError: there is no such folder, or nothing was ever remembered there.
        """
        if self.overlay is not None and not (self.overlay / FILE_NAME).is_file():
            raise NotFoundError(
                f"there is no overlay {self.overlay}",
                hint="name the folder that `memcube mcp` or `memcube chat` remembers into",
            )
        return self.overlay

    @property
    def cubes(self) -> dict[Reference | str, int | None]:
        """The references with what `--priority` says of each; None where it says nothing."""
        chosen: dict[Reference | str, int | None] = dict.fromkeys(self.references)
        for text in self.priorities:
            reference, _, number = text.rpartition("=")
            if reference not in chosen or not number.isdecimal():
                raise click.UsageError(
                    f"--priority {text[:200]!r}: give one of the references, '=', and a number"
                )
            chosen[reference] = int(number)
        return chosen

    @property
    def asked(self) -> Asked:
        """What `Client.mount` takes besides the cubes, a model and the overlay."""
        asked: Asked = {
            "profile": self.profile,
            "filters": self.filters,
            "budget_tokens": self.budget_tokens,
            "embedder": self.embedder,
            "search_server": self.search_server,
        }
        return asked if self.trust is None else {**asked, "trust": self.trust}

    @property
    def words(self) -> list[str]:
        """The command line that says the same from any folder, without trust: that is asked for each time."""
        embedder = self.embedder
        if embedder and Path(embedder).is_dir():
            embedder = str(Path(embedder).absolute())
        told = {
            "--profile": self.profile,
            "--overlay": self.overlay and self.overlay.absolute(),
            "--budget": self.budget_tokens,
            "--embedder": embedder,
            "--search-server": self.search_server,
        }
        pairs = [(name, str(value)) for name, value in told.items() if value is not None]
        pairs += [("--priority", text) for text in self.priorities]
        pairs += [("--filter", text) for text in self.filters]
        offline = ["--offline"] if self.offline else []
        return [*self.references, *(word for pair in pairs for word in pair), *offline]


def mount_options(*, asks_trust: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a mount, given to the function as its first argument, a `MountOptions`.

    The command declares its own `references`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def gathered(**given: Any) -> Any:
            trust = trust_of(*(given.pop(name) for name in _TRUST)) if asks_trust else None
            own = {name: given.pop(name) for name in _FIELDS}
            return function(MountOptions(**own, trust=trust), **given)

        decorated = offline_option(trust_options(gathered) if asks_trust else gathered)
        return _with(decorated, _OPTIONS)

    return decorate


def fit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What may be said of memories made for one model, given to the function as `fit`: a part of `Asked`."""

    @wraps(function)
    def gathered(*wanted: Any, **given: Any) -> Any:
        fit = {name: given.pop(name) for name in _FIT_NAMES}
        return function(*wanted, fit=fit, **given)

    return _with(gathered, _FIT)


def _with(
    function: Callable[..., Any], options: tuple[Callable[..., Any], ...]
) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function
