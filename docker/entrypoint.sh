#!/bin/sh
# Switches to the owner of the run directory and executes the command. If the container was not
# started as root (the image's default is another user), it executes the command at once.
#
# runs/ is a folder of the host, and its files should belong to the user who cloned the project,
# whatever the user id. So docker-compose.yml starts as root, with the few capabilities that this
# needs, and no process of fccl ever runs as root. If root owns the folder (Docker creates missing
# folders so), the owner of the configuration is taken instead; if that is root as well, the folder
# is given to the image's own user.
set -eu

if [ "$(id -u)" = 0 ]; then
    owner=$(stat -c %u:%g runs)
    case $owner in 0:*) owner=$(stat -c %u:%g federation.toml 2>/dev/null || echo 0:0) ;; esac
    case $owner in 0:*) owner=1000:1000 ;; esac
    user=${owner%:*}
    # It is read-only in a worker; the coordinator changes it.
    [ "$(stat -c %u runs)" = "$user" ] || chown "$owner" runs 2>/dev/null || :
    for volume in /cache /state; do
        [ "$(stat -c %u "$volume")" = "$user" ] || chown -R "$owner" "$volume"
    done
    exec setpriv --reuid "$user" --regid "${owner#*:}" --clear-groups --no-new-privs -- "$@"
fi
exec "$@"
