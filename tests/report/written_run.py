"""A run directory written by hand, with numbers that can be checked by hand."""

import json
import pathlib
from typing import Any

from jaxrl_srpo.report import write_table

HEADER = (
    "stage,algorithm,dataset,seed,setting,beta,step,final,episodes,metric,"
    "mean,std,return_mean,return_std,length_mean,success_rate\n"
)
HOPPER = "hopper-medium-v2"
EVALUATIONS = HEADER + "".join(
    f"{stage},{algorithm},{HOPPER},{seed},,{beta},{step},{final},10,normalized_score,{mean},1,{10 * mean},2,300,\n"
    for stage, algorithm, seed, beta, step, final, mean in [
        ("policy", "srpo", 0, "0.2", 500, 0, 80),
        ("policy", "srpo", 0, "0.2", 1000, 1, 60),
        ("policy", "srpo", 1, "0.2", 500, 0, 30),
        ("policy", "srpo", 1, "0.2", 1000, 1, 40),
        ("policy", "srpo", 0, "0.05", 1000, 1, 70),
        ("policy", "srpo", 1, "0.05", 1000, 1, 74),
        ("critic", "iql", 0, "", 2000, 1, 47),
        ("critic", "iql", 1, "", 2000, 1, 53),
        ("behavior", "bc", 0, "", 3000, 1, 44),
    ]
)
METRICS = """stage,dataset,seed,setting,beta,step,updates_per_second,loss,q_loss,actor_loss
behavior,hopper-medium-v2,0,,,100,50.0,2.0,,
behavior,hopper-medium-v2,0,,,200,50.0,1.0,,
critic,hopper-medium-v2,0,,,100,70.0,,900.0,
critic,hopper-medium-v2,0,,,200,70.0,,1.5,
policy,hopper-medium-v2,0,,0.05,100,90.0,,,-3.0
policy,hopper-medium-v2,1,,0.05,100,90.0,,,nan
policy,hopper-medium-v2,0,,0.2,100,90.0,,,-inf
"""


def stage(name: str, algorithm: str, label: str, **more: Any) -> dict[str, Any]:
    """An entry of the list `stages` of `sweep.json`."""
    facts = {"title": label, "online": False, "follows": "", "cloning": "", "curve": True}
    return {"name": name, "algorithm": algorithm, "label": label, **facts, **more}


STAGES = (
    stage("behavior", "bc", "behavior cloning", title="behavior", curve=False),
    stage("critic", "iql", "IQL actor", title="critic", cloning="bc"),
    stage("policy", "srpo", "SRPO", title="policy", cloning="bc"),
)
# A method that the package knows nothing of.
OWN_STAGES = (
    stage("teacher", "mine", "My method", title="teacher of mine"),
    stage("pupil", "mine_online", "My method, online", online=True, follows="mine"),
    stage("hermit", "hermit", "Hermit", online=True),
)


def own_evaluations() -> str:
    """Scores of one seed of `OWN_STAGES`: on the dataset, then online; and online alone."""
    return HEADER + "".join(
        f"{name},{algorithm},maze,0,,,{step},{int(step == 40)},5,success_rate,{mean},0,{mean},0,9,{mean}\n"
        for name, algorithm, step, mean in [
            ("hermit", "hermit", 0, 0.0),
            ("hermit", "hermit", 40, 0.2),
            ("teacher", "mine", 20, 0.25),
            ("teacher", "mine", 40, 0.5),
            ("pupil", "mine_online", 0, 0.5),
            ("pupil", "mine_online", 20, 0.7),
            ("pupil", "mine_online", 40, 0.9),
        ]
    )


def dataset(name: str = HOPPER, metric: str = "normalized_score", **more: Any) -> dict[str, Any]:
    """An entry of the list `datasets` of `sweep.json`."""
    facts = {"transitions": 999, "episodes": 7, "fingerprint": "ab", "reward_transform": "none", "family": "locomotion"}
    scores = {"data_mean": 44.5, "data_std": 3.25, "return_mean": 1430.0}
    return {"name": name, "metric": metric, **facts, **scores, "environment": None, **more}


def write(
    path: pathlib.Path, evaluations: str | None = EVALUATIONS, metrics: str | None = None, **more: Any
) -> pathlib.Path:
    """Writes `sweep.json`, with `more` in it, and the CSV files that are given."""
    sweep = {
        "datasets": [dataset()],
        "stages": STAGES,
        "versions": {"python": "3.11.9", "jax": "0.10.2"},
        "commit": "0123abc",
        "command": ["jaxrl-srpo", "train", "--seeds=0:2"],
        "created": "2026-01-02T03:04:05Z",
        "preset": "quick",
        "settings": {},
        "diverged": [],
        "something_new": 1,
    }
    path.mkdir(exist_ok=True)
    (path / "sweep.json").write_text(json.dumps({**sweep, **more}))
    if evaluations is not None:
        (path / "evaluations.csv").write_text(evaluations)
    if metrics is not None:
        (path / "metrics.csv").write_text(metrics)
    return path


def markdown(run_dir: pathlib.Path) -> str:
    """The table as Markdown."""
    write_table(run_dir)
    return (run_dir / "report" / "table.md").read_text()
