#!/bin/sh
# Becomes the owner of the run directory, then the command. Started as any user but root (the
# image's default), it is the command at once.
#
# runs/ is a folder of the host, and what is written there should belong to whoever cloned the
# project, whatever that user's number is. So docker-compose.yml starts as root, with the few
# capabilities that this needs, and no process of fccl ever runs as root. If root owns the
# folder (Docker makes missing ones so), the owner of the configuration says who cloned; if that is
# root, too, the folder is given to the image's own user.
set -eu

if [ "$(id -u)" = 0 ]; then
    owner=$(stat -c %u:%g runs)
    case $owner in 0:*) owner=$(stat -c %u:%g federation.toml 2>/dev/null || echo 0:0) ;; esac
    case $owner in 0:*) owner=1000:1000 ;; esac
    user=${owner%:*}
    # Read-only to a worker, and then the coordinator's to change.
    [ "$(stat -c %u runs)" = "$user" ] || chown "$owner" runs 2>/dev/null || :
    for volume in /cache /state; do
        [ "$(stat -c %u "$volume")" = "$user" ] || chown -R "$owner" "$volume"
    done
    exec setpriv --reuid "$user" --regid "${owner#*:}" --clear-groups --no-new-privs -- "$@"
fi
exec "$@"
