"""The trial matrix of a specification, with what only methods know: predictors, and who trains."""

from orchestrator.agenda.predictors import predictor_settings
from orchestrator.specification.spec import SweepSpec
from tracking.matrix import Matrix, matrix_of


def trial_matrix(spec: SweepSpec) -> Matrix:
    """Return all that a sweep asks for, in the order of its phases."""
    predicted = [arm.name for arm in spec.arms if predictor_settings(arm) is not None]
    untrained = [arm.name for arm in spec.arms if spec.search.proxy and not arm.trains_to_choose]
    return matrix_of(spec.model_dump(mode="json"), predicted, untrained)
