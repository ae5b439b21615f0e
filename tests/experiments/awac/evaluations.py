"""Evaluations written by hand."""

from jaxrl_srpo.report.records import Evaluation


def evaluation(
    algorithm: str,
    step: int,
    mean: float,
    seed: int = 0,
    setting: str = "",
    dataset: str = "pendulum",
    metric: str = "return",
) -> Evaluation:
    """A row of `evaluations.csv` of 10 episodes; steps 5,000 and 10,000 are last ones."""
    stage, final = algorithm, step in (5_000, 10_000)
    return Evaluation(stage, algorithm, dataset, seed, setting, None, step, final, 10, metric, mean, 1.0, mean, None)
