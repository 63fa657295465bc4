"""Builds the manifests of baked projects with Kustomize, and looks into them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tools import tool

Manifest = dict[str, Any]


def kustomize(overlay: Path) -> str:
    """Return what `kubectl apply --kustomize` would apply."""
    kubectl = tool("kubectl", "Kustomize builds the manifests")
    done = subprocess.run(
        [kubectl, "kustomize", str(overlay)], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


_built: dict[Path, str] = {}


def build(project: Path, overlay: str) -> str:
    """Likewise, once for each overlay of a project that nobody changes."""
    folder = project / "deploy/kubernetes/overlays" / overlay
    if folder not in _built:
        _built[folder] = kustomize(folder)
    return _built[folder]


def parsed(text: str) -> list[Manifest]:
    return list(yaml.safe_load_all(text))


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] in kinds]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name)
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The name and the pod template of whatever makes pods."""
    for one in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]


def labels(manifests: list[Manifest]) -> dict[str, dict[str, str]]:
    return {name: pod["metadata"]["labels"] for name, pod in pods(manifests)}
