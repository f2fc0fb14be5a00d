"""`/api/v1/openapi.json`, and `/api/v1/docs`: the reference people read."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, Router, get

from memcube_registry.web import reference

_CACHED: Final = {"cache-control": "public, max-age=300"}
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
    headers = {
        **_CACHED,
        "content-security-policy": reference.CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return Response(html, media_type="text/html", headers=headers)


@get("/docs/style.css", sync_to_thread=True, include_in_schema=False)
def style() -> Response[str]:
    """The page's style sheet."""
    return Response(reference.stylesheet(), media_type="text/css", headers=_CACHED)


router: Final = Router("/api/v1", route_handlers=[openapi, docs, style])
