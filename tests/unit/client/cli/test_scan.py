"""What `memcube scan` is asked to look at."""

from __future__ import annotations

import pytest
from memcube.cli.commands.scan import scan
from memcube_protocol.errors import NotFoundError


def test_a_folder_whose_name_is_mistyped_is_asked_of_no_registry() -> None:
    with pytest.raises(NotFoundError, match="there is no folder 'my-cubbe' here") as refused:
        scan.main(["my-cubbe"], standalone_mode=False)
    assert "name a folder" in (refused.value.hint or "")
