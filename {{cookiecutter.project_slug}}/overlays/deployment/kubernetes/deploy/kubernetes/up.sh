#!/bin/sh
# Builds the images, loads them into the cluster, and applies overlays/local in order: the broker and the stores,
# then the channels, then the services. Waits for each, and prints the addresses passed as service:port. Needs
# PROJECT and NAMESPACE; reads .env.
#
#     K8S_CONTEXT=name      this context, even if it is not a cluster on this machine
#     K8S_LOAD=command      called with the names of the images; loads them onto the nodes
#     K8S_TIMEOUT=300       seconds to wait for each part
set -u
folder=$(dirname "$0")
# shellcheck source-path=SCRIPTDIR source=context.sh
. "$folder/context.sh"
# shellcheck source-path=SCRIPTDIR source=wait.sh
. "$folder/wait.sh"

command -v docker > /dev/null || fail 'docker is missing: it builds the images'
case $context in
    kind-* | k3d-* | minikube | docker-desktop | orbstack | rancher-desktop) ;;
    *) [ -n "${K8S_LOAD:-}" ] || fail "cannot load images onto the nodes of $context: set K8S_LOAD to a command that takes the images' names" ;;
esac
[ -f .env ] || fail '.env with the passwords is missing: run "make .env"'

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

say() {
    printf '%s\n' "$*"
}

# The value of a variable in .env, without quotes.
setting() {
    sed -n "s/^$1=//p" .env | tail -n 1 | sed "s/^'\(.*\)'\$/\1/; s/^\"\(.*\)\"\$/\1/"
}

# Builds an image and tags it by content: new content gets a new name, so that its pods are replaced.
build() {
    say "Building $1"
    docker build --quiet --tag "$1:local" "$2" > "$work/build" 2>&1 || fail "$(cat "$work/build")"
    id=$(docker image inspect "$1:local" --format '{{.Id}}') || exit 1
    id=$(printf '%s' "${id#sha256:}" | cut -c 1-12)
    docker tag "$1:local" "$1:$id" || exit 1
    sed "s|image: $1:local\$|image: $1:$id|" "$work/all.yaml" > "$work/named.yaml"
    mv "$work/named.yaml" "$work/all.yaml"
    built="$built $1:$id"
}

load() {
    say "Loading $*"
    if [ -n "${K8S_LOAD:-}" ]; then
        $K8S_LOAD "$@"
    else
        case $context in
            kind-*) kind load docker-image --name "${context#kind-}" "$@" ;;
            k3d-*) k3d image import --cluster "${context#k3d-}" "$@" ;;
            minikube) minikube image load "$@" ;;
            *) ;; # these run Docker's images
        esac
    fi > "$work/load" 2>&1 || fail "$(cat "$work/load")" "the images could not be loaded into $context"
}

# Applies whatever in all.yaml matches a label selector.
apply() {
    kube apply --server-side --force-conflicts --filename="$work/all.yaml" --selector="$1" > "$work/applied" 2> "$work/refused" ||
        fail "$(cat "$work/refused")"
}

# Creates or updates a Secret from lines KEY=value on standard input.
secret() {
    kube create secret generic "$1" --from-env-file=/dev/stdin --dry-run=client --output=yaml | kube apply --server-side --force-conflicts --filename=- > /dev/null ||
        exit 1
}

password=$(setting GRAFANA_ADMIN_PASSWORD)
[ -n "$password" ] || fail '.env lacks GRAFANA_ADMIN_PASSWORD, which has no default: see .env.example'

kubectl kustomize "$folder/overlays/local" > "$work/all.yaml" || exit 1

built=
build "$PROJECT" .
build "$PROJECT-otel-collector" observability/otel-collector
cat "$folder"/overlays/local/*/images > "$work/images" 2> /dev/null # of the broker and the trace store, if they need one
while read -r name from; do
    build "$name" "$from"
done < "$work/images"
# Load the other images that Docker already has; the nodes pull the rest.
others=
if [ -n "${K8S_LOAD:-}" ]; then
    sed -n 's/^ *image: //p' "$work/all.yaml" | sort -u > "$work/images"
    while read -r image; do
        case " $built " in
            *" $image "*) ;;
            *) docker image inspect "$image" > /dev/null 2>&1 && others="$others $image" ;;
        esac
    done < "$work/images"
fi
# shellcheck disable=SC2086 # names without spaces
load $built $others

say "Applying to the namespace $NAMESPACE of $context"
kube apply --server-side --force-conflicts --filename="$folder/base/namespace.yaml" > /dev/null || exit 1
kube label namespace "$NAMESPACE" "app.kubernetes.io/part-of=$PROJECT" --overwrite > /dev/null || exit 1
printf 'GF_SECURITY_ADMIN_PASSWORD=%s\n' "$password" | secret grafana
sed -n 's/^\(BROKER_[A-Z]*\)=.*/\1/p' .env | sort -u | while read -r name; do
    printf '%s=%s\n' "$name" "$(setting "$name")"
done > "$work/broker"
secret broker < "$work/broker"
# The secret that the broker's nodes share, if any: random, created once.
cat "$folder"/overlays/local/*/secrets > "$work/secrets" 2> /dev/null
while read -r name key; do
    [ -n "$(kube get secret "$name" --ignore-not-found --output=name)" ] ||
        printf '%s=%s\n' "$key" "$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')" | secret "$name"
done < "$work/secrets"

apply 'app.kubernetes.io/component notin (service, job)'
await "$(kube get statefulset --selector=app.kubernetes.io/component=broker --output=name)"

kube delete job --selector=app.kubernetes.io/component=job --ignore-not-found > /dev/null || exit 1
apply app.kubernetes.io/component=job
await_job channels

apply app.kubernetes.io/component=service
await "$(kube get statefulset,deployment --output=name)"

cat << END

Everything runs. To reach it from this machine, until Ctrl-C:

    make k8s-forward${K8S_CONTEXT:+ K8S_CONTEXT=$context}

END
for address; do
    printf '    %-12shttp://127.0.0.1:%s\n' "${address%:*}" "${address#*:}"
done
printf '\n%s\n' "Grafana's user is admin, with the password in .env."
