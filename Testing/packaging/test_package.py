"""What the extension's package holds: cmake and cpack with a stub of Slicer's own macros."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [folder.parent for folder in sorted(ROOT.glob("DiffUS*/CMakeLists.txt"))]
NOT_SHIPPED = {"CMakeLists.txt"}  # of a module's folder; everything else belongs to the module
WHEEL_ONLY = ("diffus/studies/", "diffus/cli/study/")
INSTALL_DIR = "lib/Slicer/qt-scripted-modules"


def shipped_files(module):
    """What a module's folder has for the package, relative to the folder."""
    files = (f for f in module.rglob("*") if f.is_file() and not set(f.parts) & {"__pycache__", "diffus.egg-info"})
    names = (f.relative_to(module).as_posix() for f in files if f.name not in NOT_SHIPPED)
    return [name for name in names if not name.startswith(WHEEL_ONLY)]


def tool(name):
    path = Path(sysconfig.get_path("scripts")) / name
    found = str(path) if path.exists() else shutil.which(name)
    assert found, f"{name} is missing; install the dev dependencies"
    return found


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """The build folder, configured and packed."""
    build = tmp_path_factory.mktemp("build")
    stub = Path(__file__).parent / "stub"
    # Nothing is compiled, so no compiler is asked for.
    compilers = [f"-DCMAKE_{c}_COMPILER{x}" for c in ("C", "CXX") for x in (f"={shutil.which('true')}", "_WORKS=ON")]
    run(tool("cmake"), "-S", ROOT, "-B", build, f"-DSlicer_DIR={stub}", "-DBUILD_TESTING=ON", *compilers)
    run(tool("cpack"), "--config", build / "CPackConfig.cmake", "-B", build / "pack")
    return build


@pytest.fixture(scope="module")
def package(build):
    """The folder that the packed extension unpacks to."""
    unpacked = build / "unpacked"
    with tarfile.open(build / "pack" / "DiffUS.tar.gz") as archive:
        archive.extractall(unpacked, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    return unpacked / INSTALL_DIR


def test_the_package_holds_what_the_tree_has(package):
    tree = {file for module in MODULES for file in shipped_files(module)}
    packed = {file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()}
    assert not tree - packed, "not listed in CMakeLists.txt:\n  " + "\n  ".join(sorted(tree - packed))
    assert packed == tree


# slicer.testing.runUnitTest, which Slicer starts for every test of the list; `run` says whether to run or to import it.
RUN_UNIT_TESTS = """
import sys, unittest
before = list(sys.path)
for *folders, name in tests:
    sys.path[:] = before + folders
    suite = unittest.TestLoader().loadTestsFromName(name)
    broken = [test for test in suite if isinstance(test, unittest.loader._FailedTest)]
    assert not broken, (name, broken[0]._exception)
    assert suite.countTestCases(), name
    if run:
        result = unittest.TextTestRunner().run(suite)
        assert result.wasSuccessful(), name
        for test, reason in result.skipped:
            print(name, test.id(), reason)
"""


@pytest.fixture(scope="module")
def slicer_tests(build):
    """(build folder, folder of the test, its name) of every test that Slicer runs."""
    return [line.split("|") for line in (build / "slicer_tests.txt").read_text().splitlines()]


def test_slicer_finds_and_imports_every_scene_test(build, slicer_tests):
    names = [name for *_folders, name in slicer_tests]
    assert sorted(names) == sorted(file.stem for file in (ROOT / "Testing" / "scene").glob("*Test.py"))
    code = f"tests, run = {slicer_tests!r}, False\n{RUN_UNIT_TESTS}"
    run(sys.executable, "-c", code, cwd=build, env=without_paths())


def test_scene_tests_are_skipped_in_words_without_torch(build, slicer_tests):
    """In a Slicer without the extension PyTorch."""
    code = f"""
import sys
sys.modules["torch"] = None
tests, run = {slicer_tests!r}, True
{RUN_UNIT_TESTS}"""
    said = run(sys.executable, "-c", code, cwd=build, env=without_paths())
    reason = "torch is not installed (Slicer's extension PyTorch)"
    skipped = [line for line in said.splitlines() if line.endswith(reason)]
    assert len(skipped) > 100


def without_paths():
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}


