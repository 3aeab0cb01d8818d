"""What the extension says of itself: every file that names version, category, dependencies or paper agrees."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ARXIV = "2508.06768"


def cmake(name):
    (value,) = re.findall(rf'^set\(EXTENSION_{name} "([^"]*)"\)$', (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    return value


def project(name):
    return re.search(rf'^{name} = "([^"]*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def test_the_index_entry_agrees_with_cmake():
    entry = json.loads((ROOT / "Resources" / "DiffUS.json").read_text())
    # The catalogue's schema 1.0.1: these keys and no others, the first three required.
    allowed = {"$schema", "category", "scm_url", "scm_revision", "scm_type"}
    allowed |= {"build_dependencies", "build_subdirectory", "enabled", "tier"}
    assert {"$schema", "category", "scm_url"} <= set(entry) <= allowed
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["build_dependencies"] == cmake("DEPENDS").split()
    assert entry["category"] == cmake("CATEGORY")
    assert entry["scm_url"].removesuffix(".git") == cmake("HOMEPAGE")
    assert entry["tier"] == 3


def test_the_modules_stand_in_the_category_of_the_extension():
    for module in ("DiffUSRender", "DiffUSRegister"):
        text = (ROOT / module / f"{module}.py").read_text()
        assert f'translate("qSlicerAbstractCoreModule", "{cmake("CATEGORY")}")' in text
        assert "not for clinical decisions" in text


def test_the_description_warns():
    assert "Not for clinical decisions" in cmake("DESCRIPTION")
    assert "Not for clinical decisions" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("Resources/DiffUS.png", (128, 128)),
        ("DiffUSRender/Resources/Icons/DiffUSRender.png", (128, 128)),
        ("DiffUSRegister/Resources/Icons/DiffUSRegister.png", (128, 128)),
        ("DiffUSRegister/Resources/Icons/DiffUSSampleCase.png", (240, 160)),
    ],
)
def test_the_icons_have_their_size(path, size):
    with Image.open(ROOT / path) as image:
        assert (image.format, image.size) == ("PNG", size)
        assert image.convert("L").getextrema()[1] > 100


def test_version_and_licence_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project('version')}" in citation
    assert f"license: {project('license')}" in citation
    assert f"## {project('version')}" in (ROOT / "CHANGELOG.md").read_text()
    assert "Apache License" in (ROOT / "LICENSE.txt").read_text()


def test_the_paper_is_cited():
    for file in ("README.md", "CITATION.cff", "DiffUSRender/DiffUSRender.py"):
        assert ARXIV in (ROOT / file).read_text(), file
