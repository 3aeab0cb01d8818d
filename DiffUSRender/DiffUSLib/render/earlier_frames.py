"""What a frame in Live has of those before it: a number, so that its noise is new, and what persistence keeps."""

from __future__ import annotations

import weakref

from .. import engine
from .parameters import RenderParameters


class EarlierFrames:
    """Counts the frames, and remembers what was shown for as long as settings and medium stay."""

    def __init__(self) -> None:
        self._number = 0
        self._remembered = 0
        self._persistence: engine.Persistence | None = None
        self._parameters: RenderParameters | None = None
        self._medium = lambda: None

    @property
    def blended(self) -> bool:
        """Whether earlier frames are seen in the last one."""
        return self._persistence is not None and self._remembered > 1

    def forget(self) -> None:
        """The next frame is seen alone; it is numbered on."""
        self._persistence, self._remembered = None, 0

    def next(self, parameters: RenderParameters, medium) -> tuple[int, engine.Persistence | None]:
        """The number of the next frame, and the persistence that its image goes through, or None.

        Args:
            parameters: of a frame in full quality.
            medium: the engine's.
        """
        if parameters != self._parameters or medium is not self._medium():
            self.forget()
            self._parameters, self._medium = parameters, weakref.ref(medium)
        if self._persistence is None and parameters.image.persistence > 0:
            self._persistence = engine.buildPersistence(parameters.image.persistence)
        self._number += 1
        self._remembered += 1
        return self._number, self._persistence
