#!/bin/sh
# Runs a package installer with the settings that the machine gave, and without those that it left empty:
# pip and uv take an empty PIP_INDEX_URL or SSL_CERT_FILE for an address and fail.
set -eu
[ -s /run/secrets/ca ] || unset SSL_CERT_FILE PIP_CERT
[ -n "${PIP_INDEX_URL:-}" ] || unset PIP_INDEX_URL
[ -n "${UV_DEFAULT_INDEX:-}" ] || unset UV_DEFAULT_INDEX
exec "$@"
