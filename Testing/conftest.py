"""What every test may use."""

from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are many times slower on two threads of a shared machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data; the test is skipped, in words, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"skipped: the shared test data is not present at {SHARED_DATA}")
    return SHARED_DATA
