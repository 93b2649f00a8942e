#!/usr/bin/busybox sh
# Starts nginx as the container's first process. nginx does not start where a killed one left its socket, and the volume
# outlives the container.
/usr/bin/busybox rm -f /run/tandem/router.sock /run/engine/docker.sock
exec /usr/sbin/nginx -e /dev/stderr -g 'daemon off;' "$@"
