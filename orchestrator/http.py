"""The one module that speaks HTTP: asks the router what a client would ask, and mirrors what a build would ask."""

import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit
from urllib.request import (
    HTTPRedirectHandler,
    HTTPSHandler,
    ProxyHandler,
    Request,
    build_opener,
)

from orchestrator import trust
from orchestrator.trust import Shown

# The router is on this machine: a proxy from the environment must not get between.
_open = build_opener(ProxyHandler({})).open
# What the router says while nobody stands behind it.
_NOBODY = frozenset({502, 503, 504})
# Far above any page that is asked for; an answer without end is none.
LIMIT = 32 * 2**20
_HOPS = 5
# OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED.
_EXPIRED = 10


@dataclass(frozen=True)
class Answer:
    """What came back from one address: its body, or the fault in a few words, and how long it took.

    date is what time the server says it is, also with an error: Unix seconds, None where it does not say.
    """

    body: bytes = b""
    fault: str = ""
    milliseconds: int = 0
    date: float | None = None


@dataclass(frozen=True)
class Way:
    """How this machine gets out: http_proxy, https_proxy and no_proxy; and a file of authorities, "" for its own."""

    proxies: Mapping[str, str]
    authorities: str = ""


class SilentError(Exception):
    """Nobody answered, or the answer broke off; str() says how."""


class RefusedError(Exception):
    """The answer was an error: its status, and in str() its own words."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


class Worker(threading.Thread):
    """A thread that no exit waits for, and whose bug is raised where it is waited for."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._bug: Exception | None = None

    def run(self) -> None:
        """Do the work; threading calls it."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 (finish raises it)
            self._bug = error

    def finish(self, seconds: float | None = None) -> None:
        """Wait for the end, for so many seconds at the most."""
        # A Ctrl-C that comes just before a wait without a limit would be noticed after it.
        while seconds is None and self.is_alive():
            self.join(0.2)
        self.join(seconds)
        if self._bug is not None:
            raise self._bug


class _Stay(HTTPRedirectHandler):
    """Leaves redirects to _fetch, which must not be sent on to a host that nobody listed."""

    def redirect_request(self, *_: Any) -> None:
        return None


def routes_digest(address: str, *, certificate: str = "") -> str | None:
    """Ask the router for the digest of its routes; None when it does not answer."""
    answer = _ask(f"{address}/-/routes", certificate)
    return answer.get("digest") if answer else None


def lines(
    address: str,
    body: Mapping[str, Any] | None = None,
    *,
    post: bool = False,
    key: str = "",
    seconds: float | None = None,
    certificate: str = "",
) -> Generator[str, None, None]:
    """Ask the router and give the lines of its answer as they come; closing the generator closes the connection.

    body is sent as JSON; key opens what is the owner's; seconds is how long it may be silent; certificate is the file
    with that of the router, where it speaks TLS. Raises SilentError when nobody answers or the answer breaks off,
    RefusedError when it is an error.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    given = json.dumps(body).encode() if body is not None else b"" if post else None
    request = Request(address, given, headers)  # noqa: S310 (always http or https)
    try:
        with _router(certificate)(request, timeout=seconds) as answer:
            for line in answer:
                yield line.decode(errors="replace").rstrip("\r\n")
    except HTTPError as error:
        words = _words(error)
        if error.code in _NOBODY:
            raise SilentError(words) from None
        raise RefusedError(error.code, words) from None
    except (HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            said = f"the router's certificate is not the one in {certificate} ({reason.verify_message})"
            raise SilentError(f"{said}; 'python -m orchestrator doctor' says what to do") from None
        raise SilentError(_fault(reason, seconds or 0)) from None


def _words(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, LookupError, TypeError, OSError):
        return f"{error.code} {error.reason}"


def _router(certificate: str) -> Callable[..., Any]:
    """Give what opens the router's addresses. Its certificate is trusted and no other, whatever name stands in it."""
    if not certificate:
        return _open
    return build_opener(ProxyHandler({}), HTTPSHandler(context=trust.context(certificate))).open


def certificate_shown(address: str, certificate: str, *, seconds: float) -> Shown:
    """Look at the certificate that the router shows at an address, and compare it with the one in a file."""
    parts = urlsplit(address)
    place = parts.hostname or "", parts.port or 443
    try:
        expected, context = trust.first(certificate), trust.context(certificate)
    except ssl.SSLError:
        return Shown(fault="it holds no certificate (PEM)")
    except (OSError, ValueError) as error:
        return Shown(fault=_fault(error, seconds))
    try:
        # Before it is judged: another one may be trusted too, of an authority that is in the file, or have expired.
        if ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(place, timeout=seconds)) != expected:
            return Shown(same=False)
        with socket.create_connection(place, timeout=seconds) as plain, context.wrap_socket(plain) as router:
            ends = str((router.getpeercert() or {})["notAfter"])
            return Shown(same=True, ends=ssl.cert_time_to_seconds(ends))
    except ssl.SSLCertVerificationError as error:
        return Shown(expired=True) if error.verify_code == _EXPIRED else Shown(fault=error.verify_message)
    except (OSError, ValueError) as error:
        return Shown(fault=_fault(error, seconds))


