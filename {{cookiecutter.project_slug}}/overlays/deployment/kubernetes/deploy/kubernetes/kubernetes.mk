# Included by ../../Makefile: runs everything in a Kubernetes cluster on this machine. See README.md.

K8S := exec env PROJECT={{ cookiecutter.project_slug }} NAMESPACE={{ cookiecutter.__namespace }} sh deploy/kubernetes/
# Services to forward to 127.0.0.1, and their ports.
K8S_ADDRESSES := orders:8000 grafana:3000 {{ cookiecutter.trace_backend }}:{{ cookiecutter._trace_backends[cookiecutter.trace_backend].port }}

.PHONY: k8s-up k8s-down k8s-forward k8s-rules
k8s-up: .env ## Start everything in the cluster of the current context, wait until it is ready
	@$(K8S)up.sh $(K8S_ADDRESSES)

k8s-down: ## Delete everything that k8s-up created, including stored data
	@$(K8S)down.sh

k8s-forward: ## Make the cluster's Grafana and HTTP services reachable at 127.0.0.1, until Ctrl-C
	@$(K8S)forward.sh $(K8S_ADDRESSES)

k8s-rules: ## Print the alerts and recording rules as resources of the Prometheus operator
	@$(K8S)prometheus-rules.sh
