"""The version of memcube."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""Of server and client alike. The package's metadata are built from this line; reading them would cost every command 15 ms."""
