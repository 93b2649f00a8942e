"""What every test may count on."""

import signal
import sys
from pathlib import Path

import pytest

from tests.standins import nvml

# The scripts of the images are run as they lie there: beside their package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "docker/vllm"))

# A shell that runs the tests in the background has SIGINT ignored, and every command that a test starts inherits that:
# none could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in of NVIDIA's library, in a folder of its own for LD_LIBRARY_PATH."""
    return nvml.library(tmp_path_factory.mktemp("nvml"))
