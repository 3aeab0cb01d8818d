"""The command line in this process, as a test runs it."""

from click.testing import CliRunner, Result
from diffus.cli.main import main


def run(command: str, options: dict[str, object] | None = None, *arguments: object) -> Result:
    """Runs a command ("study pose") with options by name, those that are None left out, and what stands after them."""
    given = {f"--{name.replace('_', '-')}": value for name, value in (options or {}).items() if value is not None}
    parts = [str(part) for pair in given.items() for part in pair]
    return CliRunner().invoke(main, [*command.split(), *parts, *map(str, arguments)])


def assert_one_sentence(result: Result, words: str) -> None:
    """Bad input got one sentence on stderr, with these words, and exit status 2."""
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.strip().endswith(".")
