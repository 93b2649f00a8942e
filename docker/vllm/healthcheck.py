"""The server's health check: it answers, and it lists the served model name that it was started for."""

import json
import sys
from urllib.request import ProxyHandler, build_opener

ADDRESS = "http://127.0.0.1:8000/v1/models"


def main(served_model_name: str) -> int:
    """Return 0 when the server lists served_model_name; print the reason and return 1 otherwise."""
    try:
        # The server is in this container: a proxy from Docker's settings must not get between.
        with build_opener(ProxyHandler({})).open(ADDRESS, timeout=3) as answer:
            listed = [model["id"] for model in json.load(answer)["data"]]
    except (OSError, ValueError, KeyError) as error:
        print(f"no answer yet: {error}")
        return 1
    if served_model_name not in listed:
        print(f"lists {listed}, not {served_model_name}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
