"""`python -m diffus`: the command line, where its packages are installed."""

import sys

try:
    import click  # noqa: F401
    import rich  # noqa: F401
except ModuleNotFoundError as error:
    sys.exit(f"The command line needs {error.name}; install it: pip install 'diffus[cli]'.")

from .cli.main import main

if __name__ == "__main__":
    main()
