"""The pages: tables as the code has them, links that lead somewhere, Python that runs, commands that exist."""

import ast
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import settings_tables
from diffus.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "Testing" / "Benchmarks" / "results"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "Docs").glob("*.md")), RESULTS / "README.md"]


def ids(value):
    return value.name if isinstance(value, Path) else None


@pytest.mark.parametrize(("page", "name", "make"), settings_tables.BLOCKS, ids=ids)
def test_a_table_is_what_the_code_says(page, name, make):
    text = page.read_text(encoding="utf-8")
    assert settings_tables.renewed(text, name, make()) == text, "run: python Testing/tools/settings_tables.py"


@pytest.mark.parametrize("module", ["DiffUSRender", "DiffUSRegister"])
def test_every_bound_setting_has_a_row(module):
    rows = settings_tables.tables(module).count("\n| **")
    assert rows >= len(settings_tables.bound_parameters(module)) > 15


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            file, _, anchor = target.partition("#")
            there = (page.parent / file).resolve() if file else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_named_in_a_page_exist(page):
    for name in re.findall(r"`((?:Testing|Resources|Docs)/[\w./]+)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_engine_files_named_in_a_page_exist(page):
    """As `diffus/room/file.py`, or without `diffus/`."""
    home = ROOT / "DiffUSRender"
    for name in re.findall(r"`((?:[\w]+/)+(?:\w+\.(?:py|csv|json))?)`", page.read_text(encoding="utf-8")):
        if name.split("/")[0] not in ("Testing", "Resources", "Docs", "bench", "demo"):
            places = (ROOT / name, home / name, home / "diffus" / name)
            assert any(place.exists() for place in places), name


def test_what_the_readme_imports_exists():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    found = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    assert len(found) >= 4
    for node in found:
        module = importlib.import_module(node.module)
        for alias in node.names:
            assert hasattr(module, alias.name), (node.module, alias.name)


def test_the_results_are_those_that_their_page_names():
    named = re.findall(r"`([\w-]+\.(?:csv|png|json))`", (RESULTS / "README.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in RESULTS.iterdir() if path.name != "README.md")


def test_the_examples_run(tmp_path):
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "Docs" / "developers.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) >= 5
    paths = [str(ROOT / module) for module in ("DiffUSRender", "DiffUSRegister")]
    code = f"import sys\nsys.path[:0] = {paths!r}\n" + "\n".join(blocks)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def commands(group: click.Group = main, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Every command by its words, those of groups too."""
    found = {}
    for name, command in group.commands.items():
        words = (*above, name)
        found |= commands(command, words) if isinstance(command, click.Group) else {words: command}
    return found


COMMANDS = commands()


def command_lines(page: Path) -> list[list[str]]:
    """The words of every call of the command line in a page."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"(?:python -m diffus|^ *diffus) ([^`\n#|>]*)", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def words_of(line: list[str]) -> tuple[str, ...]:
    return tuple(line[:2]) if line[0] == "study" else tuple(line[:1])


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_their_options_exist(page):
    for line in command_lines(page):
        command = COMMANDS.get(words_of(line))
        assert command is not None, line
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.split("=")[0] for word in line if word.startswith("--")} - known - {"--help"}
        assert not unknown, (line, unknown)


def test_the_pages_show_every_command():
    shown = {words_of(line) for line in command_lines(ROOT / "Docs" / "commands.md")}
    missing = {" ".join(words) for words in COMMANDS if words not in shown}
    assert not missing, ", ".join(sorted(missing))
