#!/bin/bash
# Makes the development environment in .venv: usage: bash Testing/setup.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-python3}
pip=".venv/bin/python -m pip --quiet --disable-pip-version-check --no-input"
# What PySide6 (offscreen) and VTK load from the system, by the names of Debian and Ubuntu.
libraries="libegl1 libgl1 libopengl0 libglib2.0-0 libdbus-1-3 libfontconfig1 libfreetype6 libxkbcommon0 libx11-6 libxrender1 libxcursor1 libxext6"

fail() {
    echo "setup: $*" >&2
    exit 1
}

lists=stale
apt_install() { # succeeds only as root on Debian or Ubuntu
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "setup: installing $*"
    [ $lists = fresh ] || apt-get -qq update >/dev/null 2>&1 || true
    lists=fresh
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null 2>&1
}

imports() { .venv/bin/python -c "$1" 2>&1; }

command -v "$python" >/dev/null || apt_install "$python" python3-venv || fail "no $python here; install Python 3.10-3.13, or name one: make PYTHON=..."
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *) fail "$python is Python $version; DiffUS needs 3.10 to 3.13, name one: make PYTHON=python3.12" ;;
esac

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "setup: making .venv with Python $version"
    if ! "$python" -m venv --clear .venv >/dev/null 2>&1; then
        apt_install "python$version-venv" || apt_install python3-venv || true
        "$python" -m venv --clear .venv >/dev/null 2>&1 ||
            fail "$python cannot make a virtual environment; install it: apt-get install python$version-venv"
    fi
fi

echo "setup: installing the packages of pyproject.toml into .venv (some minutes the first time)"
# torch first and alone, in the pinned version, so that nothing else chooses another build of it.
$pip install "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
$pip install --editable ".[dev]"

needs="import vtkmodules.all, slicer, PySide6.QtGui, PySide6.QtWidgets, PySide6.QtUiTools
import os; os.environ['QT_QPA_PLATFORM'] = 'offscreen'
PySide6.QtWidgets.QApplication([])"
if ! imports "$needs" >/dev/null; then
    # one by one: a name that this release does not have must not stop the others
    for library in $libraries; do apt_install "$library" || true; done
    problem=$(imports "$needs") || fail "Qt and VTK do not load (${problem##*$'\n'}); install their libraries: apt-get install $libraries"
fi
# The public validator of the DICOM files that are exported; without it its tests are skipped.
command -v dciodvfy >/dev/null || apt_install dicom3tools ||
    echo "setup: without dciodvfy the DICOM export is tested less; install it: apt-get install dicom3tools"
echo "setup: ready"
