"""One trial from its specification to its result: select, shrink, recover, measure."""

import copy
import json
import logging
import math
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

import methods
from methods import (
    NO_STATE,
    Cost,
    Hooks,
    Layout,
    PruningPlan,
    break_stripes,
    count_cost,
    masked_difference,
    remove_filters,
    shrink,
)
from methods.own_code import check_unchanged
from methods.structure.latency_predictor import PredictorSettings
from tracking.answers import pack_answers
from tracking.artifacts import StoreUnreachableError
from workers.data import DataSet
from workers.errors import StoppedError, WorkerError
from workers.models import build_model
from workers.networks.checkpoints import fit, to_safetensors, weights_hash
from workers.networks.shapes import shrink_fresh
from workers.node.device_memory import ran_out
from workers.node.environment import describe_environment
from workers.node.node import Node, weights_path
from workers.results import (
    LatencyResult,
    PredictorResult,
    ProxyResult,
    Report,
    ResultOnTest,
    ShapeResult,
    TrialResult,
)
from workers.settings import TrialSpec, content_hash
from workers.timing.latency import large_batch, measure_latency
from workers.timing.predictor import (
    measure_predictor,
    predictor_key,
    predictor_of,
    read_predictor,
    store_predictor,
)
from workers.timing.runtimes import check_runtime
from workers.training.loop import DivergedError, autocast, channels_last
from workers.training.measure import Evaluation, recalibrate_batch_norm
from workers.training.seeds import seed_everything
from workers.training.session import PruningSession, TrainingSession
from workers.training.trial_checkpoints import (
    CheckpointMismatchError,
    TrialCheckpoints,
    checkpoint_folder,
    restoring,
)

log = logging.getLogger(__name__)

TOLERANCE = 1e-3  #: Of the shrunk network against the masked one, relative to the largest logit.
CHECKED_IMAGES = 16


