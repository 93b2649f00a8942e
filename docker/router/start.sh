#!/usr/bin/busybox sh
# Starts nginx as the container's first process. What nginx.conf has from the environment is written to /tmp/tandem here,
# as nginx's own language knows no environment; with other arguments it is another nginx, which has nothing from there.
# shellcheck disable=SC2016 # What looks like variables is nginx's.
set -eu
CERT=/run/secrets/tls-cert KEY=/run/secrets/tls-key KEYS=/run/keys/keys INTO=/tmp/tandem LOG=/var/log/tandem
NAMED="TANDEM_TLS_CERT_FILE and TANDEM_TLS_KEY_FILE"

refuse() {
    printf 'tandem: %s\n' "$@" >&2
    exit 1
}

# Whoever reaches the port may use every model when there is no key. A file that cannot be read lets nobody in.
locked() {
    case "${TANDEM_BIND:-127.0.0.1}" in 127.* | ::1 | "[::1]") return ;; esac
    if [ "${TANDEM_BIND_WITHOUT_KEY:-}" = yes ]; then return; fi
    if [ -e "$KEYS" ] && ! [ -r "$KEYS" ]; then return; fi
    if /usr/bin/busybox grep -q '^[[:blank:]]*[^#[:space:]]' "$KEYS" 2>/dev/null; then return; fi
    refuse "TANDEM_BIND=$TANDEM_BIND lets other machines in, and with no key whoever reaches the port may use every model." \
        "  Make a key:  python -m orchestrator keys add NAME" \
        "  or, where everybody may, put into .env:  TANDEM_BIND_WITHOUT_KEY=yes"
}

# Origins as entries of a map from what a page says to what it is answered.
origins() {
    case "$1" in
        none | "") return ;;
        '*') printf 'default "*";\n' ;;
        *[!a-z0-9+./:_,*' '[\]-]*) refuse "TANDEM_CORS_ORIGINS=$1 holds a sign that no origin has." ;;
        *)
            # nginx starts with none of them twice.
            printf '%s\n' "$1" | /usr/bin/busybox tr ', ' '\n\n' | /usr/bin/busybox sort -u | while read -r origin; do
                case "$origin" in
                    "") ;;
                    *://*:'*')
                        host=$(printf %s "${origin%:*}" | /usr/bin/busybox sed 's/[]+.[]/\\&/g')
                        printf '"~^%s(:[0-9]+)?$" $http_origin;\n' "$host"
                        ;;
                    *://*) printf '"%s" $http_origin;\n' "$origin" ;;
                    *) refuse "TANDEM_CORS_ORIGINS: $origin is no origin, such as http://localhost:3000." ;;
                esac
            done
            ;;
    esac
}

limit() {
    case "$1" in
        *[!0-9kKmMgG]* | *[kKmMgG]?* | [!1-9]* | ?????????[0-9]*)
            refuse "TANDEM_BODY_LIMIT=$1 should be a size such as 64m or 1g, of up to nine digits."
            ;;
    esac
    # One buffer holds a body, whole; of a buffer nginx knows no g.
    case "$1" in *[gG]) buffer=$((${1%[gG]} * 1024))m ;; *) buffer=$1 ;; esac
    printf '%s %s;\n' client_max_body_size "$1" client_body_buffer_size "$buffer"
    printf 'map "" $tandem_body_limit {\n    default %s;\n}\n' "$1"
}

