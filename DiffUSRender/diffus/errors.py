"""The one error that a user can cause."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is one clear sentence for the person at the screen: what is wrong and what to do.
    Command lines print it and exit 2, the Slicer modules show it, nothing else is changed.
    """
