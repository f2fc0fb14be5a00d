"""The application: every route of the registry behind one gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, cast

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Server
from litestar.types import ASGIApp
from memcube_protocol.digest import Digest
from memcube_protocol.errors import (
    InvalidRequestError,
    LimitExceededError,
    MemcubeError,
    NotFoundError,
    UnsupportedError,
    outcome_of,
)

from memcube_registry.accounts import handshake_routes, publisher_routes
from memcube_registry.accounts import routes as accounts_routes
from memcube_registry.accounts.authentication import Authenticator
from memcube_registry.accounts.handshake import Issuer, load_key
from memcube_registry.accounts.identity_tokens import IdentityTokens
from memcube_registry.background import worker_of
from memcube_registry.blobs import direct_routes
from memcube_registry.blobs.direct import DirectUploads
from memcube_registry.blobs.proving import Prover
from memcube_registry.catalog import routes as catalog_routes
from memcube_registry.countersigning import queue
from memcube_registry.countersigning.key import signer_of
from memcube_registry.countersigning.service import Countersigner
from memcube_registry.database import Database
from memcube_registry.http import problems
from memcube_registry.http.asgi import Application, Receive, Scope, Send
from memcube_registry.http.browsers import Entrance
from memcube_registry.http.distribution import Distribution
from memcube_registry.http.exchange import serve
from memcube_registry.http.gate import Gate, Limits, Realm
from memcube_registry.hub import addresses
from memcube_registry.hub.api import HubApi
from memcube_registry.log import routes as log_routes
from memcube_registry.log import witnesses
from memcube_registry.log.service import TransparencyLog
from memcube_registry.observability import operations
from memcube_registry.observability.metrics import Metrics
from memcube_registry.observability.probes import Probes
from memcube_registry.observability.requests import Observed, configure_logging, log, request_id_of
from memcube_registry.rates.buckets import Buckets, Rate
from memcube_registry.rates.choice import buckets_of
from memcube_registry.services import Services
from memcube_registry.settings import Settings
from memcube_registry.storage import BlobStore
from memcube_registry.storage.direct import direct_writes_of
from memcube_registry.storage.opening import open_store
from memcube_registry.web import routes as web_routes

API_BODY_BYTES: Final = 1 << 20


def create_app(settings: Settings, *, buckets: Buckets | None = None) -> Litestar:
    """The registry as an ASGI application. The database must have been migrated."""
    configure_logging(settings.log_format, settings.log_level)
    services = _services(settings)
    counting = buckets or buckets_of(settings, services.database)

    app = Litestar(
        route_handlers=[
            operations.healthz,
            operations.readyz,
            operations.metrics,
            operations.well_known,
            operations.registry_key,
            operations.countersigning_rules,
            handshake_routes.get_token,
            handshake_routes.post_token,
            accounts_routes.router,
            publisher_routes.router,
            direct_routes.router,
            catalog_routes.router,
            log_routes.get_checkpoint,
            log_routes.get_tile,
            log_routes.get_trusted_root,
            log_routes.router,
            web_routes.router,
            web_routes.cube,
        ],
        lifespan=[_running],
        state=State({"services": services, "buckets": counting}),
        exception_handlers={
            MemcubeError: _on_error,
            HTTPException: _on_http,
            RecursionError: _on_depth,
            Exception: _on_bug,
        },
        request_max_body_size=API_BODY_BYTES,
        logging_config=None,
        openapi_config=_described(settings),
    )
    app.asgi_handler = _guarded(app.asgi_handler, services, counting)
    return app


@asynccontextmanager
async def _running(app: Litestar) -> AsyncIterator[None]:
    """Does jobs beside the requests, and closes the database after the last of both."""
    services: Services = app.state["services"]
    buckets: Buckets = app.state["buckets"]
    services.worker.start()
    try:
        yield
    finally:
        await serve(services.worker.stop)
        buckets.close()
        if services.prover:
            services.prover.stop()
        services.database.close()


def _described(settings: Settings) -> OpenAPIConfig:
    """What the OpenAPI document says beside the routes; we serve it ourselves, without scripts."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="An API token, mct_…")
    return OpenAPIConfig(
        title="memcube registry",
        version="1",
        description="Accounts, tokens, organisations and cubes. Cubes' bytes travel over /v2/.",
        servers=[Server(url=settings.url)],
        components=Components(security_schemes={"bearer": bearer}),
        security=[{"bearer": []}],
        use_handler_docstrings=True,
        # Litestar answers what it does not know under this path with a page of its own.
        path="/api/v1/openapi",
        render_plugins=[JsonRenderPlugin(path="/json")],
    )


