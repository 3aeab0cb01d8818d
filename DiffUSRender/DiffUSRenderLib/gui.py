"""Binding of a panel's widgets to a parameter node."""

from __future__ import annotations


def connectGui(parameterNode, ui) -> int:
    """Binds every widget of `ui` that has a SlicerParameterName; the tag is for `parameterNode.disconnectGui`.

    The wrapper's own `connectGui` gives no tag back in Slicer, so nothing it bound could ever be released.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    return parameterNode.connectParametersToGui({name: widget for name, widget in named.items() if name})
