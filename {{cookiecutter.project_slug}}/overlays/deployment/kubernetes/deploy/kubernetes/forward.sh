#!/bin/sh
# Forwards ports of 127.0.0.1 to Services in the cluster, named as service:port. Needs PROJECT and NAMESPACE.
set -u
# shellcheck source-path=SCRIPTDIR source=context.sh
. "$(dirname "$0")/context.sh"
[ -n "$owner" ] || fail "there is no namespace $NAMESPACE in $context: run make k8s-up first"

children=
# shellcheck disable=SC2086 # process ids
trap 'kill $children 2> /dev/null' EXIT
trap 'exit 0' INT TERM
for target; do
    echo "http://127.0.0.1:${target#*:} is ${target%:*}"
    # When the pod is gone, the next request ends the command: start it again with another pod.
    (
        trap 'kill $! 2> /dev/null; exit' TERM
        while :; do
            kubectl --context="$context" --namespace="$NAMESPACE" port-forward "service/${target%:*}" "${target#*:}" > /dev/null &
            wait $!
            sleep 1
        done
    ) &
    children="$children $!"
done
wait