def _ask(address: str, certificate: str) -> dict[str, Any] | None:
    try:
        with _router(certificate)(address, timeout=3) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):
        return None


def query(words: Mapping[str, str]) -> str:
    """Write the part of an address that comes after its question mark."""
    return urlencode(words)


def quoted(part: str) -> str:
    """Write a word as one part of an address's path."""
    return quote(part, safe="")


def get(address: str, way: Way, *, seconds: float, accept: str = "*/*") -> Answer:
    """Fetch a page from an address, which is http or https; after so many seconds it counts as silent."""
    found: list[Answer] = []
    start = time.monotonic()
    # A time limit of sockets is for each step: names that do not resolve and answers that drip know none.
    worker = Worker(lambda: found.append(_get(address, way, seconds, accept)))
    worker.start()
    worker.finish(seconds)
    took = round((time.monotonic() - start) * 1000)
    answer = found[0] if found else Answer(fault=f"no answer in {seconds:g} s")
    return replace(answer, milliseconds=took)


def _get(address: str, way: Way, seconds: float, accept: str) -> Answer:
    try:
        body, date = _fetch(address, way, seconds, accept)
        return Answer(body, date=date)
    except HTTPError as error:
        date = _date(error.headers)
        if 300 <= error.code < 400:
            return Answer(fault=f"{error.code}, sends on to {error.headers.get('Location')}", date=date)
        return Answer(fault=f"{error.code} {error.reason}", date=date)
    except InvalidURL as error:
        return Answer(fault=f"no address: {error}")
    except HTTPException:
        return Answer(fault="answers rubbish: no HTTP, or an answer that breaks off")
    except URLError as error:
        return Answer(fault=_fault(error.reason, seconds))
    except (OSError, ValueError) as error:
        return Answer(fault=_fault(error, seconds))


def _date(headers: "Message[str, str]") -> float | None:
    """What a cache on the way kept has the date of then, and says how many seconds that is ago."""
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp() + int(headers.get("Age", "0"))
    except (ValueError, OverflowError):
        return None


def _fetch(address: str, way: Way, seconds: float, accept: str) -> tuple[bytes, float | None]:
    context = ssl.create_default_context(cafile=way.authorities or None)
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context), _Stay())
    for _ in range(_HOPS):
        try:
            with opener.open(_request(address, way.proxies, accept), timeout=seconds) as answer:
                body: bytes = answer.read(LIMIT + 1)
                if len(body) > LIMIT:
                    raise ValueError(f"answers rubbish: more than {LIMIT // 2**20} MiB")
                return body, _date(answer.headers)
        except HTTPError as error:
            onward = urljoin(address, error.headers.get("Location", ""))
            # pip, apt and uv follow a redirect too; but only what is listed is to be asked.
            if not 300 <= error.code < 400 or urlsplit(onward).hostname != urlsplit(address).hostname:
                raise
            address = onward
    raise ValueError("sends on and on")


def _request(address: str, proxies: Mapping[str, str], accept: str) -> Request:
    request = Request(address, headers={"Accept": accept, "User-Agent": "tandem"})  # noqa: S310 (settings say http or https)
    proxy = proxies.get(f"{request.type}_proxy")
    if proxy and not _direct(urlsplit(address).hostname or "", proxies.get("no_proxy", "")):
        parts = urlsplit(proxy)
        if parts.username is not None:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_header("Proxy-Authorization", f"Basic {b64encode(known.encode()).decode()}")
        request.set_proxy(parts.netloc.rpartition("@")[2], parts.scheme)
    return request


def _direct(host: str, no_proxy: str) -> bool:
    names = [name.strip().lstrip(".") for name in no_proxy.split(",") if name.strip()]
    return any(name in ("*", host) or host.endswith(f".{name}") for name in names)


def _fault(error: object, seconds: float) -> str:
    """Say in a few words what a connection ran into."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted ({error.verify_message}); see TANDEM_CA_BUNDLE"
    if isinstance(error, TimeoutError):
        return f"no answer in {seconds:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionError):
        return "the connection was cut"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, UnicodeError):
        return "no address: its host is no name"
    if isinstance(error, ssl.SSLError):
        return f"answers rubbish: no TLS ({(error.reason or 'unknown').lower().replace('_', ' ')})"
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return said.replace("Tunnel connection failed: ", "the proxy says ")


def reachable(address: str, *, seconds: float) -> Answer:
    """Open a connection to the host and port of an address, and close it."""
    start = time.monotonic()
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=seconds).close()
        fault = ""
    except (OSError, ValueError) as error:
        fault = _fault(error, seconds)
    return Answer(fault=fault, milliseconds=round((time.monotonic() - start) * 1000))
