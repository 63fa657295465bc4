"""Checks operators' resources strictly against the definitions that the operators publish.

K8S_CRDS is a folder of those definitions, as `.github/fetch-crds.sh` fills it.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from tools import missing

Resource = dict[str, Any]


@cache
def schemas() -> dict[tuple[str, str], Resource]:
    """The strict schema of each (apiVersion, kind) that is defined in the folder."""
    folder = os.environ.get("K8S_CRDS")
    found: dict[tuple[str, str], Resource] = {}
    for path in sorted(Path(folder).glob("*.yaml")) if folder else ():
        for crd in yaml.safe_load_all(path.read_text("utf-8")):
            for version in crd["spec"]["versions"]:
                name = f"{crd['spec']['group']}/{version['name']}"
                schema = version["schema"]["openAPIV3Schema"]
                found[name, crd["spec"]["names"]["kind"]] = strict(schema)
    return found


def strict(schema: Resource) -> Resource:
    """The schema, which allows no field that it does not name, as the API server checks it."""
    changed = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        changed["properties"] = {
            name: strict(value) for name, value in schema["properties"].items()
        }
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            changed.setdefault("additionalProperties", False)
    for key in ("additionalProperties", "items"):
        if isinstance(schema.get(key), dict):
            changed[key] = strict(schema[key])
    return changed


def faults(resource: Resource) -> list[str]:
    """What the definition of its kind refuses; remembers a kind that is not defined."""
    kind = (resource["apiVersion"], resource["kind"])
    if kind not in schemas():
        missing.setdefault("K8S_CRDS", []).append(f"{kind[1]} ({kind[0]})")
        return []
    name = f"{kind[1]} {resource['metadata']['name']}"
    without = {key: value for key, value in resource.items() if key != "metadata"}
    schema = schemas()[kind]
    schema = schema | {"properties": schema["properties"] | {"metadata": {}}}
    schema["required"] = [one for one in schema.get("required", ()) if one != "metadata"]
    return [
        f"{name}: {error.json_path}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(without)
    ]
