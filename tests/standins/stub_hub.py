#!/usr/bin/env python3
"""A stand-in for the ModelScope hub (its read side), standard library only.

  stub_hub.py ROOT [--host 127.0.0.1] [--port 0] [--rate BYTES_PER_S] [--corrupt PATH] [--tls CERT KEY] [--token T]

ROOT/<org>/<name>/... are served as model repos, branch "master".
Point a client at it with  MODELSCOPE_ENDPOINT=http://127.0.0.1:PORT   (modelscope >= 1.38)
                     or    MODELSCOPE_DOMAIN=127.0.0.1:PORT + --tls    (modelscope <= 1.37: https only)
--rate throttles file bodies; --corrupt flips one byte of that file on the wire (every time).
One JSON line per request on stderr; the first stdout line is the base URL.
"""
import argparse, hashlib, json, os, ssl, sys, time, threading, re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

A = None
_sha, _lock = {}, threading.Lock()


def sha256(p: Path) -> str:
    st = p.stat()
    key = (str(p), st.st_size, st.st_mtime_ns)
    with _lock:
        if key not in _sha:
            h = hashlib.sha256()
            with p.open("rb") as f:
                while b := f.read(1 << 20):
                    h.update(b)
            _sha[key] = h.hexdigest()
        return _sha[key]


class H(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stub-modelscope"

    def log_message(self, *a):
        pass

    def note(self, status, **kw):
        print(json.dumps({"m": self.command, "p": self.path, "s": status,
                          "range": self.headers.get("Range"),
                          "auth": bool(self.headers.get("Authorization")), **kw}), file=sys.stderr, flush=True)

    def js(self, data, status=200, code=None, message=""):
        body = json.dumps({"Code": code or status, "Success": status == 200,
                           "Message": message, "RequestId": "stub", "Data": data}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.note(status)

    def do_POST(self):
        n = int(self.headers.get("Content-Length") or 0)
        req = json.loads(self.rfile.read(n) or b"{}")
        if urlsplit(self.path).path == "/api/v1/login":
            if A.token and req.get("AccessToken") != A.token:
                return self.js(None, 401, 10010205001, "token invalid")
            return self.js({"AccessToken": "git-token", "Username": "stub", "Email": "stub@localhost"})
        self.js(None, 404, message="no such endpoint")

    def do_GET(self):
        u = urlsplit(self.path)
        q = {k: v[0] for k, v in parse_qs(u.query).items()}
        if u.path == "/api/v1/repos/internalAccelerationInfo":
            return self.js({"InternalRegionQueryAddress": ""})
        m = re.fullmatch(r"/(?:api|openapi)/v1/models/([^/]+)/([^/]+)(/revisions|/repo/files|/repo)?", unquote(u.path))
        repo = A.root / m[1] / m[2] if m else None
        if repo is None or not repo.is_dir():
            return self.js(None, 404, 10010205001, f"no repo at {u.path}")
        if m[3] is None:
            return self.js({"Id": 1, "Path": m[1], "Name": m[2], "Revision": "master", "Visibility": 5})
        if m[3] == "/revisions":
            return self.js({"RevisionMap": {"Branches": [{"Revision": "master", "CreatedAt": 0}], "Tags": []}})
        rev = q.get("Revision", "master")
        if rev != "master":
            return self.js(None, 404, 10010205001, f"no revision {rev}")
        if m[3] == "/repo/files":
            out, root = [], q.get("Root", "").strip("/")
            deep = q.get("Recursive", "False").lower() == "true"
            for p in sorted((repo / root).rglob("*") if deep else (repo / root).iterdir()):
                e = {"Name": p.name, "Path": p.relative_to(repo).as_posix(), "Revision": "0" * 40,
                     "CommittedDate": int(p.stat().st_mtime), "Mode": "100644", "IsLFS": False}
                e |= ({"Type": "tree", "Size": 0, "Sha256": ""} if p.is_dir() else
                      {"Type": "blob", "Size": p.stat().st_size, "Sha256": sha256(p)})
                out.append(e)
            return self.js({"Files": out})
        f = repo / q.get("FilePath", "")
        if ".." in q.get("FilePath", "") or not f.is_file():
            return self.js(None, 404, 10010205001, "no such file")
        size = f.stat().st_size
        start, end, status = 0, size - 1, 200
        r = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if r:
            start, end, status = int(r[1]), int(r[2] or size - 1), 206
            if start >= size or end < start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return self.note(416)
            end = min(end, size - 1)
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start + 1 if size else 0))
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        bad = size // 2 if A.corrupt == q["FilePath"] else -1
        sent = 0
        try:
            with f.open("rb") as fh:
                fh.seek(start)
                while self.command != "HEAD" and start + sent <= end:
                    b = fh.read(min(65536, end - start - sent + 1))
                    if start + sent <= bad < start + sent + len(b):
                        i = bad - start - sent
                        b = b[:i] + bytes([b[i] ^ 255]) + b[i + 1:]
                    self.wfile.write(b)
                    sent += len(b)
                    if A.rate:
                        time.sleep(len(b) / A.rate)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        self.note(status, sent=sent)

    do_HEAD = do_GET


if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("root", type=Path)
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--rate", type=float, default=0)
    ap.add_argument("--corrupt")
    ap.add_argument("--token")
    ap.add_argument("--tls", nargs=2)
    A = ap.parse_args()
    s = ThreadingHTTPServer((A.host, A.port), H)
    if A.tls:
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        c.load_cert_chain(*A.tls)
        s.socket = c.wrap_socket(s.socket, server_side=True)
    print(f"http{'s' if A.tls else ''}://{A.host}:{s.server_port}", flush=True)
    s.serve_forever()
