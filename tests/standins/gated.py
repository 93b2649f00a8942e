#!/usr/bin/env python3
"""A stand-in for `vllm serve` for tests of its entrypoint: it loads until it is told to go on, then lists its name.

  vllm serve MODEL --served-model-name NAME --port PORT

It is told by files in the folder that STANDIN_FOLDER names: NAME.go ends the loading, and what stands in NAME.end is
the code with which it ends. What happens to it is in `log` there, a line each: "NAME load", "NAME up", "NAME SIGTERM".
NAME.pid is its process id, NAME.environment and NAME.argv what it was started with. STANDIN_STUBBORN=1 has it ignore
SIGTERM; STANDIN_WORKER=1 gives it a child in a session of its own that ignores it too, named in NAME.worker.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(os.environ["STANDIN_FOLDER"])
NAME = sys.argv[sys.argv.index("--served-model-name") + 1]
PORT = int(sys.argv[sys.argv.index("--port") + 1])
WORKER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


def note(text):
    with (FOLDER / "log").open("a") as log:
        log.write(f"{NAME} {text}\n")


def write(kind, text):
    new = FOLDER / f"{NAME}.{kind}.new"
    new.write_text(text)
    new.rename(FOLDER / f"{NAME}.{kind}")


def serve():
    body = json.dumps({"data": [{"id": NAME}]}).encode()
    with socket.create_server(("127.0.0.1", PORT)) as listener:
        while True:
            line = listener.accept()[0]
            with line:
                line.recv(65536)
                line.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)


def ended(number, _):
    note(signal.Signals(number).name)
    if os.environ.get("STANDIN_STUBBORN") != "1":
        os._exit(0)


signal.signal(signal.SIGTERM, ended)
signal.signal(signal.SIGINT, ended)
if os.environ.get("STANDIN_WORKER") == "1":
    worker = subprocess.Popen([sys.executable, "-S", "-c", WORKER], start_new_session=True, stdout=subprocess.PIPE)
    worker.stdout.readline()
    write("worker", str(worker.pid))
write("environment", json.dumps(dict(os.environ)))
write("argv", json.dumps(sys.argv))
write("pid", str(os.getpid()))
note("load")
serving = None
while not (FOLDER / f"{NAME}.end").exists():
    if serving is None and (FOLDER / f"{NAME}.go").exists():
        note("up")
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
    time.sleep(0.02)
code = int((FOLDER / f"{NAME}.end").read_text())
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
