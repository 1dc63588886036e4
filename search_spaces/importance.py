"""Which of the numbers a search chose set its best proposals apart from the rest."""

from collections.abc import Mapping, Sequence

TOP, FEWEST_OF_TOP = 0.1, 5  #: Share of proposals that is the best; at least so many.


def importance_of(
    numbers: Mapping[str, Sequence[float]], values: Sequence[float]
) -> dict[str, float]:
    """Return each dimension's share of what tells the best tenth of proposals from all.

    Source: Watanabe et al., "PED-ANOVA", IJCAI 2023, arXiv:2304.10255, as Optuna has it.

    Args:
        numbers: By dimension, one number a proposal.
        values: What each proposal is worth; higher is better.

    Returns:
        Shares that add up to 1, dimensions in the order given; one that never varies has none of
        it. Nothing where nothing varies, or all are worth the same.
    """
    import optuna  # takes half a second, and most sweeps are read without a search to judge

    varying = [name for name, found in numbers.items() if min(found) < max(found)]
    if not varying or min(values) == max(values):
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        name: optuna.distributions.FloatDistribution(min(numbers[name]), max(numbers[name]))
        for name in varying
    }
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: numbers[name][number] for name in varying},
                distributions=dict(space),
                value=value,
            )
            for number, value in enumerate(values)
        ]
    )
    share = min(max(TOP, FEWEST_OF_TOP / len(values)), 0.5)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in numbers}
