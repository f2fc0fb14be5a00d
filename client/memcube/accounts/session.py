"""Logging in, logging out, and asking a registry who it takes us for."""

from __future__ import annotations

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import NotFoundError, UnauthenticatedError, UnsupportedError
from memcube_protocol.values import frozen

from memcube.accounts.credentials import Credentials, CredentialStore
from memcube.context import Context
from memcube.http import HttpClient, Request
from memcube.remote import Registry

_ME = "/api/v1/me"


@frozen
class Identity:
    """Who a registry takes us for. `name` is None where it does not say; `scopes` are the token's."""

    host: str
    name: str | None
    scopes: tuple[str, ...] = ()


def login(context: Context, host: str, credentials: Credentials) -> tuple[Identity, str]:
    """Keep `credentials` for `host` once the registry has taken them; says also where they lie.

    Raises:
        UnauthenticatedError: the registry refuses them; nothing is kept.
        NetworkError: no answer.
        StorageError: they cannot be kept.
    """
    http = HttpClient(context.settings, find_credentials=lambda _: credentials)
    try:
        registry = Registry(host, http, context.settings)
        registry.ping()
        identity = _identity(registry)
    finally:
        http.close()
    return identity, CredentialStore(context.settings).put(registry.host, credentials)


def logout(context: Context, host: str) -> bool:
    """Forget the credentials for `host`; says whether there were any.

    Raises:
        StorageError: they are still there.
    """
    return CredentialStore(context.settings).remove(context.settings.endpoint_of(host).host)


def whoami(context: Context, host: str) -> Identity:
    """Who the registry at `host` takes us for.

    Raises:
        UnauthenticatedError: there are no credentials for it, or it refuses them.
        NetworkError: no answer.
    """
    registry = context.registry(host)
    if CredentialStore(context.settings).find(registry.host) is None:
        raise UnauthenticatedError(
            f"you are not logged in to {registry.host}", hint=f"memcube login {registry.host}"
        )
    registry.ping()
    return _identity(registry)


def _identity(registry: Registry) -> Identity:
    """What our registry says; another one tells nothing but that it took the credentials."""
    try:
        with registry.http.send(Request("GET", f"{registry.endpoint.url}{_ME}")) as response:
            fields = canonical_json.parse_object(response.content(limits.MIB), what="account")
    except (NotFoundError, UnsupportedError):
        return Identity(registry.host, None)
    name, scopes = fields.get("name"), fields.get("scopes")
    return Identity(
        registry.host,
        name if isinstance(name, str) else None,
        tuple(map(str, scopes)) if isinstance(scopes, list) else (),
    )
