# SPDX-License-Identifier: BSD-2-Clause
"""What all tests share: Hypothesis profiles, a seed that failures print, the build under test."""

import os
import random
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

COMMON = {
    "print_blob": True,
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
# Helpers that assert are not tests to pytest: without this their failures would not say what was.
pytest.register_assert_rewrite("background", "faults.world", "property.refusals")

settings.register_profile("default", max_examples=100, **COMMON)
settings.register_profile("ci", max_examples=300, derandomize=True, **COMMON)
settings.register_profile("long", max_examples=5000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SEED = int(os.environ.get("PYMPI_SEED") or random.SystemRandom().getrandbits(32))


def pytest_report_header() -> list[str]:
    """Say which build is tested, and how to repeat the random numbers."""
    from pympi import _ffi

    return [
        f"pympi: {_ffi.BUILD} build, GIL {'kept' if _ffi.GIL_KEPT else 'released'} in calls",
        f"seed: PYMPI_SEED={SEED}",
    ]


def pytest_sessionstart() -> None:
    """Refuse to test another build than the one asked for, or none; let Ctrl-C be Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    try:
        from pympi import _ffi
    except ImportError as error:
        pytest.exit(f"pympi cannot be imported: {error}", returncode=1)
    expected = os.environ.get("PYMPI_EXPECT_BUILD", _ffi.BUILD)
    if expected != _ffi.BUILD:
        pytest.exit(f"the build under test is '{_ffi.BUILD}', not '{expected}'", returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """Add the seed to the report of a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        report.sections.append(("seed", f"repeat with PYMPI_SEED={SEED}"))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers of this test's own, the same for the same PYMPI_SEED."""
    return random.Random(SEED ^ zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of recorded traces; the test is skipped where there is none."""
    directory = Path(os.environ.get("PYMPI_SHARED", ROOT.parent / "shared")) / "data"
    if not directory.is_dir():
        pytest.skip("no recorded traces: set PYMPI_SHARED to the directory that holds data/")
    return directory