class TrialSpecError(WorkerError, ValueError):
    """A specification lacks what its kind of trial needs."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(kind, problem)
        self.kind, self.problem = kind, problem

    def __str__(self) -> str:
        return f"A trial of kind {self.kind!r} cannot run: {self.problem}"


class DataChangedError(WorkerError, ValueError):
    """The images on this machine are not the ones the sweep was made for."""

    def __init__(self, data_set: str, expected: str, found: str) -> None:
        super().__init__(data_set, expected, found)
        self.data_set, self.expected, self.found = data_set, expected, found

    def __str__(self) -> str:
        return (
            f"Data set {self.data_set!r} has checksum {self.found} on this machine, and the sweep "
            f"was made for {self.expected}; results would not compare. Give every machine the "
            "same files, or start a new sweep."
        )


class MaskedDifferenceError(WorkerError, ArithmeticError):
    """The shrunk network does not compute what the masked one does."""

    def __init__(self, difference: float, tolerance: float) -> None:
        super().__init__(difference, tolerance)
        self.difference, self.tolerance = difference, tolerance

    def __str__(self) -> str:
        return (
            f"The masked and the shrunk network differ by {self.difference:.2e} of the largest "
            f"logit; at most {self.tolerance:g} is rounding. The layer policy does not fit this "
            "network: protect the layers concerned, or use the policy 'inside_blocks'."
        )


def run_trial(spec: TrialSpec, node: Node, report: Report) -> dict[str, Any]:
    """Run one trial; the same specification gives the same numbers, bit for bit on a CPU.

    An attempt that was cut short is gone on from: where its newest whole checkpoint is, with the
    same numbers as if nothing had happened. Checkpoints are removed when the trial ends, but
    not when a GPU's memory runs out: then it may go on with a larger share of one.

    Args:
        spec: What to run.
        node: Where, with its caches and the artifact store.
        report: Called after each epoch; what it raises ends the trial. After a checkpoint was gone
            on from, the first step is the one behind it.

    Returns:
        A :class:`TrialResult`, or a :class:`ProxyResult`, :class:`LatencyResult` or
        :class:`PredictorResult` for the kind of that name, as it is stored.

    Raises:
        TrialSpecError: The specification lacks what its kind needs.
        DataChangedError: This machine's images are not those of the sweep.
        DivergedError: The loss is no longer finite.
        PredictorMissingError: The method needs a latency predictor that is not there.
        PredictorMismatchError: The latency predictor was measured elsewhere, or of other networks.
        MaskedDifferenceError: Shrinking changed what the network computes.
        BudgetError: The method asked for more epochs than the recipe has.
        MethodError: The method, its settings, the ratios or the plan cannot be used.
    """
    started = time.perf_counter()
    _check_spec(spec)
    checkpoints = TrialCheckpoints(
        node.artifacts.without_waiting,
        spec.uid,
        attempt=node.attempt,
        epochs=node.checkpoint_epochs,
    )
    try:
        try:
            result = _run(spec, node, report, checkpoints)
        except CheckpointMismatchError as error:
            log.warning("Trial %s begins again: %s", spec.uid, error)
            checkpoints.begin_again()
            result = _run(spec, node, report, checkpoints)
    except (Exception, StoppedError) as error:  # a process that is ended leaves what it wrote
        # it goes on where it has more memory, or when the store is back
        if not (ran_out(error) or isinstance(error, StoreUnreachableError)):
            checkpoints.remove()
        raise
    checkpoints.remove()
    result["seconds_total"] = time.perf_counter() - started
    return result


def _run(
    spec: TrialSpec, node: Node, report: Report, checkpoints: TrialCheckpoints
) -> dict[str, Any]:
    """Run one trial, where an earlier attempt was or from its beginning."""
    seed_everything(spec.seed, node.device)
    data = node.data(spec.data).for_trial()
    if data.info.data_hash != spec.data_hash:
        raise DataChangedError(spec.data.name, spec.data_hash, data.info.data_hash)
    network = build_model(spec.model, data.info.num_classes, data.info.input_shape[0])
    if spec.weights is not None and spec.kind in {"baseline", "prune", "proxy", "dense"}:
        fit(network, node.weights(spec.weights))
    network.to(node.device)
    if spec.kind == "latency":
        return _time_forward(spec, node, network, data).to_json()
    if spec.kind == "predictor":
        return _learn_latency(spec, node, network, data, report).to_json()
    if spec.kind == "proxy":
        return _judge(spec, node, network, data, report).to_json()
    return _train(spec, node, network, data, report, checkpoints).to_json()


def _check_spec(spec: TrialSpec) -> None:
    if spec.kind in {"prune", "proxy", "dense"} and spec.weights is None:
        raise TrialSpecError(spec.kind, "it starts from weights, and none are named.")
    if spec.kind in {"prune", "proxy"} and spec.method is None:
        raise TrialSpecError(spec.kind, "no pruning method is named.")
    if spec.kind in {"scratch", "latency"} and spec.plan is None:
        raise TrialSpecError(spec.kind, "it builds the shape of a plan, and none is given.")


def _train(
    spec: TrialSpec,
    node: Node,
    network: nn.Module,
    data: DataSet,
    report: Report,
    checkpoints: TrialCheckpoints,
) -> TrialResult:
    """Run every kind of trial that trains: they differ in how the shape comes about."""
    resume = checkpoints.resume
    base = count_cost(network, data.info.input_shape)
    plan: PruningPlan | None = None
    difference = 0.0
    before: Evaluation | None = None
    session: TrainingSession
    layout = _layout(spec, node, network, data) if spec.kind in {"prune", "scratch"} else None
    if spec.kind == "prune" and (resume is None or resume.act != "recover"):
        assert layout
        latency = predictor_of(spec, node.artifacts, layout, data.info.num_classes, node.device)
        session = pruning = PruningSession(
            spec, data, node.device, node.files, report, layout, latency, checkpoints=checkpoints
        )
        plan, difference = _prune(pruning, network)
    else:
        session = TrainingSession(
            spec, data, node.device, node.files, report, checkpoints=checkpoints
        )
        if spec.kind == "scratch":
            assert layout
            plan = PruningPlan.from_json(spec.plan or {})
            shrink_fresh(network, plan, layout)
        if spec.kind == "dense" and resume is None:
            _recalibrate(session, network)
        if resume is not None:
            with restoring():
                known = resume.parts["trial"]
                before, difference = Evaluation(**known["before"]), known["masked_difference"]
                if spec.kind == "prune":
                    assert layout
                    plan = PruningPlan.from_json(known["plan"])
                    remove_filters(network, plan, layout)
    before = before or session.validate(network)
    session.trial_state = {
        "plan": plan.to_json() if plan else None,
        "masked_difference": difference,
        "before": asdict(before),
    }
    after = _recover(session, network) or before
    if plan and layout:
        break_stripes(network, plan, layout)  # held at zero until here, which trains much faster
    if not math.isfinite(after.loss):
        raise DivergedError("validation", spec.recipe.epochs, spec.recipe.learning_rate)
    test = _test(session, network)
    weights, artifacts = _store(spec, node, network, plan)
    meter = session.meter
    return TrialResult(
        shape=_shape_result(spec, node, network, data, base, plan),
        val_accuracy=after.accuracy,
        val_accuracy_best=session.best.get("recover", after.accuracy),
        val_accuracy_before=before.accuracy,
        val_loss=after.loss,
        test=test,
        masked_difference=difference,
        epochs_select=session.epochs_spent("select", "statistics"),
        epochs_recover=session.epochs_spent("recover"),
        samples_seen=sum(meter.images.values()),
        seconds_select=meter.seconds["select"],
        seconds_recover=meter.seconds["recover"],
        seconds_statistics=session.seconds_statistics,
        statistics_computed=session.statistics_computed,
        statistics_reused=session.statistics_reused,
        notes=session.notes,
        weights=weights,
        artifacts=artifacts,
    )


def _judge(
    spec: TrialSpec, node: Node, network: nn.Module, data: DataSet, report: Report
) -> ProxyResult:
    """Shrink and re-calibrate a network, and see what it is worth before any training.

    Its weights are not kept: plan and starting weights rebuild it.
    """
    base = count_cost(network, data.info.input_shape)
    layout = _layout(spec, node, network, data)
    session = PruningSession(spec, data, node.device, node.files, report, layout)
    plan, difference = _prune(session, network)
    break_stripes(network, plan, layout)
    found = session.judge(network, spec.judge_images)
    if not math.isfinite(found.loss):
        raise DivergedError("validation", 0, spec.recipe.learning_rate)
    return ProxyResult(
        shape=_shape_result(spec, node, network, data, base, plan),
        val_accuracy=found.accuracy,
        val_loss=found.loss,
        val_images=found.images,
        masked_difference=difference,
        samples_seen=sum(session.meter.images.values()),
        seconds_select=session.meter.seconds["select"],
        seconds_statistics=session.seconds_statistics,
        statistics_computed=session.statistics_computed,
        statistics_reused=session.statistics_reused,
        notes=session.notes,
    )


def _recover(session: TrainingSession, network: nn.Module) -> Evaluation | None:
    """Train with what is left of the budget; None where nothing is."""
    if not session.steps_left:
        return None
    with session.meter.act("recover"):
        epochs = session.steps_left / session.steps_per_epoch
        session.train_with(network, epochs, Hooks(state=NO_STATE))
    return session.latest


def _test(session: TrainingSession, network: nn.Module) -> ResultOnTest | None:
    """Read the test split, where the trial may."""
    spec = session.spec
    if not spec.reads_test:
        return None
    found, correct = session.test(network)
    if not math.isfinite(found.loss):
        raise DivergedError("test", spec.recipe.epochs, spec.recipe.learning_rate)
    return ResultOnTest(
        test_accuracy=found.accuracy,
        test_loss=found.loss,
        test_images=found.images,
        test_chance=found.chance,
        test_correct=pack_answers(correct.numpy()),
    )


def _layout(spec: TrialSpec, node: Node, network: nn.Module, data: DataSet) -> Layout:
    return node.layout(network, data.info.input_shape, spec.layers, spec.unit)


def _prune(session: PruningSession, network: nn.Module) -> tuple[PruningPlan, float]:
    """Select and shrink; return the plan and how far the masked and shrunk network differ.

    Convolutions that lost stripes are not broken yet.
    """
    spec, layout = session.spec, session.layout
    check_unchanged(spec.method or "", spec.method_code)
    method = methods.create(spec.method or "", spec.method_settings)
    method.accept(network, layout)
    with session.meter.act("select"):
        plan = method.select(network, spec.ratios, session)
    with session.meter.act("measure"):
        difference = masked_difference(network, plan, layout, session.images(CHECKED_IMAGES))
    if not difference <= TOLERANCE:  # a NaN too
        raise MaskedDifferenceError(difference, TOLERANCE)
    with session.meter.act("select"):
        remove_filters(network, plan, layout)
    _recalibrate(session, network)
    return plan, difference


def _recalibrate(session: TrainingSession, network: nn.Module) -> None:
    """Estimate batch-norm statistics again: the dense network's, or a late cut's, are stale.

    The dense control gets the same, so that it starts as a network that loses nothing would.
    """
    recipe = session.spec.recipe
    if not recipe.recalibration_images:
        return
    with session.meter.act("recover"):
        batches = session.batches(recipe.recalibration_images, recipe.batch_size)
        number_type = autocast(session.device, recipe)
        with number_type, channels_last(network, session.device) as memory_format:
            recalibrate_batch_norm(network, batches, memory_format)


def _store(
    spec: TrialSpec, node: Node, network: nn.Module, plan: PruningPlan | None
) -> tuple[str, dict[str, str]]:
    """Store weights and plan; return the weights' content hash and where everything lies."""
    weights = network.state_dict()
    name = weights_hash(weights)
    files = {"weights": (weights_path(name), to_safetensors(weights))}
    if plan is not None:
        data = json.dumps(plan.to_json(), sort_keys=True).encode()
        files["plan"] = (f"trials/{spec.uid}/plan.json", data)
    staging = checkpoint_folder(spec.uid)  # removed when the trial ends, by whichever attempt
    return name, {
        what: node.artifacts.write_bytes(path, content, staging=staging)
        for what, (path, content) in files.items()
    }


