"""What a push of a path says where no folder lies there."""

from __future__ import annotations

from pathlib import Path

import memcube
import pytest
from memcube_protocol.errors import NotFoundError


@pytest.mark.parametrize("told", ["/nowhere/at/all", "./nowhere"])
def test_a_path_without_a_folder_is_not_called_a_malformed_name(
    told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMCUBE_HOME", str(tmp_path))

    with pytest.raises(NotFoundError, match="there is no folder"):
        memcube.push(told, "alice/notes:1.0.0")
