"""`_` and `translate` as Slicer has them; without the application (headless MRML) the strings stay as they are."""

try:
    from slicer.i18n import tr as _
    from slicer.i18n import translate
except ImportError:

    def _(text: str) -> str:
        return text

    def translate(context: str, text: str) -> str:
        return text


__all__ = ["_", "translate"]
