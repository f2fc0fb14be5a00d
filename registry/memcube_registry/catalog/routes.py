"""`/api/v1/cubes` and `/api/v1/tags`: cubes as JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, Router, delete, get, put
from litestar.params import FromPath, JSONBody, QueryParameter
from memcube_protocol.errors import UnauthenticatedError
from sqlmodel import Session

from memcube_registry.accounts.authentication import principal_of
from memcube_registry.accounts.principal import Principal
from memcube_registry.accounts.scopes import Act
from memcube_registry.catalog import service
from memcube_registry.catalog.models import Repository, Visibility
from memcube_registry.database import utc_now
from memcube_registry.delivery.service import authorize
from memcube_registry.services import services_of

Asked = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=service.PAGE_MAX)]
TagLimit = Annotated[int, QueryParameter(ge=1, le=service.TAGS_MAX)]
Prefix = Annotated[str, QueryParameter(max_length=255)]


class CubeSettings(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What an owner can choose for a cube."""

    visibility: Visibility


class CubeView(msgspec.Struct, frozen=True, rename="camel"):
    """A cube: its name, and whether everybody may read it."""

    name: str
    visibility: Visibility
    created_at: datetime


class CubePage(msgspec.Struct, frozen=True, rename="camel"):
    """Some cubes by name. `next` is the `after` of the next page; null: there is none."""

    cubes: list[CubeView]
    next: str | None


class TagView(msgspec.Struct, frozen=True, rename="camel"):
    """A tag and what it points to."""

    name: str
    digest: str
    updated_at: datetime


@get("/cubes", sync_to_thread=True, tags=["cubes"])
def list_cubes(
    request: Asked, prefix: Prefix = "", after: Prefix = "", limit: Limit = 50
) -> CubePage:
    """The cubes you may see whose names start with `prefix`."""
    principal = _require_reader(request)
    with services_of(request).database.read() as session:
        rows = service.visible_cubes(session, principal, prefix=prefix, after=after, limit=limit)
    return CubePage([_view(row) for row in rows], rows[-1].name if len(rows) == limit else None)


@get("/cubes/{name:path}", sync_to_thread=True, tags=["cubes"])
def get_cube(request: Asked, name: FromPath[str]) -> CubeView:
    """One cube. A private one that you may not see answers as one that is absent."""
    principal = principal_of(request)
    with services_of(request).database.read() as session:
        return _view(authorize(session, principal, _name(name), Act.READ))


@put("/cubes/{name:path}", sync_to_thread=True, tags=["cubes"])
def set_cube(request: Asked, name: FromPath[str], data: JSONBody[CubeSettings]) -> CubeView:
    """Make a cube public or private; an absent one is created, empty."""
    principal = principal_of(request)

    def work(session: Session) -> Repository:
        return service.set_visibility(session, principal, _name(name), data.visibility)

    return _view(services_of(request).database.run(work))


@delete("/cubes/{name:path}", sync_to_thread=True, tags=["cubes"], status_code=204)
def delete_cube(request: Asked, name: FromPath[str]) -> Response[None]:
    """Delete every version of a cube. Its name stays yours; its versions cannot be reused."""
    principal, services = principal_of(request), services_of(request)
    services.database.run(
        lambda session: service.delete_cube(session, principal, _name(name), utc_now())
    )
    return Response(None, status_code=204)


@get("/tags/{name:path}", sync_to_thread=True, tags=["cubes"])
def list_tags(
    request: Asked,
    name: FromPath[str],
    after: Prefix = "",
    limit: TagLimit = service.TAGS_MAX,
) -> list[TagView]:
    """The tags of a cube with the digests they point to, by name; with `after` those behind that one."""
    principal = principal_of(request)
    with services_of(request).database.read() as session:
        found = service.tags_of(session, principal, _name(name), after=after, limit=limit)
    return [TagView(*tag) for tag in found]


def _require_reader(request: Asked) -> Principal:
    principal = principal_of(request)
    if principal.is_anonymous and not principal.reads_public:
        raise UnauthenticatedError("this needs a login", hint="run `memcube login`")
    return principal


def _name(path: str) -> str:
    return path.removeprefix("/")


def _view(row: Repository) -> CubeView:
    return CubeView(row.name, row.visibility, row.created_at)


router: Final = Router(
    "/api/v1", route_handlers=[list_cubes, get_cube, set_cube, delete_cube, list_tags]
)
