"""What every test may count on."""

import signal

# A shell that runs the tests in the background has SIGINT ignored, and every command that a test starts inherits that:
# none could be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
