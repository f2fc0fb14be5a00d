"""Where a server of this machine listens, and whose requests it takes, from the command line."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from memcube_protocol.values import frozen

if TYPE_CHECKING:
    from memcube.serving.guard import Entrance

_FIELDS: Final = ("host", "port", "token_file", "hosts", "origins")


@frozen
class ServingOptions:
    """What a person said of a server. `token_variable` may hold the token where no file does."""

    host: str
    port: int
    token_file: Path | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    token_variable: str | None = None

    def entrance(self) -> Callable[[int], Entrance]:
        """Makes the entrance for the port that is got; what is refused for any port is refused here.

        Raises:
            InvalidSettingError: others than this machine could ask without a token, or the token is weak.
            StorageError: the file of the token cannot be read or made.
        """
        from memcube.serving.guard import Entrance

        make = partial(
            Entrance.of, self.host, token=self._token(), hosts=self.hosts, origins=self.origins
        )
        make(self.port)
        return make

    def _token(self) -> str | None:
        from memcube.serving.guard import token_in

        if self.token_file is not None:
            return token_in(self.token_file)
        return os.environ.get(self.token_variable or "") or None


def serving_options(
    token_help: str, *, port: int, token_variable: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a server, given to the function as `serving`, a `ServingOptions`."""
    options = (
        click.option(
            "--host", default="127.0.0.1", show_default=True, help="Address to listen on."
        ),
        click.option(
            "--port",
            default=port,
            show_default=True,
            type=click.IntRange(0, 65535),
            help="0: any free.",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help=token_help,
        ),
        click.option(
            "--allow-host",
            "hosts",
            multiple=True,
            metavar="HOST[:PORT]",
            help="Further name that requests may be for, such as a proxy's.",
        ),
        click.option(
            "--allow-origin",
            "origins",
            multiple=True,
            metavar="URL",
            help="Web page origin that may send requests, such as https://app.example.",
        ),
    )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def gathered(*wanted: Any, **given: Any) -> Any:
            own = {name: given.pop(name) for name in _FIELDS}
            serving = ServingOptions(**own, token_variable=token_variable)
            return function(*wanted, serving=serving, **given)

        decorated: Callable[..., Any] = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
