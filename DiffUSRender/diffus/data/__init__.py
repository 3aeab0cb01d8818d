"""Tables and small trained weights, read with `importlib.resources`."""
