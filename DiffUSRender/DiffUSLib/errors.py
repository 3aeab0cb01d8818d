"""What the scene layer raises for input that a user can mend."""


class RenderError(ValueError):
    """One clear sentence for the person at the screen; nothing in the scene has been changed."""


class GpuMemoryError(RenderError):
    """The GPU has too little memory at this moment; the same may succeed later."""
