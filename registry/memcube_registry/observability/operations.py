"""What operators and clients ask of the server itself: health, readiness, figures, features."""

from __future__ import annotations

import base64
import os
from typing import Any, Final

from litestar import Request, Response, get
from memcube_protocol import limits
from memcube_protocol.errors import UnavailableError

from memcube_registry.countersigning import rules
from memcube_registry.observability.metrics import CONTENT_TYPE
from memcube_registry.services import Services, services_of
from memcube_registry.settings import DRAIN_VARIABLE

MIP_VERSIONS: Final = ("1.0",)
_NO_STORE: Final = {"cache-control": "no-store"}
_SHORT: Final = {"cache-control": "public, max-age=300"}


@get("/healthz", sync_to_thread=False, include_in_schema=False)
def healthz() -> Response[dict[str, str]]:
    """That the process answers."""
    return Response({"status": "ok"}, headers=_NO_STORE)


@get("/readyz", include_in_schema=False)
async def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, str]]:
    """That the database answers and the blob store can be written, and no shutdown has begun."""
    if is_draining():
        raise UnavailableError("the server is shutting down", hint="ask another replica")
    await services_of(request).probes.ready.take()
    return Response({"status": "ready"}, headers=_NO_STORE)


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Figures for Prometheus."""
    body = await services_of(request).probes.figures.take()
    return Response(body, media_type=CONTENT_TYPE, headers=_NO_STORE)


@get("/.well-known/memcube.json", sync_to_thread=True, include_in_schema=False)
def well_known(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """What this registry is and can do (`/.well-known/memcube.json`)."""
    services = services_of(request)
    settings = services.settings
    document = {
        "registry": settings.url,
        "service": settings.service,
        "mipVersions": list(MIP_VERSIONS),
        "features": {
            "distribution": "1.1",
            "referrers": True,
            "digests": ["sha256", "sha512"],
            "tokenHandshake": f"{settings.url}/token",
            "anonymousPull": settings.anonymous_pull,
            "api": f"{settings.url}/api/v1",
            "log": _log_of(services),
            "trustedPublishing": {"issuers": list(services.identities.issuers)},
            "countersignatures": _countersignatures_of(services),
            "directUpload": _direct_upload_of(services),
            "hubEndpoint": settings.url,
            "openapi": f"{settings.url}/api/v1/openapi.json",
        },
        "limits": {
            "manifestBytes": limits.MANIFEST_BYTES,
            "manifestLayers": limits.MANIFEST_LAYERS,
            "configBytes": limits.CONFIG_BYTES,
            "nameChars": limits.NAME_CHARS,
            "tagChars": limits.TAG_CHARS,
        },
    }
    return Response(document, headers=_SHORT)


def _log_of(services: Services) -> dict[str, str]:
    key = services.log.key
    return {
        "url": f"{services.settings.url}/log",
        "origin": key.name,
        "key": str(key),
        "trustedRoot": f"{services.settings.url}/.well-known/trusted_root.json",
    }


def _direct_upload_of(services: Services) -> dict[str, Any] | None:
    """Where clients announce blobs that they put into the store themselves, if they can."""
    if services.prover is None:
        return None
    return {"url": f"{services.settings.url}/api/v1/uploads"}


def _countersignatures_of(services: Services) -> dict[str, str]:
    """The registry's own key, as clients pin it, and the rules by which it signs."""
    return {
        "key": base64.b64encode(services.countersigner.key.der).decode(),
        "keyUrl": f"{services.settings.url}{rules.KEY_PATH}",
        "rules": f"{services.settings.url}{rules.PATH}",
    }


@get(rules.KEY_PATH, sync_to_thread=False, include_in_schema=False)
def registry_key(request: Request[Any, Any, Any]) -> Response[str]:
    """The key of countersignatures, as cosign and openssl read it."""
    key = services_of(request).countersigner.key
    return Response(key.to_pem(), media_type="application/x-pem-file", headers=_SHORT)


@get(rules.PATH, sync_to_thread=False, include_in_schema=False)
def countersigning_rules() -> Response[str]:
    """The rules that countersignatures name by their digest."""
    return Response(rules.TEXT, media_type="text/plain; charset=utf-8", headers=_SHORT)


def is_draining() -> bool:
    """Whether the server was told to stop."""
    mark = os.environ.get(DRAIN_VARIABLE)
    return mark is not None and os.path.exists(mark)  # noqa: PTH110 - asked on every probe
