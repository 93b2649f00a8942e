"""`python -m orchestrator`: turns expected errors into a line and an exit code; a bug keeps its traceback."""

import errno
import sys

from orchestrator.errors import TandemError


def main() -> int:
    """Run the command line; return its exit code."""
    from orchestrator.cli import app

    try:
        app(prog_name="tandem" if sys.argv[0].endswith("tandem") else "python -m orchestrator", standalone_mode=True)
    except TandemError as error:
        lines = [line if line.startswith(" ") else f"error: {line}" for line in str(error).splitlines()]
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        return error.exit_code
    except OSError as error:
        # Of the file that the output goes to, or of any other.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sys.stderr.write(f"error: {error.strerror}{f': {error.filename}' if error.filename else ''}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
