"""What every test may count on."""

import signal
import sys
from pathlib import Path

# The scripts of the images are run as they lie there: beside their package.
sys.path.append(str(Path(__file__).resolve().parents[1] / "docker/vllm"))

# A shell that runs the tests in the background has SIGINT ignored, and every command that a test starts inherits that:
# none could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
