"""The configurations of nginx in the router's benchmark: the server behind all contenders, and plain proxies. Pure."""

import json
import re
from collections.abc import Callable

from tests.routing.bench_wrk import CannotMeasureError

ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "tiny",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
# Where the router says its ports: in nginx.conf, or in what its start script writes.
LISTEN = re.compile(r"\blisten (?:[\w.*\[\]:]*:)?(\d+)\b")
# No body is written to a file, here or by the router: memory is faster for all.
HEAD = """\
worker_processes auto;
pid /tmp/nginx.pid;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
"""
COMMON = """\
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    scgi_temp_path /tmp/scgi;
    uwsgi_temp_path /tmp/uwsgi;
    client_max_body_size 64m;
    client_body_buffer_size 64m;
"""


def upstream(port: int) -> str:
    """A server that answers at once when it has read the whole body: nginx's own `return` would not wait for it."""
    answer = json.dumps(ANSWER)
    return f"""\
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
{HEAD}http {{
    lua_package_path "/usr/share/lua/5.1/?.lua;;";
{COMMON}    keepalive_requests 1000000000;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            content_by_lua_block {{
                ngx.req.read_body()
                ngx.header["X-Read"] = ngx.var.request_length
                ngx.header["Content-Length"] = {len(answer)}
                ngx.print([[{answer}]])
            }}
        }}
    }}
}}
"""


def plain(port: int, to: int, *, kept: bool = True) -> str:
    """A proxy that passes everything on to one server, over connections that are kept, or over a new one each time."""
    version, connection = ("1.1", '""') if kept else ("1.0", "close")
    return f"""\
{HEAD}http {{
{COMMON}    proxy_http_version {version};
    proxy_set_header Connection {connection};
    upstream one {{
        server 127.0.0.1:{to};
        keepalive {256 if kept else 0};
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://one;
        }}
    }}
}}
"""


def moved(files: dict[str, str], port: int, other: Callable[[], int]) -> dict[str, str]:
    """The router's files that say a port, changed to ports of this machine alone; no other change is made.

    8000, where clients come, becomes `port`; each other one is one that other() gives.
    """

    def here(said: re.Match[str]) -> str:
        return f"listen 127.0.0.1:{port if said[1] == '8000' else other()}"

    if not any("8000" in LISTEN.findall(text) for text in files.values()):
        raise CannotMeasureError(f"nowhere is `listen 8000`: {', '.join(files)}")
    return {path: LISTEN.sub(here, text) for path, text in files.items() if LISTEN.search(text)}
