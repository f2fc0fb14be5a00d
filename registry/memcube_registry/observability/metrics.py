"""Prometheus metrics. Labels are classes of routes, methods and statuses: never names or addresses."""

from __future__ import annotations

import os
import re
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from memcube_registry.jobs.models import State
from memcube_registry.jobs.service import Figures

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
_KNOWN: Final = (
    (re.compile(r"/v2/?"), "v2"),
    (re.compile(r"/v2/.+/blobs/uploads/[^/]*/?"), "upload"),
    (re.compile(r"/v2/.+/blobs/[^/]*"), "blob"),
    (re.compile(r"/v2/.+/manifests/[^/]*"), "manifest"),
    (re.compile(r"/v2/.+/tags/list"), "tags"),
    (re.compile(r"/v2/.+/referrers/[^/]*"), "referrers"),
    (re.compile(r"/api/(?:whoami-v2|(?:models|datasets|spaces)/.*)"), "hub"),
    (re.compile(r"(?:/datasets)?/[^/]+/[^/]+/resolve/.*"), "hub file"),
)
_FIRST: Final = {
    "api": "api",
    "token": "token",
    "healthz": "health",
    "readyz": "health",
    "metrics": "metrics",
    ".well-known": "well-known",
    "docs": "docs",
}


def route_class(path: str) -> str:
    """The class of routes that `path` belongs to: one of about a dozen words."""
    for pattern, name in _KNOWN:
        if pattern.fullmatch(path):
            return name
    return _FIRST.get(path.split("/", 2)[1] if path.startswith("/") else "", "other")


class Metrics:
    """The figures of one process, or of all workers where PROMETHEUS_MULTIPROC_DIR is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["route", "method", "status"]
        self._requests = Counter(
            "memcube_requests", "Requests answered.", labels, registry=self.registry
        )
        self._durations = Histogram(
            "memcube_request_duration_seconds",
            "From the header of a request to the end of its answer.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._received = Counter(
            "memcube_received_bytes", "Bytes of request bodies.", ["route"], registry=self.registry
        )
        self._sent = Counter(
            "memcube_sent_bytes", "Bytes of answers.", ["route"], registry=self.registry
        )
        self.running = Gauge(
            "memcube_requests_running",
            "Requests being answered now.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self._uploads = Gauge(
            "memcube_uploads_open",
            "Uploads in progress, as the database knows them.",
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

        self._direct = Counter(
            "memcube_direct_uploads",
            "Blobs that clients put into the store themselves, by what proved them.",
            ["proof"],
            registry=self.registry,
        )
        self._read_back = Counter(
            "memcube_read_back_bytes",
            "Bytes read back from the store to prove direct uploads.",
            registry=self.registry,
        )
        self._jobs = _JobFigures(self.registry)

    def count_direct_upload(self, proof: str) -> None:
        """Count one blob of a direct upload; `proof` is `checksum` or `readBack`."""
        self._direct.labels(proof).inc()

    def count_read_back(self, size_bytes: int) -> None:
        """Count bytes that were read back from the store."""
        self._read_back.inc(size_bytes)

    def record(
        self, *, route: str, method: str, status: int, duration_s: float, received: int, sent: int
    ) -> None:
        """Count one answered request; `received` and `sent` are bytes."""
        known = method if method in METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._durations.labels(route).observe(duration_s)
        self._received.labels(route).inc(received)
        self._sent.labels(route).inc(sent)

    def count_job(self, kind: str, outcome: str) -> None:
        """Count one try of a job."""
        self._jobs.tries.labels(kind, outcome).inc()

    def exposition(self, *, uploads_open: int, jobs: Figures) -> bytes:
        """All figures in Prometheus' text format."""
        self._uploads.set(uploads_open)
        self._jobs.show(jobs)
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]  # it has no annotations
        return generate_latest(merged)


class _JobFigures:
    """What the table of jobs holds, and what came of those that this process tried."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tries = Counter(
            "memcube_job_tries",
            "Jobs tried, by what came of it.",
            ["kind", "outcome"],
            registry=registry,
        )
        self._states = Gauge(
            "memcube_jobs",
            "Jobs in the database.",
            ["state"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._oldest = Gauge(
            "memcube_jobs_oldest_seconds",
            "How long the job that has waited longest is due.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def show(self, jobs: Figures) -> None:
        for state in State:
            self._states.labels(state.value).set(getattr(jobs, state.value))
        self._oldest.set(jobs.oldest_s)
