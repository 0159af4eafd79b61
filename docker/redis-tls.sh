#!/bin/sh
# Starts Redis with a password, and with TLS on 6380. The key is copied as in rabbitmq-tls.sh. The
# configuration is passed on standard input, because `ps` shows the command line.
set -eu
place=/run/redis-tls
install -d -o redis -g redis -m 700 "$place"
for file in ca.pem redis.pem redis.key; do
    if [ ! -f "/certs/$file" ]; then
        echo "certs/$file is missing: fccl certs makes it" >&2
        exit 2
    fi
    install -o redis -g redis -m 400 "/certs/$file" "$place/$file"
done
exec setpriv --reuid redis --regid redis --clear-groups -- redis-server - <<CONF
bind 0.0.0.0
port 6379
tls-port 6380
tls-ca-cert-file $place/ca.pem
tls-cert-file $place/redis.pem
tls-key-file $place/redis.key
tls-auth-clients no
requirepass "$FCCL_STORE_PASSWORD"
save ""
appendonly no
maxmemory-policy noeviction
CONF