def _shape_result(
    spec: TrialSpec,
    node: Node,
    network: nn.Module,
    data: DataSet,
    base: Cost,
    plan: PruningPlan | None,
) -> ShapeResult:
    """Describe what was built and from what; the cost is counted on the network as it stands."""
    cost = count_cost(network, data.info.input_shape)
    return ShapeResult(
        macs=cost.macs,
        params=cost.params,
        base_macs=base.macs,
        base_params=base.params,
        macs_reduction=1 - cost.macs / base.macs,
        params_reduction=1 - cost.params / base.params,
        plan=plan.to_json() if plan else None,
        kept={group: len(kept) for group, kept in plan.kept.items()} if plan else {},
        input_shape=list(data.info.input_shape),
        num_classes=data.info.num_classes,
        classes=list(data.info.classes),
        class_images=[list(counts) for counts in data.info.class_images],
        mean=list(data.info.mean),
        std=list(data.info.std),
        base_weights=spec.weights,
        data_hash=spec.data_hash,
        recipe_hash=content_hash(spec.recipe.model_dump(mode="json")),
        policy_hash=content_hash(spec.layers.model_dump(mode="json")),
        environment=describe_environment(node.device),
        seconds_total=0.0,
    )


def _time_forward(spec: TrialSpec, node: Node, network: nn.Module, data: DataSet) -> LatencyResult:
    """Time the dense network and the plan's; weights do not matter to that."""
    plan = PruningPlan.from_json(spec.plan or {})
    base = count_cost(network, data.info.input_shape)
    pruned = copy.deepcopy(network)
    layout = _layout(spec, node, network, data)
    shrink(pruned, plan, layout)
    batches: tuple[int, ...] = (1, large_batch(node.device))
    how, expected = PredictorSettings(), None
    if spec.predictor is not None:  # a target's: as it says, beside what it was made to meet
        how = PredictorSettings(**spec.method_settings)
        batches = (how.batch_size or large_batch(node.device),)
        expected = _expected_speed_up(spec.predictor, node, plan)
    records = measure_latency(
        network,
        pruned,
        data.info.input_shape,
        node.device,
        batch_sizes=batches,
        dtype=spec.recipe.precision,
        runtime=how.runtime,
        threads=how.threads,
        predicted_speed_up=expected,
    )
    return LatencyResult(
        shape=_shape_result(spec, node, pruned, data, base, plan),
        latency=records,
        shared_device=node.is_shared,
    )