def test_names_are_unique_where_all_modules_share_one_folder():
    files = [file for module in MODULES for file in shipped_files(module)]
    assert len(files) == len(set(files))
    for module in MODULES:
        assert [file.stem for file in module.glob("*.py")] == [module.name], "every .py here is loaded as a module"


def test_the_engine_imports_and_finds_its_data_from_the_package(package, tmp_path):
    files = [f.relative_to(package).with_suffix("") for f in sorted((package / "diffus").rglob("*.py"))]
    names = [".".join(f.parts).removesuffix(".__init__") for f in files if f.name != "__main__.py"]
    assert len(names) > 60
    code = f"""
import importlib
for name in {names!r}:
    assert importlib.import_module(name).__file__.startswith({str(package)!r}), name
from diffus.probe.presets import preset_names
from diffus.medium.tissue import label_table, tissue_table
from diffus.medium import load_impedance
assert preset_names() and tissue_table() and label_table("freesurfer") and load_impedance()
"""
    run(sys.executable, "-S", "-c", PATH_LINE + code, cwd=tmp_path, env=package_env(package))


@pytest.mark.parametrize("module", [module.name for module in MODULES])
def test_the_module_and_its_library_import_from_the_package(package, tmp_path, module):
    files = [package / f"{module}.py", *sorted((package / "DiffUSLib").rglob("*.py"))]
    names = [".".join(file.relative_to(package).with_suffix("").parts).removesuffix(".__init__") for file in files]
    code = f"""
sys.path.append({str(ROOT / "Testing")!r})
before = list(sys.path)
import headless, importlib
headless.prepare()
sys.path[:] = before  # not the checkout: the package
for name in {names!r}:
    assert importlib.import_module(name).__file__.startswith({str(package)!r}), name
"""
    run(sys.executable, "-S", "-c", PATH_LINE + code, cwd=tmp_path, env=package_env(package))


SELF_TEST = """
import sys
sys.path.append({testing!r})
before = list(sys.path)
import headless, importlib
from headless.scripted_module import ScriptedLoadableModuleTest
if not {torch}:
    sys.modules["torch"] = None
sys.path[:] = before  # not the checkout: the package
headless.newScene(needsTorch={torch})
ScriptedLoadableModuleTest.delayDisplay = lambda self, message: print(message)
module = importlib.import_module({module!r})
test = getattr(module, {module!r} + "Test")()
test.setUp()
test.runTest()
for n in range(headless.slicer.mrmlScene.GetNumberOfNodes()):
    print(headless.slicer.mrmlScene.GetNthNode(n).GetClassName())
"""


@pytest.mark.parametrize("torch", [True, False])
@pytest.mark.parametrize(
    ("module", "work", "made"),
    [
        ("DiffUSRender", "Rendering a slice", "vtkMRMLModelNode"),
        ("DiffUSRegister", "Registering a sweep", "vtkMRMLTableNode"),
    ],
)
def test_the_self_test_of_an_installed_module_does_its_work(package, tmp_path, module, work, made, torch):
    """In an installed Slicer there is no folder Testing: it holds the stand-ins for the application only."""
    code = SELF_TEST.format(testing=str(ROOT / "Testing"), module=module, torch=torch)
    said = run(sys.executable, "-S", "-c", PATH_LINE + code, cwd=tmp_path, env=package_env(package)).splitlines()
    if torch:
        assert [line for line in said if not line.startswith("vtk")] == [work, "Test passed"]
        assert made in said
    else:
        assert said[0] == "Skipped: torch is not installed (extension PyTorch)"


# The editable install of this checkout must not answer instead: -S skips its hook, then site-packages come by path.
PATH_LINE = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n"


def package_env(package):
    return {**os.environ, "PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}


def test_the_index_can_read_the_metadata():
    text = (ROOT / "CMakeLists.txt").read_text()
    for field in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'^set\(EXTENSION_{field} "[^"]+"\)$', text, re.MULTILINE), field
    for url in re.findall(r"raw\.githubusercontent\.com/[^/]+/[^/]+/[^/]+/([^\s\"]+)", text):
        assert (ROOT / url).is_file(), f"{url} is named in CMakeLists.txt"
    png = (ROOT / "Resources" / "DiffUS.png").read_bytes()
    assert (int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")) == (128, 128)
    assert "Apache License" in (ROOT / "LICENSE.txt").read_text()
