"""What the scene layer raises for input that a user can mend."""


class RenderError(ValueError):
    """One clear sentence for the person at the screen; nothing in the scene has been changed."""
