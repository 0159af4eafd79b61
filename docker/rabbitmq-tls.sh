#!/bin/sh
# Starts RabbitMQ with TLS on 5671. On the host only the owner can read the key; the server runs as
# another user, so it gets a copy in the container that only it can read.
set -eu
place=/etc/rabbitmq/tls
install -d -o rabbitmq -g rabbitmq -m 700 "$place" /etc/rabbitmq/conf.d
for file in ca.pem rabbitmq.pem rabbitmq.key; do
    if [ ! -f "/certs/$file" ]; then
        echo "certs/$file is missing: fccl certs makes it" >&2
        exit 2
    fi
    install -o rabbitmq -g rabbitmq -m 400 "/certs/$file" "$place/$file"
done
cat >/etc/rabbitmq/conf.d/20-tls.conf <<CONF
listeners.ssl.default = 5671
ssl_options.cacertfile = $place/ca.pem
ssl_options.certfile = $place/rabbitmq.pem
ssl_options.keyfile = $place/rabbitmq.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
CONF
exec docker-entrypoint.sh rabbitmq-server
