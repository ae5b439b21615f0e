"""A dataset in words and in a picture."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.rewards import default_transform
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.data.weighting import take_rows
from jaxrl_srpo.errors import DatasetError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_BLUE, _ORANGE, _GRAY = "#2a6f97", "#e07a1f", "#8d99ae"


def describe(dataset: Dataset) -> str:
    """A dataset in about twenty lines: size, returns, endings, dimensions, bounds, environment, fingerprint.

    Returns:
      Lines of text without a final newline.
    """
    lengths = dataset.episode_lengths
    rows = [
        ("dataset", dataset.name),
        ("source", dataset.source),
        ("family", dataset.family),
        ("environment", _environment(dataset)),
        ("transitions", f"{dataset.size:,}"),
        ("episodes", f"{len(lengths):,} complete, of {_quartiles(lengths, '.0f')} steps"),
        ("returns", _quartiles(dataset.episode_returns, ".5g") + f", mean {dataset.episode_returns.mean():.5g}"),
        ("normalized", _normalized(dataset)),
        (
            "rewards",
            f"{_quartiles(dataset.rewards, '.3g')}, mean {dataset.rewards.mean(dtype=np.float64):.3g} per step",
        ),
        ("terminals", f"{int(dataset.terminals.sum()):,} transitions {_what_terminals_are(dataset)}"),
        ("time-outs", f"{dataset.timeouts:,} episodes ended by a time limit"),
        ("observations", f"{dataset.observation_size} numbers, {_range(dataset.observations)}"),
        ("actions", f"{dataset.action_size} numbers, {_range(dataset.actions)}, bounds {_bounds(dataset)}"),
        ("at the bounds", f"{100.0 * _saturation(dataset).mean():.1f}% of action components"),
        ("reward transform", f"{default_transform(dataset.family)} (default)"),
        ("fingerprint", dataset.fingerprint),
        *(("warning", line.removeprefix(f"{dataset.source}: ")) for line in dataset.warnings),
    ]
    return "\n".join(f"{label:<17} {value}" for label, value in rows)


def plot(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Draws a dataset as a PNG of six panels.

    Returns of episodes as a histogram and in file order, episode lengths, the reward along an episode, actions per
    dimension, and the states: positions in mazes, else the first two principal components.

    Args:
      dataset: a loaded dataset.
      path: the PNG to write.

    Raises:
      DatasetError: it has no finite number to draw, having been read although it failed its checks.
    """
    dataset = _finite(dataset)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15.0, 8.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3)
    _plot_returns(axes[0, 0], dataset)
    _plot_order(axes[0, 1], dataset)
    _plot_lengths(axes[0, 2], dataset)
    _plot_rewards(axes[1, 0], dataset)
    _plot_actions(figure, axes[1, 1], dataset)
    _plot_states(figure, axes[1, 2], dataset)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    where = f", {dataset.environment.id}" if dataset.environment else ""
    figure.suptitle(
        f"{dataset.name}: {dataset.size:,} transitions, {len(dataset.episode_lengths):,} episodes, "
        f"{int(dataset.terminals.sum()):,} terminals, {dataset.timeouts:,} time-outs{where}",
        fontsize=14,
    )
    figure.savefig(path, format="png", dpi=110)


def _finite(dataset: Dataset) -> Dataset:
    """A dataset without rows and returns that are not finite."""
    columns = (dataset.observations, dataset.actions, dataset.rewards[:, None])
    rows = np.flatnonzero(np.all([np.isfinite(column).all(axis=1) for column in columns], axis=0))
    returns = dataset.episode_returns[np.isfinite(dataset.episode_returns)]
    if not len(rows) or not len(returns):
        raise DatasetError(f"{dataset.source}: has no finite numbers to draw")
    ends = dataset.episode_ends[rows]
    ends[-1] = True
    return dataclasses.replace(take_rows(dataset, rows), episode_ends=ends, episode_returns=returns)


