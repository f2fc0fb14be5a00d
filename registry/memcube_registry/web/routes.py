"""The pages: `/NAMESPACE/NAME` for each cube, and the reference of the API under `/api/v1`."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, Router, get
from litestar.params import FromPath
from memcube_protocol.errors import (
    ForbiddenError,
    MemcubeError,
    NotFoundError,
    UnauthenticatedError,
)
from memcube_protocol.reference import RESERVED_NAMESPACES, Reference

from memcube_registry.accounts.authentication import principal_of
from memcube_registry.catalog.showing import show
from memcube_registry.services import services_of
from memcube_registry.web import cube_page, reference

_CACHED: Final = {"cache-control": "public, max-age=300"}
_GUARDED: Final = {
    "content-security-policy": reference.CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PRIVATE: Final = {**_GUARDED, "cache-control": "no-store", "vary": "authorization, accept"}
_HTML: Final = "text/html"
Asked = Request[Any, Any, Any]


@get("/openapi.json", sync_to_thread=False, include_in_schema=False)
def openapi(request: Asked) -> Response[dict[str, Any]]:
    """The OpenAPI document of `/api/v1`."""
    return Response(request.app.openapi_schema.to_schema(), headers=_CACHED)


@get("/docs", sync_to_thread=True, include_in_schema=False)
def docs(request: Asked) -> Response[str]:
    """The reference as a page."""
    html = reference.page(
        request.app.openapi_schema.to_schema(),
        style_url="/api/v1/docs/style.css",
        document_url="/api/v1/openapi.json",
    )
    return Response(html, media_type=_HTML, headers={**_CACHED, **_GUARDED})


@get("/docs/style.css", sync_to_thread=True, include_in_schema=False)
def style() -> Response[str]:
    """The reference's style sheet."""
    return Response(reference.stylesheet(), media_type="text/css", headers=_CACHED)


@get("/docs/cube.css", sync_to_thread=True, include_in_schema=False)
def cube_style() -> Response[str]:
    """The cube pages' style sheet."""
    return Response(cube_page.stylesheet(), media_type="text/css", headers=_CACHED)


@get("/{path:path}", sync_to_thread=True, include_in_schema=False)
def cube(request: Asked, path: FromPath[str]) -> Response[str]:
    """The page of a cube: `/NAMESPACE/NAME`, with `:TAG` or `@DIGEST` for one version of it."""
    principal = principal_of(request)
    wanted = _reference(path.removeprefix("/"))
    try:
        shown = show(services_of(request), principal, wanted)
    except (NotFoundError, UnauthenticatedError, ForbiddenError) as error:
        if not _reads_html(request):
            raise _absent() from error
        return Response(
            cube_page.absent_page(), status_code=404, media_type=_HTML, headers=_PRIVATE
        )
    return Response(cube_page.page(shown), media_type=_HTML, headers=_PRIVATE)


def _reference(text: str) -> Reference:
    """The cube that a path names.

    Raises:
        NotFoundError: it names none, and no page has that address.
    """
    try:
        wanted = Reference.parse(text)
    except MemcubeError:
        raise _absent() from None
    if wanted.host or "/" not in wanted.name or wanted.namespace in RESERVED_NAMESPACES:
        raise _absent()
    return wanted


def _absent() -> NotFoundError:
    return NotFoundError(
        "there is nothing at this address, or it is private", hint="see /api/v1/docs"
    )


def _reads_html(request: Asked) -> bool:
    """Whether a browser asks: everything else gets its refusals as JSON."""
    return _HTML in request.headers.get("accept", "")


router: Final = Router("/api/v1", route_handlers=[openapi, docs, style, cube_style])
