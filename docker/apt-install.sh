#!/bin/sh
# Installs Debian packages during an image build: apt-install.sh [--suite NAME] [--into FOLDER] PACKAGE...
# --into unpacks the packages and all that they depend on into a folder, and runs none of their scripts: a root file
# system of a newer suite than the base image's, with nothing else in it.
# What no server reads is left out (not with --into): documentation, translations, and of the compiler and of Python what only their own
# makers need. tests/integration/test_images.py holds that what remains is enough.
# The build secret debian-mirror replaces the address that the base image came with. Neither it nor apt's lists stay in
# the layer: the address of a user's mirror is nobody else's business.
set -eu

suite='' into=''
while :; do
    case $1 in
        --suite) suite=$2; shift 2 ;;
        --into) into=$2; shift 2 ;;
        *) break ;;
    esac
done

sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT
own=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
    sed -nE 's/^(URIs: *|deb +(\[[^]]*\] +)?)(https?:\/\/[^ ]*\/debian)\/?( .*)?$/\3/p' | head -n 1)
mirror=$(cat /run/secrets/debian-mirror 2>/dev/null || true)
mirror=${mirror:-$own}
if [ -z "$mirror" ]; then
    echo "apt-install: the base image names no Debian mirror; set TANDEM_DEBIAN_MIRROR in .env" >&2
    exit 1
fi
# Mirrors lag: a release file that is some days over its date is still signed, and better than no build.
key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg check-valid-until=no]'
# shellcheck source=/dev/null
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
{
    echo "deb $key $mirror $release main"
    [ "$release" = "${suite:-$release}" ] || echo "deb $key $mirror $suite main"
} >"$sources/list"

# As Debian's own slim images do it, so that any base image gives the same result; licences stay.
left_out='/usr/share/doc/* /usr/share/info/* /usr/share/locale/* /usr/share/man/* /usr/bin/*lto-dump* /usr/lib/python3*/config-*/*.a'
# The image's own hook empties the package cache, which a cache mount is there to keep.
rm -f /etc/apt/apt.conf.d/docker-clean
cat >"$sources/apt.conf" <<EOF
Dir::Etc::SourceList "$sources/list";
Dir::Etc::SourceParts "-";
Acquire::Retries "3";
$([ ! -s /run/secrets/ca ] || echo 'Acquire::https::CAInfo "/run/secrets/ca";')
Binary::apt::APT::Keep-Downloaded-Packages "true";
APT::Default-Release "${suite:-$release}";
$(set -f; for glob in $left_out; do echo "Dpkg::Options { \"--path-exclude=$glob\"; }"; done)
Dpkg::Options { "--path-include=/usr/share/doc/*/copyright"; }
EOF
# BuildKit's names for a proxy; apt knows the small ones alone.
if [ -n "${HTTP_PROXY:-}" ]; then export http_proxy="$HTTP_PROXY"; fi
if [ -n "${HTTPS_PROXY:-}" ]; then export https_proxy="$HTTPS_PROXY"; fi
if [ -n "${NO_PROXY:-}" ]; then export no_proxy="$NO_PROXY"; fi
export APT_CONFIG="$sources/apt.conf" DEBIAN_FRONTEND=noninteractive
apt-get -q update
if [ -z "$into" ]; then
    apt-get -q install -y --no-install-recommends "$@"
    exit
fi
# Against an empty status file every dependency is missing, so all of them are fetched.
: >"$sources/status"
mkdir -p "$sources/archives/partial"
apt-get -q install -y --no-install-recommends --download-only \
    -o Dir::State::status="$sources/status" -o Dir::Cache::archives="$sources/archives" "$@"
mkdir -p "$into/usr/bin" "$into/usr/sbin" "$into/usr/lib" "$into/usr/lib64"
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$into/$folder"; done
for package in "$sources"/archives/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$into" --keep-directory-symlink; done
