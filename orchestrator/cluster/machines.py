"""The machines of a cluster, asked one by one: before trials go there, or afterwards."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.loop.backend import one_line
from orchestrator.specification.spec import SweepSpec
from workers.node.inspection import Inspection, inspect_machine

PATIENCE_S = 1800.0  #: For a machine that reads its images for the first time.


def ask_machine(node_id: str, question: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function on the machine of this id, beside its workers; return Ray's reference."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    ask: Any = ray.remote(question)
    options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    return ask.options(**options).remote(*arguments)


def inspect_machines(spec: SweepSpec) -> dict[str, Inspection | str]:
    """Prepare the images on every machine that can hold a worker, all at once.

    Returns:
        What each says, by address, with its number where machines share one; or what went wrong.
    """
    arguments = (
        spec.data.model_dump(mode="json"),
        str(spec.tracking.folder / "cache"),
        spec.tracking.artifacts_url,
    )
    asked = {
        f"{node['NodeManagerAddress']}#{number}": ask_machine(
            node["NodeID"], inspect_machine, *arguments
        )
        for number, node in enumerate(_holding_workers(), start=1)
    }
    return {name: _answer(reference) for name, reference in asked.items()}


def verdict_of(found: Mapping[str, Inspection | str]) -> tuple[bool, str]:
    """Say whether trials would compare whatever machine they run on; if not, which differ."""
    problems = [f"{name}: {answer}" for name, answer in found.items() if isinstance(answer, str)]
    answers = {name: answer for name, answer in found.items() if not isinstance(answer, str)}
    for what, of in (("images", _images), ("versions", _versions), ("code", _code)):
        values = {name: of(answer) for name, answer in answers.items()}
        if len(set(values.values())) > 1:
            usual, _ = Counter(values.values()).most_common(1)[0]
            odd = [f"{name} has {value}" for name, value in values.items() if value != usual]
            problems.append(f"different {what}: most have {usual}; {'; '.join(odd)}")
    if problems:
        return False, "\n".join(problems)
    if not found:
        return False, "No machine of the cluster has a CPU for a worker."
    slowest = max(answer["seconds"] for answer in answers.values())
    room = min(answer["free_bytes"] for answer in answers.values()) / 1e9
    return True, (
        f"{len(answers)} with the same images, versions and code; the slowest read its images in "
        f"{slowest:.1f} s, the fullest has {room:.1f} GB free"
    )


def _holding_workers() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    alive = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    return sorted(alive, key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))


def _answer(reference: Any) -> Inspection | str:
    try:
        found: Inspection = ray.get(reference, timeout=PATIENCE_S)
    except GetTimeoutError:
        return f"no answer within {PATIENCE_S:g} s"
    except RayTaskError as error:
        return one_line(error.cause if isinstance(error.cause, BaseException) else error)
    except RayError as error:
        return one_line(error)
    return found


def _images(answer: Inspection) -> str:
    return f"checksum {answer['data_hash']}"


def _versions(answer: Inspection) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(answer["versions"].items()))


def _code(answer: Inspection) -> str:
    return f"commit {answer['commit']}"
