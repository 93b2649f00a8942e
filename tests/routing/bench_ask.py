"""One request at a time, for what the router's benchmark must know before it measures."""

import http.client

from tests.routing.bench_wrk import PATH


def ask(port: int, body: bytes, *, seconds: float = 60) -> tuple[int, dict[str, str], bytes]:
    """POST a body as the load does; give status, headers (lower case) and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def trouble(port: int, body: bytes, *, counted: bool) -> str:
    """Say what is wrong with a body's way, or nothing; counted: the server's header says how much of it was read."""
    try:
        status, headers, answer = ask(port, body)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    if status != 200:
        return f"{status}: {answer[:300].decode(errors='replace')}"
    if counted and int(headers.get("x-read", "0")) < len(body):
        return f"its server read {headers.get('x-read', 'nothing that it says')} of {len(body)} bytes"
    return ""
