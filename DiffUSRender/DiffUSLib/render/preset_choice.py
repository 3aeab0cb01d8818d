"""A preset and the numbers that it stands for: choosing one writes them, changing one of them makes it Custom."""

from __future__ import annotations

import enum
from collections.abc import Callable


class PresetChoice:
    """Follows the preset that a parameter node names.

    Args:
        attribute: of the parameter node, an enumeration with a member CUSTOM.
        read: the numbers that the preset decides, of a parameter node.
        write: writes the numbers of a preset into a parameter node; tells whether that could be done.
    """

    def __init__(
        self,
        attribute: str,
        read: Callable[[object], object],
        write: Callable[[object, enum.Enum], bool],
    ) -> None:
        self._attribute, self._read, self._write = attribute, read, write
        self._preset: enum.Enum | None = None
        self._numbers: object = None

    def hold(self, parameterNode) -> None:
        """Takes preset and numbers as they are: what a scene brings is not applied again."""
        self._preset, self._numbers = getattr(parameterNode, self._attribute), self._read(parameterNode)

    def update(self, parameterNode) -> None:
        """After a change of the node: writes the numbers of another preset, or names other numbers Custom."""
        preset, numbers = getattr(parameterNode, self._attribute), self._read(parameterNode)
        custom = type(preset)["CUSTOM"]
        if preset not in (self._preset, custom):
            if not self._write(parameterNode, preset):
                setattr(parameterNode, self._attribute, self._preset)
                return
            self._numbers = self._read(parameterNode)
        elif preset is not custom and numbers != self._numbers:
            setattr(parameterNode, self._attribute, custom)
        self._preset = getattr(parameterNode, self._attribute)
