"""What every test may use."""

from pathlib import Path

import jaxtyping
import pytest
import torch
from shapes import check_shapes

check_shapes()

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are many times slower on two threads of a shared machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def only_the_engines_own_checks(request):
    """Without the check of shapes for tests marked bad_input: what the engine itself says of such input is tested."""
    if request.node.get_closest_marker("bad_input") is None:
        yield
        return
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; the test is skipped, in words, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"skipped: the shared test data is not present at {SHARED_DATA}")
    return SHARED_DATA
