"""HTTP as memcube speaks it: bounded, retried, logged in, and never led astray."""

from memcube.http.bodies import FileBody, SizedBody, StreamBody
from memcube.http.client import HttpClient, Request, Response
from memcube.http.origins import Origin
from memcube.http.retry import RetryPolicy

__all__ = [
    "FileBody",
    "HttpClient",
    "Origin",
    "Request",
    "Response",
    "RetryPolicy",
    "SizedBody",
    "StreamBody",
]
