"""What a user reads of the engine, as sentences that can be translated, and the one error that a user can cause."""

from __future__ import annotations

import sys


def _(text: str) -> str:
    """Marks a text for translators; the scene layer looks it up in the user's language."""
    return text


def _calling_file() -> str:
    """The name of the engine's file that makes a sentence; empty where none does."""
    frame = sys._getframe(1)
    while frame is not None:
        package, _dot, file = frame.f_globals.get("__name__", "").rpartition(".")
        if package.partition(".")[0] == "diffus" and file != "errors":
            return file
        frame = frame.f_back
    return ""


class Sentence(str):
    """English text that remembers what it was made from.

    Args:
        template: the text, marked by `_`, with the names of the values in braces as `str.format` takes them.
        values: by these names.

    Attributes:
        context: the engine's file that made it, by whose name Slicer's translations go.
    """

    template: str
    values: dict[str, object]
    context: str

    def __new__(cls, template: str, **values: object) -> Sentence:
        made = super().__new__(cls, template.format(**values) if values else template)
        made.template, made.values = template, values
        made.context = _calling_file()
        return made


class InputError(ValueError):
    """Input that cannot be used, in one sentence for the person at the screen: what is wrong and what to do.

    Command lines print it and exit 2, the Slicer modules show it, nothing else is changed.

    Args:
        template: as `Sentence` takes it.
        values: likewise.
    """

    def __init__(self, template: str, **values: object) -> None:
        self.sentence = Sentence(template, **values)
        super().__init__(str(self.sentence))


class DiskError(InputError):
    """A file that could not be written to its end, in one sentence; command lines exit 1."""
