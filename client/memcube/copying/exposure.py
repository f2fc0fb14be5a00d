"""Who shall be able to read a copy, and whether the cube's own governance bears that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from memcube_protocol.config import CubeConfig
from memcube_protocol.reference import Reference

from memcube import rules
from memcube.context import Context
from memcube.publishing.visibility import Visibility, set_visibility


@dataclass(frozen=True, slots=True)
class Exposure:
    """Who shall be able to read a copy; None: who can already, and of a new one its owners only.

    `confidential` lets a cube become public that its governance calls confidential or personal.
    """

    visibility: Visibility | None = None
    confidential: bool = False

    def require(self, context: Context, config: CubeConfig) -> None:
        """That the cube's own governance does not speak against it; before anything is copied.

        Raises:
            RuleRefusedError: it does.
        """
        if self.visibility is Visibility.PUBLIC and not self.confidential:
            rules.require_publishable(context, config.governance, config.name)

    def apply(self, context: Context, place: Reference) -> None:
        """Make it so at `place`.

        Raises:
            UnsupportedError, UnauthenticatedError, ForbiddenError, NotFoundError: as `set_visibility`.
        """
        if self.visibility is not None:
            set_visibility(context, place, self.visibility)


AS_IT_IS: Final = Exposure()
