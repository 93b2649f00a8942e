#!/bin/sh
# Runs a package installer with what the build secrets say: a package index and certificate authorities. What they leave
# out stays unset, as pip and uv take an empty PIP_INDEX_URL or SSL_CERT_FILE for an address and fail.
set -eu
index=$(cat /run/secrets/package-index 2>/dev/null || true)
if [ -n "$index" ]; then export PIP_INDEX_URL="$index" UV_DEFAULT_INDEX="$index"; fi
if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca; fi
exec "$@"
