"""`_` and `translate`, as in DiffUSRenderLib."""

from DiffUSRenderLib.i18n import _, translate

__all__ = ["_", "translate"]
