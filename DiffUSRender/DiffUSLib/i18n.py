"""`_` and `translate` as Slicer has them; without the application (headless MRML) the strings stay as they are."""

try:
    from slicer.i18n import tr as _
    from slicer.i18n import translate
except ImportError:

    def _(text: str) -> str:
        return text

    def translate(context: str, text: str) -> str:
        return text


def translated(sentence):
    """A sentence of the engine in the user's language; what is no `diffus.errors.Sentence` stays as it is."""
    template = getattr(sentence, "template", None)
    if template is None:
        return sentence
    found = translate(sentence.context, template)
    values = {name: translated(value) for name, value in sentence.values.items()}
    return found.format(**values) if values else found


__all__ = ["_", "translate", "translated"]