def _expected_speed_up(predictor: str, node: Node, plan: PruningPlan) -> float:
    """Return how many times faster a latency model takes a plan's network to be."""
    model = read_predictor(node.artifacts, predictor)
    kept = torch.tensor([len(plan.kept[group]) for group in model.groups], dtype=torch.float64)
    return model.dense_ms / float(model.latency_ms(kept).detach())


def _learn_latency(
    spec: TrialSpec, node: Node, network: nn.Module, data: DataSet, report: Report
) -> PredictorResult:
    """Time narrowed networks and learn to predict others; weights do not matter to that."""
    settings = PredictorSettings(**spec.method_settings)
    check_runtime(settings.runtime, spec.recipe.precision, node.device)
    layout = _layout(spec, node, network, data)
    key = predictor_key(spec, settings, layout, data.info.num_classes, node.device)
    base = count_cost(network, data.info.input_shape)
    made, samples, latencies = measure_predictor(
        network, layout, settings, key, node.device, report
    )
    content, artifacts = store_predictor(node.artifacts, made, samples, latencies)
    return PredictorResult(
        shape=_shape_result(spec, node, network, data, base, None),
        predictor=content,
        predictor_key=key,
        predictor_report=asdict(made.report),
        notes=made.report.numbers(),
        shared_device=node.is_shared,
        artifacts=artifacts,
    )
