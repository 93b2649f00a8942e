"""Reads files of certificates: bundles of authorities, a certificate with its key, the router's that is trusted."""

import ssl
from dataclasses import dataclass
from pathlib import Path

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True)
class Shown:
    """The certificate that the router shows, beside the one in its file.

    same says whether they are one, and ends when it ends, in Unix seconds. None is what is not known: it has expired,
    or fault says why.
    """

    same: bool | None = None
    ends: float | None = None
    expired: bool = False
    fault: str = ""


def context(certificate: str) -> ssl.SSLContext:
    """Trust the certificate of a file, whatever name stands in it, and no other. Raises OSError when it holds none."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    # One that an authority signed is no authority itself.
    found.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    found.load_verify_locations(certificate)
    return found


def first(certificate: str) -> bytes:
    """Give the first certificate of a file, which a server shows as its own, as DER. Raises OSError and ValueError."""
    text = Path(certificate).read_text(encoding="ascii", errors="replace")
    return ssl.PEM_cert_to_DER_cert(_BEGIN + text.partition(_BEGIN)[2].partition(_END)[0] + _END)


def authorities(path: Path) -> int | str:
    """Count the certificates of a bundle; or say why it is none."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        found.load_verify_locations(path)
    except ssl.SSLError:
        return "holds no certificate (PEM)"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return found.cert_store_stats()["x509"]


def certificate_fault(certificate: str, key: str) -> str | None:
    """Say why a server could not speak TLS with a certificate and its key, by their paths; None when it could."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A passphrase would be asked for where nobody is.
        found.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key} is not that of the certificate in {certificate}"
        return f"{certificate} and {key} should be a certificate and its key, both PEM, the key without a passphrase"
    except OSError as error:
        return f"{certificate} or {key} cannot be read: {error.strerror}"
    return None
