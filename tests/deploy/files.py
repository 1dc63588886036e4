"""The files of `deploy/`, and what their own formats say of them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from ray.autoscaler._private import util as ray_up

from tests.checkout import ROOT

DEPLOY = ROOT / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
PROGRAMS = Path(sys.executable).parent


def read(name: str) -> Any:
    """Return what a YAML file of `deploy/` holds."""
    return yaml.safe_load((DEPLOY / name).read_text())


def compose_problems(document: Any) -> list[str]:
    """Check against the Compose specification."""
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    return _problems(document, schema)


def kuberay_problems(document: Any) -> list[str]:
    """Check a RayJob or RayCluster against KubeRay's schema; unknown keys are mistakes."""
    if document.get("apiVersion") != "ray.io/v1":
        return ["apiVersion is not ray.io/v1"]
    return _problems(document, _kuberay_schema(document["kind"]))


@cache
def _kuberay_schema(kind: str) -> Any:
    schema = json.loads((SCHEMAS / "kuberay-rayjob.json").read_text())
    if kind == "RayCluster":
        job = schema["properties"]
        schema["properties"] = {**job, "spec": job["spec"]["properties"]["rayClusterSpec"]}
    return _closed(schema)


def _closed(schema: Any) -> Any:
    """Allow no keys but those named, as `kubectl apply` does, which calls others unknown fields."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def policy_problems(document: Any) -> list[str]:
    """Check a NetworkPolicy against what Kubernetes takes; unknown keys are mistakes."""
    selector = {"type": "object", "properties": {"matchLabels": {"type": "object"}}}
    peer = {"type": "object", "properties": dict.fromkeys(_SELECTORS, selector), "minProperties": 1}
    port = {"protocol": {"enum": ["TCP", "UDP", "SCTP"]}, "port": {"type": "integer"}}
    rule = {
        "from": {"type": "array", "items": peer},
        "ports": {"type": "array", "items": {"type": "object", "properties": port}},
    }
    spec = {
        "podSelector": selector,
        "policyTypes": {"type": "array", "items": {"enum": ["Ingress", "Egress"]}},
        "ingress": {"type": "array", "items": {"type": "object", "properties": rule}},
    }
    whole = {
        "apiVersion": {"const": "networking.k8s.io/v1"},
        "kind": {"const": "NetworkPolicy"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
        "spec": {"type": "object", "properties": spec, "required": ["podSelector"]},
    }
    schema = {"type": "object", "properties": whole, "required": list(whole)}
    return _problems(document, _closed(schema))


_SELECTORS = ("podSelector", "namespaceSelector")


def ray_up_problems(document: Any) -> list[str]:
    """Check as `ray up` does before it starts a machine."""
    schema = json.loads((Path(ray_up.__file__).parents[1] / "ray-schema.json").read_text())
    if problems := _problems(document, schema):
        return problems
    try:
        ray_up.validate_config(ray_up.prepare_config(deepcopy(document)))
    except Exception as error:
        return [str(error)]
    return []


def _problems(document: Any, schema: Any) -> list[str]:
    errors = jsonschema.Draft7Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


def lint(program: str, file: Path) -> list[str]:
    """Return the complaints of a linter."""
    run = subprocess.run([PROGRAMS / program, file], capture_output=True, text=True, check=False)
    return (run.stdout + run.stderr).splitlines() if run.returncode else []


def mappings(document: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping in a document."""
    if isinstance(document, dict):
        yield document
    inside = document.values() if isinstance(document, dict) else document
    if isinstance(inside, str | int | float | bool) or inside is None:
        return
    for item in inside:
        yield from mappings(item)


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as Compose does."""

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        return variables[name] if default is None else variables.get(name, default)

    pattern = r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*)|:\?[^}]*)?\}"
    return re.sub(pattern, value, text).replace("$$", "$")
