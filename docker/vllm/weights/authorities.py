"""The certificate authorities of a network that opens TLS, for the hubs' clients."""

import os
from pathlib import Path

AUTHORITIES = Path("/run/secrets/ca")


def trust(bundle: Path) -> None:
    """Have the clients of this process, and of what it becomes, trust a bundle, if there is one; a set one stays."""
    if bundle.is_file() and bundle.stat().st_size:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", str(bundle))
        os.environ.setdefault("SSL_CERT_FILE", str(bundle))
