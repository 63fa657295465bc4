#!/usr/bin/env bash
# Puts the definitions of the operators' resources that deploy/kubernetes uses into a folder, for the tests:
#
#     .github/fetch-crds.sh FOLDER; K8S_CRDS=FOLDER make test
#
# From what each operator publishes: a Go module or its repository. What is not to be had is named, and then not checked.
set -uo pipefail
into=${1:?the folder to put them into}
mkdir -p "$into"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# module NAME@VERSION FILE...: files of a Go module.
module() {
    local folder module=$1
    shift
    folder=$(cd "$work" && go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [ -n "$folder" ] || { echo "not to be had: $module" >&2; return; }
    (cd "$folder" && install -m 644 -t "$into" "$@")
}

# repository NAME TAG FILE...: files of a repository on GitHub.
repository() {
    local name=$1 tag=$2
    shift 2
    if ! git clone --quiet --depth 1 --filter blob:none --no-checkout --branch "$tag" \
        "https://github.com/$name" "$work/$name" || ! git -C "$work/$name" checkout --quiet "$tag" -- "$@"; then
        echo "not to be had: $name $tag" >&2
        return
    fi
    (cd "$work/$name" && install -m 644 -t "$into" "$@")
}

into=$(cd "$into" && pwd)
module github.com/kedacore/keda/v2@v2.21.0 config/crd/bases/keda.sh_scaledobjects.yaml
module github.com/prometheus-operator/prometheus-operator@v0.85.0 \
    example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml
module github.com/cert-manager/cert-manager@v1.21.1 deploy/crds/cert-manager.io_certificates.yaml
repository strimzi/strimzi-kafka-operator 1.2.0 \
    packaging/install/cluster-operator/{040-Crd-kafka,043-Crd-kafkatopic,044-Crd-kafkauser,045-Crd-kafkanodepool}.yaml
repository rabbitmq/cluster-operator v2.22.3 config/crd/bases/rabbitmq.com_rabbitmqclusters.yaml
repository rabbitmq/messaging-topology-operator v1.20.1 \
    config/crd/bases/rabbitmq.com_{vhosts,users,permissions}.yaml
