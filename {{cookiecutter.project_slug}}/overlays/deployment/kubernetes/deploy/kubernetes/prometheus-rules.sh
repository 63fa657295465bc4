#!/bin/sh
# Prints the rules of observability/prometheus/rules as PrometheusRules: the Prometheus operator expects a file of
# rules below `spec:`. Needs NAMESPACE.
for file in observability/prometheus/rules/*.yaml; do
    name=${file##*/}
    cat << END
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ${name%.yaml}
  namespace: $NAMESPACE
spec:
END
    sed 's/^./  &/' "$file"
done
