# shellcheck shell=sh
# Sourced by up.sh: waits for workloads, and shows why one does not become ready.

K8S_TIMEOUT=${K8S_TIMEOUT:-300}

# The pods that are neither ready nor done, as lines "name reason restarts", with "-" for a missing value.
unready() {
    kube get pods --output='jsonpath={range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[0].ready} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.waiting.reason}{"\n"}{end}' |
        while read -r name phase ready restarts reason; do
            [ "$phase" = Succeeded ] || [ "$ready" = true ] || echo "$name ${reason:-$phase} ${restarts:-0}"
        done
}

# Whether waiting longer is pointless: Kubernetes itself retries forever.
hopeless() {
    unready | grep -qE ' (ErrImageNeverPull|ImagePullBackOff|InvalidImageName|CreateContainerConfigError|CreateContainerError) | CrashLoopBackOff ([3-9]|[1-9][0-9])$'
}

explain() {
    echo "$1." >&2
    unready | tail -n 5 | while read -r name reason restarts; do
        {
            printf '\npod %s: %s, restarted %s times\n' "$name" "$reason" "$restarts"
            kube get events --field-selector="involvedObject.name=$name,type=Warning" --sort-by=.metadata.creationTimestamp \
                --output=custom-columns=:.reason,:.message --no-headers | tail -n 3
            kube logs "$name" --tail=10 2> /dev/null || kube logs "$name" --tail=10 --previous 2> /dev/null
        } | sed '3,$s/^/    /' >&2
    done
    # Pods that were never created, such as one that the Pod Security level rejects.
    kube get events --field-selector=reason=FailedCreate --sort-by=.metadata.creationTimestamp \
        --output=custom-columns=:.involvedObject.name,:.message --no-headers 2> /dev/null | tail -n 3 >&2
    exit 1
}

await() {
    for workload in $1; do
        tries=0
        began=$(date +%s)
        until kube rollout status "$workload" --timeout=5s > /dev/null 2>&1; do
            tries=$((tries + 1))
            [ $(($(date +%s) - began)) -lt "$K8S_TIMEOUT" ] || explain "${workload#*/} does not become ready"
            if [ "$tries" -ge 5 ] && hopeless; then explain "${workload#*/} does not become ready"; fi
        done
        echo "  ${workload#*/} is ready"
    done
}

await_job() {
    began=$(date +%s)
    until kube wait --for=condition=Complete "job/$1" --timeout=3s > /dev/null 2>&1; do
        failed=$(kube get "job/$1" --output='jsonpath={.status.conditions[?(@.type=="Failed")].reason}')
        [ -z "$failed" ] || explain "the job $1 failed"
        [ $(($(date +%s) - began)) -lt "$K8S_TIMEOUT" ] || explain "the job $1 did not finish"
    done
    echo "  $1 is done"
}
