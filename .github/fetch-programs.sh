#!/usr/bin/env bash
# Takes the programs that tests ask out of the images that a baked project runs, so that both have the
# same versions:
#
#     .github/fetch-programs.sh FOLDER
set -euo pipefail
into=${1:?the folder to put them into}
project="$(dirname "$0")/../{{cookiecutter.project_slug}}"
mkdir -p "$into"

# fetch PROGRAM REPOSITORY [PATH]: without a path it is what the image starts.
fetch() {
    local image container path
    image=$(grep -rhoE --include='*.yaml' --include=Dockerfile "^ *(image:|FROM) $2:[^ ]+" "$project" | sed 's/.* //' | sort -u)
    container=$(docker create "$image")
    path=${3:-$(docker inspect --format '{{index .Config.Entrypoint 0}}' "$container")}
    docker cp --follow-link "$container:$path" "$into/$1"
    docker rm "$container" >/dev/null
}

fetch otelcol-contrib otel/opentelemetry-collector-contrib
fetch prometheus prom/prometheus
fetch promtool prom/prometheus /bin/promtool
fetch loki grafana/loki
fetch tempo grafana/tempo
fetch jaeger jaegertracing/jaeger