def _services(settings: Settings) -> Services:
    database = Database.of(settings)
    lifetime = timedelta(seconds=settings.handshake_token_s)
    issuer = Issuer(load_key(settings.token_key_file), settings.service, lifetime)
    blobs, log = open_store(settings, database), _log(settings, database)
    signer = signer_of(load_key(settings.countersigning_key_file))
    countersigner = Countersigner(database, blobs, log, signer, settings.url)
    metrics = Metrics()
    return Services(
        settings=settings,
        database=database,
        blobs=blobs,
        issuer=issuer,
        authenticator=Authenticator(database, issuer, settings.anonymous_pull),
        metrics=metrics,
        probes=Probes.of(database, blobs, metrics),
        identities=IdentityTokens(settings.oidc_issuers, settings.service),
        log=log,
        prover=_prover(settings, database, blobs, metrics),
        countersigner=countersigner,
        worker=worker_of(settings, database, blobs, log, countersigner, metrics),
    )


def _prover(
    settings: Settings, database: Database, blobs: BlobStore, metrics: Metrics
) -> Prover | None:
    """Who ends direct uploads, where clients can and may write to the store."""
    store = direct_writes_of(blobs)
    if store is None or settings.s3_writes != "direct":
        return None
    return Prover(DirectUploads(database, blobs, store, settings.s3_whole_bytes), metrics)


def _log(settings: Settings, database: Database) -> TransparencyLog:
    return TransparencyLog(
        database,
        load_key(settings.log_key_file),
        settings.log_name,
        witnesses.parse(settings.log_witnesses),
        fixed=bool(settings.log_origin),
    )


def _guarded(app: ASGIApp, services: Services, buckets: Buckets) -> ASGIApp:
    """`app` and the distribution API behind the gate.

    Litestar's middleware would not see requests that match no route.
    """
    settings = services.settings
    limits = Limits(
        account=Rate(settings.requests_per_s),
        address=Rate(settings.anonymous_requests_per_s),
        failures=Rate(settings.failed_logins_per_minute / 60),
    )
    realm = Realm(settings.url, settings.service)

    def countersign(repository_id: int, referrer: Digest) -> None:
        services.worker.do_now(queue.KIND, queue.subject_of(repository_id, referrer))

    distribution = Distribution(services.database, services.blobs, countersign)
    hub = HubApi(services.database, services.blobs, settings.url)
    every = _chosen(distribution, hub, cast(Application, app))
    gate = Gate(
        every,
        services.authenticator,
        buckets,
        limits,
        realm,
        Entrance.of(settings),
        settings.proxy_networks(),
    )
    observed = Observed(gate, services.metrics, body_timeout_s=settings.body_timeout_s)
    return cast(ASGIApp, observed)


def _chosen(distribution: Application, hub: Application, rest: Application) -> Application:
    """`distribution` and `hub` for what their paths look like: they refuse odd ones themselves."""

    async def chosen(scope: Scope, receive: Receive, send: Send) -> None:
        raw = bytes(scope.get("raw_path") or b"")
        if raw.startswith(b"/v2/") or str(scope["path"]).startswith("/v2/"):
            await distribution(scope, receive, send)
        elif addresses.is_ours(raw):
            await hub(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return chosen


def _on_error(request: Request[Any, Any, Any], error: MemcubeError) -> Response[bytes]:
    status = outcome_of(error).http_status
    if status >= 500:
        log.error("the request failed", error=str(error), code=error.code)
    return _answer(request, error, status, problems.headers_of(error))


def _on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Litestar's own refusals, in our form and with their status."""
    if error.status_code >= 500:
        return _on_bug(request, error)
    return _answer(request, _translated(error), error.status_code, dict(error.headers or {}))


def _on_depth(request: Request[Any, Any, Any], _error: RecursionError) -> Response[bytes]:
    """The decoder's refusal of a body that is nested too deep."""
    deep = InvalidRequestError("the body is nested too deep", hint="see /api/v1/docs")
    return _on_error(request, deep)


def _on_bug(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    log.error("the server made a mistake", exc_info=error)
    unknown = MemcubeError(
        "the server made a mistake",
        hint=f"tell the operator the request id {request_id_of(request.scope)}",
    )
    return _answer(request, unknown, 500, {})


def _answer(
    request: Request[Any, Any, Any], error: MemcubeError, status: int, headers: dict[str, str]
) -> Response[bytes]:
    document = problems.to_problem(error, instance=request_id_of(request.scope)) | {
        "status": status
    }
    return Response(
        problems.encode(document),
        status_code=status,
        media_type=problems.PROBLEM_TYPE,
        headers=headers,
    )


def _translated(error: HTTPException) -> MemcubeError:
    if error.status_code == 404:
        return NotFoundError("there is nothing at this address", hint="see /api/v1/docs")
    if error.status_code == 405:
        return UnsupportedError("this address does not take that method", hint="see /api/v1/docs")
    if error.status_code == 413:
        return LimitExceededError(
            f"the body is larger than {API_BODY_BYTES} bytes", hint="send less at once"
        )
    return InvalidRequestError(_reason(error), hint="see /api/v1/docs")


def _reason(error: HTTPException) -> str:
    extra = error.extra if isinstance(error.extra, list) else []
    messages = [f"{e.get('key', '')}: {e.get('message', '')}" for e in extra if isinstance(e, dict)]
    return "; ".join(messages) or error.detail
