# shellcheck shell=sh
# Sourced by the other scripts: decides which cluster they act on. Needs PROJECT and NAMESPACE. It accepts only a
# cluster on this machine, unless K8S_CONTEXT names another, so that a slip cannot reach production.

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

command -v kubectl > /dev/null || fail 'kubectl is missing: https://kubernetes.io/docs/tasks/tools/'

context=${K8S_CONTEXT:-$(kubectl config current-context 2> /dev/null)} ||
    fail 'kubectl has no current context. Start a cluster, for example with "kind create cluster", or set K8S_CONTEXT to one of these:' \
        "$(kubectl config get-contexts --output=name 2>&1)"
case $context in
    kind-* | k3d-* | minikube | docker-desktop | orbstack | rancher-desktop) ;;
    *)
        [ -n "${K8S_CONTEXT:-}" ] ||
            fail "the current context is $context, which does not look like a cluster on this machine." \
                "If it is the right one, set K8S_CONTEXT=$context"
        ;;
esac

kube() {
    kubectl --context="$context" --namespace="$NAMESPACE" "$@"
}

problem=$(kube version --request-timeout=10s 2>&1 > /dev/null) ||
    fail "the cluster of the context $context does not answer:" "$problem"

# The namespace and the project that it belongs to, as "namespace=project"; "" if there is no such namespace.
owner=$(kube get namespace "$NAMESPACE" --ignore-not-found \
    --output=jsonpath='{.metadata.name}={.metadata.labels.app\.kubernetes\.io/part-of}') || exit 1
case $owner in
    '' | "$NAMESPACE=$PROJECT") ;;
    *) fail "the namespace $NAMESPACE of $context was not created by this project: it lacks the label app.kubernetes.io/part-of=$PROJECT" ;;
esac
