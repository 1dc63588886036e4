"""Each file of `deploy/` is what its format asks for, and a broken one is found out."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.shipping import MODULES
from prunesweep import PACKAGES
from tests.checkout import ROOT
from tests.deploy.files import (
    DEPLOY,
    compose_problems,
    interpolated,
    kuberay_problems,
    lint,
    mappings,
    policy_problems,
    ray_up_problems,
    read,
)

CHECKS: dict[str, Callable[[Any], list[str]]] = {
    "compose.yaml": compose_problems,
    "compose.gpu.yaml": compose_problems,
    "kuberay/raycluster.yaml": kuberay_problems,
    "kuberay/rayjob.yaml": kuberay_problems,
    "kuberay/networkpolicy.yaml": policy_problems,
    "ray-cluster.yaml": ray_up_problems,
}
LINTERS = {"Containerfile": "hadolint", "slurm.sh": "shellcheck", "secrets.sh": "shellcheck"}

#: A mistake in a file: the path to a key, and what to write there; None takes the key away.
BROKEN: list[tuple[str, str, Any]] = [
    ("compose.yaml", "services.postgres.helthcheck", {}),
    ("compose.yaml", "services.mlflow.ports", "127.0.0.1:5000:5000"),
    ("compose.yaml", "services.ray-worker.deploy.replicas", [2]),
    ("compose.gpu.yaml", "services.ray-worker.deploy.resources.reservation", {}),
    ("kuberay/raycluster.yaml", "apiVersion", "ray.io/v1alpha1"),
    ("kuberay/raycluster.yaml", "spec.headGroupSpec", None),
    ("kuberay/raycluster.yaml", "spec.authOptions.mode", "password"),
    ("kuberay/raycluster.yaml", "spec.authOption", {"mode": "token"}),
    ("kuberay/raycluster.yaml", "spec.workerGroupSpecs.0.maxReplica", 8),
    ("kuberay/raycluster.yaml", "spec.headGroupSpec.template.spec.containers.0.image", 1),
    ("kuberay/rayjob.yaml", "spec.backoffLimit", "3"),
    ("kuberay/rayjob.yaml", "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.volume", []),
    ("kuberay/rayjob.yaml", "spec.entrypiont", "prunesweep run"),
    ("kuberay/networkpolicy.yaml", "apiVersion", "networking/v1"),
    ("kuberay/networkpolicy.yaml", "spec.podSelectors", {}),
    ("kuberay/networkpolicy.yaml", "spec.ingress.0.form", []),
    ("kuberay/networkpolicy.yaml", "spec.ingress.1.ports.0.port", "8265"),
    ("ray-cluster.yaml", "provider", None),
    ("ray-cluster.yaml", "max_worker", 2),
    ("ray-cluster.yaml", "provider.worker_ips", None),
    ("ray-cluster.yaml", "head_start_ray_commands", "ray start --head"),
]


def with_mistake(document: Any, path: str, value: Any) -> Any:
    *parents, last = path.split(".")
    here = document
    for key in parents:
        here = here[int(key)] if isinstance(here, list) else here[key]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return document


@pytest.mark.parametrize("name", CHECKS)
def test_a_file_follows_its_schema(name: str) -> None:
    assert CHECKS[name](read(name)) == []


@pytest.mark.parametrize(("name", "path", "value"), BROKEN)
def test_a_mistake_is_found(name: str, path: str, value: Any) -> None:
    assert CHECKS[name](with_mistake(read(name), path, value)) != []


@pytest.mark.parametrize("name", LINTERS)
def test_a_linter_has_no_complaint(name: str) -> None:
    assert lint(LINTERS[name], DEPLOY / name) == []


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("Containerfile", "FROM python:latest", "DL3007"),
        ("Containerfile", "RUN cd /tmp && sudo ls", "DL3004"),
        ("Containerfile", "COPPY a b", "unexpected"),
        ("slurm.sh", "rm -rf $folder/*", "SC2086"),
        ("slurm.sh", "if [[ -n $requeue ]]; then", "SC1073"),
        ("secrets.sh", "cd $(dirname $0)", "SC2086"),
    ],
)
def test_a_linter_finds_a_mistake(tmp_path: Path, name: str, line: str, complaint: str) -> None:
    file = tmp_path / name
    file.write_text((DEPLOY / name).read_text() + line + "\n")
    assert complaint in "\n".join(lint(LINTERS[name], file))


def test_every_file_is_checked_and_has_a_page() -> None:
    files = {str(path.relative_to(DEPLOY)) for path in DEPLOY.rglob("*") if path.is_file()}
    without = {"README.md", "Containerfile.dockerignore", "sweep.yaml", ".env"}
    assert files - without == {*CHECKS, *LINTERS}
    page = (DEPLOY / "README.md").read_text()
    assert all(name.rpartition("/")[2] in page for name in files - {"README.md", ".env"})


class TestContainerfile:
    text = (DEPLOY / "Containerfile").read_text()

    def test_copies_every_package_and_what_the_build_reads(self) -> None:
        copied = set(re.findall(r"^COPY (?!--)(.*) \S+$", self.text, re.MULTILINE))
        names = {name for line in copied for name in line.split()}
        read = {"constraints.txt", "pyproject.toml", "README.md", "LICENSE"}
        assert names == {*PACKAGES, *MODULES, *read}

    def test_what_it_copies_is_let_through(self) -> None:
        ignored = (DEPLOY / "Containerfile.dockerignore").read_text().split()
        copied = set(re.findall(r"^COPY (?!--)(.*) \S+$", self.text, re.MULTILINE))
        assert {line[1:] for line in ignored if line.startswith("!")} == {
            name for line in copied for name in line.split()
        }

    def test_does_not_run_as_root_and_asks_for_a_token(self) -> None:
        assert re.findall(r"^USER (.*)$", self.text, re.MULTILINE) == ["1000"]
        assert "RAY_AUTH_MODE=token" in self.text

    def test_the_build_takes_the_pinned_versions(self) -> None:
        assert len(re.findall(r"pip install", self.text)) == 2
        assert len(re.findall(r"pip install .*--constraint constraints.txt", self.text)) == 2

    def test_is_built_on_an_image_with_a_tag_that_a_digest_may_replace(self) -> None:
        assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+-slim-\w+$", self.text, re.MULTILINE)
        assert set(re.findall(r"^FROM (\S+)", self.text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}


class TestCompose:
    services = read("compose.yaml")["services"]

    def test_publishes_on_loopback_only(self) -> None:
        ports = [port for service in self.services.values() for port in service.get("ports", ())]
        assert ports
        assert all(port.startswith("127.0.0.1:") for port in ports)

    def test_every_ray_node_has_the_token(self) -> None:
        nodes = [service for name, service in self.services.items() if name.startswith("ray-")]
        assert len(nodes) == 2
        for node in nodes:
            assert node["environment"]["RAY_AUTH_MODE"] == "token"
            assert node["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")

    def test_waits_for_what_is_healthy(self) -> None:
        for service in self.services.values():
            for name, wait in service.get("depends_on", {}).items():
                if wait["condition"] == "service_healthy":
                    assert "healthcheck" in self.services[name]

    def test_the_secrets_are_those_that_are_made_up(self) -> None:
        needed = set(re.findall(r"\$\{(\w+)(?::\?|\})", (DEPLOY / "compose.yaml").read_text()))
        made = set(re.findall(r"^(\w+)=\$\(secret\)$", (DEPLOY / "secrets.sh").read_text(), re.M))
        assert needed == made

    @pytest.mark.parametrize("name", services)
    def test_a_service_can_do_no_more_than_it_must(self, name: str) -> None:
        service = self.services[name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert ("cap_add" in service) == (name == "s3")
        assert re.fullmatch(r"\d+g", interpolated(service["mem_limit"], {}))

    @pytest.mark.parametrize("name", services)
    def test_an_image_has_a_tag_that_a_digest_may_replace(self, name: str) -> None:
        image = self.services[name]["image"]
        assert re.fullmatch(r"[\w/]+:\d[\w.]*\d", interpolated(image, {}))
        assert image.startswith("${")

    def test_without_them_it_does_not_start(self) -> None:
        with pytest.raises(KeyError):
            interpolated((DEPLOY / "compose.yaml").read_text(), {})


class TestKubeRay:
    job, cluster = read("kuberay/rayjob.yaml"), read("kuberay/raycluster.yaml")

    def test_both_have_the_same_cluster_but_for_the_specification(self) -> None:
        spec = self.job["spec"]["rayClusterSpec"]
        head = spec["headGroupSpec"]["template"]["spec"]
        mount, volume = head["containers"][0]["volumeMounts"].pop(), head["volumes"].pop()
        assert mount["name"] == volume["name"] == "sweep"
        assert f"{mount['mountPath']}/sweep.yaml" in self.job["spec"]["entrypoint"]
        assert spec == self.cluster["spec"]

    def test_names_the_version_of_ray_in_the_image(self) -> None:
        pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        assert pinned is not None
        assert self.cluster["spec"]["rayVersion"] == pinned[1] == ray.__version__

    def test_asks_for_a_token(self) -> None:
        assert self.cluster["spec"]["authOptions"]["mode"] == "token"

    def test_no_worker_has_a_token_of_kubernetes(self) -> None:
        for group in self.cluster["spec"]["workerGroupSpecs"]:
            assert group["template"]["spec"]["automountServiceAccountToken"] is False

    def test_nodes_are_reached_by_each_other_and_who_submits(self) -> None:
        nodes = {"matchLabels": {"ray.io/is-ray-node": "yes"}}  # KubeRay's label
        policy = read("kuberay/networkpolicy.yaml")["spec"]
        assert policy["podSelector"] == nodes
        among, submits = policy["ingress"]
        assert among == {"from": [{"podSelector": nodes}]}
        job = {"batch.kubernetes.io/job-name": self.job["metadata"]["name"]}
        assert submits["from"][0] == {"podSelector": {"matchLabels": job}}
        assert [port["port"] for port in submits["ports"]] == [8265]

    def test_no_trial_runs_on_the_head(self) -> None:
        head = self.cluster["spec"]["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", [*CHECKS, *LINTERS])
def test_no_file_says_where_packages_come_from(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert not re.search(r"https?://\S*(pypi|/simple|/whl)", text)
    assert "--index-url" not in text


@pytest.mark.parametrize("name", CHECKS)
def test_secrets_are_references(name: str) -> None:
    secret = re.compile(r"password|secret.*key|token$|cookie", re.IGNORECASE)
    for mapping in mappings(read(name)):
        for key, value in mapping.items():
            if secret.search(str(key)) and isinstance(value, str) and "/" not in value:
                assert value.startswith("${"), key


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    subprocess.run([script], check=True, capture_output=True)
    made = (tmp_path / ".env").read_text()
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    values = re.findall(r"^\w+=([0-9a-f]{64})$", made, re.MULTILINE)
    assert len(values) == len(set(values)) == len(made.splitlines())
    again = subprocess.run([script], capture_output=True, check=False)
    assert again.returncode == 1
    assert (tmp_path / ".env").read_text() == made