def _plot_returns(axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Histogram of returns with mean; normalized scores on top where a reference exists."""
    returns = dataset.episode_returns
    axis.hist(returns, bins=_bins(returns), color=_BLUE)
    axis.axvline(returns.mean(), color=_ORANGE, linewidth=2, label=f"mean {returns.mean():.4g}")
    axis.set(title="Return per episode", xlabel="return (undiscounted)", ylabel="episodes")
    reference = dataset.reference
    if reference is not None:
        low, span = reference.random, reference.expert - reference.random

        def scores_of(values: Any) -> Any:
            return 100.0 * (np.asarray(values) - low) / span

        def returns_of(scores: Any) -> Any:
            return low + np.asarray(scores) * span / 100.0

        top = axis.secondary_xaxis("top", functions=(scores_of, returns_of))
        top.set_xlabel("normalized score (0 random, 100 expert)")
    axis.legend(frameon=False)


def _plot_order(axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Returns in file order: replay buffers drift, mixtures of policies come in steps."""
    returns = dataset.episode_returns
    axis.plot(np.arange(len(returns)), returns, ".", color=_BLUE, markersize=4, alpha=0.6, label="one episode")
    width = max(1, len(returns) // 20)
    if width > 1:
        mean = np.convolve(returns, np.full(width, 1.0 / width), mode="valid")
        axis.plot(np.arange(len(mean)) + width / 2, mean, color=_ORANGE, linewidth=2, label=f"mean of {width}")
    axis.set(title="Return in the order of the file", xlabel="episode", ylabel="return")
    axis.legend(framealpha=0.8, edgecolor="none")


def _plot_lengths(axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Histogram of episode lengths."""
    lengths = dataset.episode_lengths
    axis.hist(lengths, bins=_bins(lengths), color=_BLUE)
    axis.axvline(lengths.mean(), color=_ORANGE, linewidth=2, label=f"mean {lengths.mean():.4g}")
    axis.set(title="Episode length", xlabel="steps", ylabel="episodes")
    axis.legend(frameon=False)


def _plot_rewards(axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Mean reward and its middle half by step of the episode, over at most 100 windows of steps."""
    starts = np.concatenate([[0], np.flatnonzero(dataset.episode_ends)[:-1] + 1])
    first = np.zeros(dataset.size, np.int64)
    first[starts] = starts
    step = np.arange(dataset.size) - np.maximum.accumulate(first)
    width = max(1, -(-(int(step.max()) + 1) // 100))
    window = step // width
    order = np.argsort(window, kind="stable")
    groups = np.split(dataset.rewards[order], np.flatnonzero(np.diff(window[order])) + 1)
    x = (np.unique(window) + 0.5) * width
    low, high = np.array([np.quantile(group, [0.25, 0.75]) for group in groups]).T
    mean = np.array([group.mean(dtype=np.float64) for group in groups])
    axis.fill_between(x, low, high, color=_BLUE, alpha=0.25, linewidth=0, label="middle half")
    axis.plot(x, mean, color=_BLUE, linewidth=2, label="mean")
    axis.set(title="Reward along an episode", xlabel="step of the episode", ylabel="reward")
    still = np.array([len(group) for group in groups]) / width
    share = axis.twinx()
    share.plot(x, still, color=_GRAY, linestyle=":", label="episodes still running (right)")
    share.set(ylim=(0, None))
    share.spines[["top"]].set_visible(False)
    handles = [*axis.get_legend_handles_labels()[0], *share.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, framealpha=0.8, edgecolor="none", fontsize=8)


def _plot_actions(figure: "matplotlib.figure.Figure", axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Density of each action component between its bounds, and how often it is at one.

    The color goes with the square root, so that a pile at a bound does not hide the rest.
    """
    from matplotlib.colors import PowerNorm

    # A dimension without room between its bounds would divide by zero.
    high = np.where(dataset.action_high > dataset.action_low, dataset.action_high, dataset.action_low + 1.0)
    units = Units(action_low=dataset.action_low, action_high=high)
    scaled = np.clip(units.normalize_actions(dataset.actions), -1.0, 1.0)
    counts = np.stack([np.histogram(column, bins=41, range=(-1.0, 1.0))[0] for column in scaled.T], axis=1)
    share = 100.0 * counts / dataset.size
    picture = axis.imshow(
        share,
        origin="lower",
        aspect="auto",
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0.0),
        extent=(-0.5, dataset.action_size - 0.5, -1.0, 1.0),
    )
    figure.colorbar(picture, ax=axis, label="% of transitions per cell")
    saturated = 100.0 * _saturation(dataset)
    if dataset.action_size <= 8:
        labels = [f"{index}\n{value:.0f}%" for index, value in enumerate(saturated)]
        axis.set_xticks(range(dataset.action_size), labels, fontsize=8)
    axis.set(
        title=f"Actions ({saturated.mean():.1f}% of components at a bound)",
        xlabel="action dimension" + (", share at a bound" if dataset.action_size <= 8 else ""),
        ylabel="action between its bounds (-1 low, 1 high)",
    )


def _plot_states(figure: "matplotlib.figure.Figure", axis: "matplotlib.axes.Axes", dataset: Dataset) -> None:
    """Where the states are: positions in mazes, else two principal components, colored by how often."""
    stride = max(1, dataset.size // 200_000)
    states = dataset.observations[::stride]
    if dataset.family in ("pointmaze", "antmaze") or states.shape[1] < 2:
        points, title, labels = states[:, :2], "Positions visited", ["x", "y"]
    else:
        points, explained = _principal_components(states)
        title = f"States, principal components ({100.0 * explained.sum():.0f}% of the variance)"
        labels = [f"component {i + 1} ({100.0 * share:.0f}%)" for i, share in enumerate(explained)]
    if points.shape[1] < 2:
        axis.hist(points[:, 0], bins=60, color=_BLUE)
        axis.set(title="States", xlabel="observation", ylabel="transitions")
        return
    cells = axis.hexbin(points[:, 0], points[:, 1], gridsize=60, bins="log", mincnt=1, cmap="viridis", linewidths=0.1)
    figure.colorbar(cells, ax=axis, label="transitions per cell" + (f", one in {stride}" if stride > 1 else ""))
    if labels == ["x", "y"]:
        axis.set_aspect("equal")
        # Not s', which in D4RL's mazes is the start of the next episode.
        final = dataset.observations[dataset.terminals, :2]
        axis.plot(final[:, 0], final[:, 1], ".", color="red", markersize=3)
        title += " (red: last before a terminal)" if len(final) else ""
    axis.set(title=title, xlabel=labels[0], ylabel=labels[1])


def _principal_components(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States [N, n], scaled to unit variance, on two principal axes [N, 2], and the shares of variance explained [2].

    States of which fewer than two dimensions vary come back as their first dimension [N, 1].
    """
    deviation = states.std(axis=0, dtype=np.float64)
    moving = deviation > 1e-8
    if moving.sum() < 2:
        return states[:, :1], np.ones(1)
    scaled = (states[:, moving] - states[:, moving].mean(axis=0, dtype=np.float64)) / deviation[moving]
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    return scaled @ vectors[:, [-1, -2]], values[[-1, -2]] / values.sum()


def _bins(values: np.ndarray) -> list[float]:
    """Edges of 10 to 40 bins, more for more values; all around the one value if there is only one."""
    low, high = float(values.min()), float(values.max())
    if high == low:
        margin = max(1.0, 0.1 * abs(low))
        return np.linspace(low - margin, high + margin, 42).tolist()
    count = int(np.clip(2.0 * np.sqrt(len(values)), 10, 40))
    return np.linspace(low, high, count + 1).tolist()


def _saturation(dataset: Dataset) -> np.ndarray:
    """[action_size]: share of the actions within 1% of the range of a bound."""
    margin = 0.005 * (dataset.action_high - dataset.action_low)
    at_low = dataset.actions <= dataset.action_low + margin
    return (at_low | (dataset.actions >= dataset.action_high - margin)).mean(axis=0)


def _quartiles(values: np.ndarray, form: str) -> str:
    """Smallest, quartiles and largest value in words."""
    # Of data that were read all the same, infinite ones too.
    with np.errstate(invalid="ignore"):
        low, first, median, third, high = (format(float(q), form) for q in np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    return f"{low} to {high} (quartiles {first}, {median}, {third})"


def _normalized(dataset: Dataset) -> str:
    """Normalized scores of the episodes, where the returns of a random and an expert policy are known."""
    if dataset.reference is None:
        return "no reference returns are known"
    scores = dataset.reference.normalize(dataset.episode_returns)
    return (
        f"{_quartiles(scores, '.1f')}, mean {scores.mean():.1f} "
        f"(random {dataset.reference.random:.6g}, expert {dataset.reference.expert:.6g})"
    )


def _environment(dataset: Dataset) -> str:
    """The environment in words."""
    spec = dataset.environment
    if spec is None:
        return "unknown; name one with --env to evaluate"
    limit = f", time limit {spec.max_episode_steps}" if spec.max_episode_steps else ""
    return spec.id + limit + (", goal task" if spec.goal_task else "")


def _what_terminals_are(dataset: Dataset) -> str:
    if dataset.goes_on_after_terminals:
        return "solve the task; nothing is bootstrapped there, and the episodes go on"
    return "end in a terminal state"


def _range(values: np.ndarray) -> str:
    """The range of an array in words."""
    return f"{float(values.min()):.4g} to {float(values.max()):.4g}"


def _bounds(dataset: Dataset) -> str:
    """Action bounds in words, once if all dimensions share them."""
    low, high = dataset.action_low, dataset.action_high
    if (low == low[0]).all() and (high == high[0]).all():
        return f"[{low[0]:.4g}, {high[0]:.4g}]"
    return " ".join(f"[{a:.4g}, {b:.4g}]" for a, b in zip(low, high, strict=True))
