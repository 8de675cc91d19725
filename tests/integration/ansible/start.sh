#!/bin/sh
# Start what was deployed into TREE, with the command lines and users of its units, and wait until all is ready.
# Usage: unshare --net --mount --pid --fork --kill-child start.sh TREE PKI LOGS. When it ends, all of it is gone.
set -eu
tree=$1 pki=$2 logs=$3
control=192.0.2.2 host=192.0.2.11

mount -t proc proc "$tree/proc"
mkdir -p "$tree/run/sphere"
ip link set lo up
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip link set eth0 up
ip addr add $control/24 dev eth0
ip addr add $host/24 dev eth0

inside() {
    env -i PATH=/usr/sbin:/usr/bin chroot "$@"
}
inside --userspec=etcd "$tree" sh -c 'set -a; . /etc/default/etcd; exec etcd' >"$logs/etcd.log" 2>&1 &
inside "$tree" mosquitto -c /etc/mosquitto/mosquitto.conf >"$logs/mosquitto.log" 2>&1 &
inside "$tree" unbound -d -p >"$logs/unbound.log" 2>&1 &
inside --userspec=sphere-controller "$tree" /opt/sphere/venv/bin/sphere-controller \
    --config /etc/sphere/controller.toml >"$logs/sphere-controller.log" 2>&1 &
inside "$tree" /opt/sphere/venv/bin/nsx-agent --config /etc/sphere/nsx-agent.toml >"$logs/nsx-agent.log" 2>&1 &
inside --userspec=prometheus "$tree" sh -c '. /etc/default/prometheus; cd /; exec prometheus $ARGS' \
    >"$logs/prometheus.log" 2>&1 &

answers() {
    deadline=$(($(date +%s) + 30))
    until curl --silent --fail --noproxy '*' --cacert "$pki/ca.crt" --output /dev/null "$@"; do
        if [ "$(date +%s)" -gt "$deadline" ]; then
            tail -n 20 "$logs"/*.log >&2
            exit 1
        fi
        sleep 0.1
    done
}
answers https://$control:6443/readyz
# spherelet makes the node; it is not started, because the machine's cgroups are not the tree's.
printf '{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "host-1"}}' |
    kubectl --kubeconfig "$pki/kubeconfig" create -f -
answers https://$host:10251/readyz
answers 'http://127.0.0.1:9090/-/ready'
inside "$tree" unbound-control -c /etc/unbound/unbound.conf status
# A host's certificate opens neither the store nor the metrics.
for url in https://$control:2379/metrics https://$host:10251/metrics; do
    if curl --silent --fail --noproxy '*' --cacert "$pki/ca.crt" --cert "$pki/host-1-spherelet.crt" \
        --key "$pki/host-1-spherelet.key" --output /dev/null "$url"; then
        echo "$url is open to a host" >&2
        exit 1
    fi
done
echo all ready
