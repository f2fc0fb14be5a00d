"""Commands of the project run inside this process, which spares a start of half a second each."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from unittest import mock

import structlog


def run_here(
    main: Callable[[list[str]], int],
    words: Sequence[str],
    environment: Mapping[str, str],
    stdin: str = "",
) -> subprocess.CompletedProcess[str]:
    """What `main` does with `words` where nothing but `environment` is set; what it logs is on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        mock.patch("sys.stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _logging_as_before(),
    ):
        code = main([*words])
    return subprocess.CompletedProcess([*words], code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _logging_as_before() -> Iterator[None]:
    """A command may set up the log of its process; afterwards it is the log of the tests again."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    was_configured, configuration = structlog.is_configured(), structlog.get_config()
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        if was_configured:
            structlog.configure(**configuration)
        else:
            structlog.reset_defaults()
