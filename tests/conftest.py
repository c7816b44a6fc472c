"""Fixtures shared by all tests."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.object_server import serving

# Threads that spin while they wait for each other cost a loaded machine a hundredfold (they gain a quiet one
# threefold, so training itself lets them); read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# An example during which the machine stood still is none that takes too long.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, even where tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _keep_denormals() -> Iterator[None]:
    """Training flushes denormal numbers for the whole process; other tests rely on them."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def object_server() -> Iterator[str]:
    """URL of an S3 server."""
    with serving() as url:
        yield url


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real captures beside the repository; tests that need it are skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real captures at {SHARED_DATA}")
    return SHARED_DATA