# The certificate and its key, if there are to be any. nginx reads a copy, which was tried: what begins while a renewal is
# half done, as a reload may, has a whole pair. certificate.lua looks at the files themselves.
certificate() {
    /usr/bin/busybox rm -rf "$INTO/tls"
    if [ -n "${TANDEM_TLS_FOLDER:-}" ]; then
        if [ -s "$CERT" ] || [ -s "$KEY" ]; then
            refuse "TANDEM_TLS_FOLDER and $NAMED name a certificate twice: one of the two ways is enough."
        fi
        CERT=/run/tls/cert.pem KEY=/run/tls/key.pem NAMED="cert.pem and key.pem in the folder of TANDEM_TLS_FOLDER"
    elif ! [ -s "$CERT" ] && ! [ -s "$KEY" ]; then
        CERT=""
        return
    fi
    for file in "$CERT" "$KEY"; do
        # A folder that may not be entered shows nothing of what is in it.
        if ! [ -x "${file%/*}" ] || { [ -e "$file" ] && ! [ -r "$file" ]; }; then
            refuse "$file cannot be read: user $(/usr/bin/busybox id -u), the router's, must be able to read the file" \
                "($NAMED)."
        elif ! [ -s "$file" ]; then
            refuse "$NAMED go together, and $file is not there or holds nothing."
        fi
    done
    /usr/bin/busybox mkdir -m 700 "$INTO/tls"
    (
        umask 077
        /usr/bin/busybox cat "$CERT" >"$INTO/tls/cert.pem"
        /usr/bin/busybox cat "$KEY" >"$INTO/tls/key.pem"
    )
}

# Where a client that is gone without a word is noticed: after a minute, in three looks.
listening() {
    if [ -z "$CERT" ]; then
        echo 'listen 8000 so_keepalive=60s:10s:3;'
        return
    fi
    echo 'listen 8000 ssl so_keepalive=60s:10s:3;'
    echo 'http2 on;'
    printf '%s %s;\n' ssl_certificate "$INTO/tls/cert.pem" ssl_certificate_key "$INTO/tls/key.pem"
    echo 'ssl_certificate_by_lua_block { certificate.serve() }'
}

# Whoever may ask a model may give it adapters from its own folders then.
adapters() {
    if [ "$1" != yes ]; then return; fi
    for path in /v1/load_lora_adapter /v1/unload_lora_adapter; do
        printf 'location = %s {\n    include by-body.conf;\n    proxy_pass http://servers%s;\n}\n' "$path" "$path"
    done
    # By this loaded.lua asks servers which adapters they have.
    printf 'location = /-/loaded {\n    internal;\n    include scrape.conf;\n    error_page 404 /-/error;\n'
    printf '    proxy_pass http://$arg_at/v1/models;\n}\n'
}

# A file where there is a place for it: lines that go through Docker's daemon cost it as much time as the requests cost
# the router. Written when there is enough of it, or a second has gone by. A pipe takes 4096 bytes in one piece, and of more
# another worker's lines could come between.
requests() {
    if /usr/bin/busybox grep -q " $LOG " /proc/mounts; then
        echo "access_log $LOG/access.log access buffer=256k flush=1s;"
    else
        echo 'access_log /dev/stdout access buffer=4k flush=1s;'
    fi
}

prepare() {
    locked
    /usr/bin/busybox mkdir -p "$INTO"
    certificate
    listening >"$INTO/listen.conf"
    limit "${TANDEM_BODY_LIMIT:-64m}" >"$INTO/limits.conf"
    requests >"$INTO/log.conf"
    adapters "${TANDEM_LORA_LOADING:-}" >"$INTO/adapters.conf"
    origins "${TANDEM_CORS_ORIGINS:-none}" >"$INTO/origins.conf"
    if [ -n "$CERT" ] && ! said=$(/usr/sbin/nginx -t -q -e /dev/stderr 2>&1); then
        refuse "nginx does not start with this certificate and key:" "$said" \
            "$NAMED should be a certificate and its key, both PEM, the key without a passphrase." \
            "'python -m orchestrator check' looks at them too."
    fi
}

if [ "${1:-}" != -c ]; then prepare; fi
# nginx does not start where a killed one left its socket, and the volume outlives the container.
/usr/bin/busybox rm -f /run/tandem/router.sock /run/engine/docker.sock
# A client's connection and its server's are files: as many as the machine gives.
ulimit -n "$(ulimit -H -n)"
# Memory of bodies is used again, and not given back and fetched anew for each: that cost more than reading them.
export MALLOC_TRIM_THRESHOLD_=67108864 MALLOC_MMAP_THRESHOLD_=33554432
exec /usr/sbin/nginx -e /dev/stderr -g 'daemon off;' "$@"
