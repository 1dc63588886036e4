"""Sending to MLflow what it lacks of a sweep, once its driver no longer does."""

from collections.abc import Mapping
from threading import Event
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.commands.lookup import Found, require_variables
from orchestrator.errors import InputError, Problem, SpecError
from tracking.artifacts import ArtifactStore
from tracking.mlflow_mirror.publisher import Publisher
from tracking.mlflow_mirror.sole_publisher import sole_publisher


class PublishingBusyError(InputError):
    """A driver or another command publishes the sweep now."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return (
            f"Another process publishes the sweep {self.name!r} now, probably its driver; let it "
            "do that, or publish when it has ended."
        )


def publish(found: Found) -> dict[str, Any]:
    """Bring MLflow up to date with one sweep, and say how that went.

    Raises:
        SpecError: The sweep has no MLflow, or an environment variable is not set.
        PublishingBusyError: Another process is at it.
    """
    name, tracking = found.record.name, require_variables(found.tracking)
    if tracking.mlflow_url is None:
        problem = f"is 'off' for the sweep {name!r}; resume it with an address to have it published"
        raise SpecError([Problem("tracking.mlflow", problem)])
    once = Event()
    once.set()
    with sole_publisher(tracking.ledger_url, name, once) as alone:
        if not alone():
            raise PublishingBusyError(name)
        publisher = Publisher(
            found.ledger,
            tracking.mlflow_url,
            ArtifactStore(tracking.artifacts_url),
            sweep=name,
            weights_artifacts=tracking.publish_weights,
            may_publish=alone,
        )
        publisher.look()
        sent = publisher.publish_all()
        if publisher.trouble is None:
            publisher.run_forever(once)  # tidies up, too
    record = found.ledger.sweep(name)
    behind = sum(t.rev > t.published_rev for t in found.ledger.trials(record.id))
    return {
        "sweep": name,
        "sent": sent,
        "left": behind + (record.rev > record.published_rev),
        "refused": sorted(publisher.refused),
        "trouble": publisher.trouble,
    }


def view(facts: Mapping[str, Any]) -> RenderableType:
    """Show what was sent and what is left."""
    lines = [f"{facts['sweep']}: {facts['sent']} record(s) sent, {facts['left']} left"]
    lines += [f"MLflow refuses {name}" for name in facts["refused"]]
    lines += [f"MLflow: {facts['trouble']}"] if facts["trouble"] else []
    return Group(*map(Text, lines))
