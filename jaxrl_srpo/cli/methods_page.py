"""The methods as a Markdown page: what each trains, its presets, its settings and what its metrics mean."""

from collections.abc import Sequence

from jaxrl_srpo.methods import stages_in_order
from jaxrl_srpo.methods.contract import Method, Stage, merged_settings
from jaxrl_srpo.methods.settings import text_of
from jaxrl_srpo.report.table import markdown_line

_HEAD = """\
# Methods

`jaxrl-srpo methods` prints this page from the code. A stage is trained once for all methods that share it; every
setting is a flag, and those marked * take several values in one sweep.
"""


def methods_page(methods: Sequence[Method]) -> str:
    """The page, ending in a newline."""
    parts = [_HEAD, _overview(methods), _presets(methods), _settings(methods)]
    parts += ["## Metrics\n", *(_metrics(stage) for stage in stages_in_order(methods) if stage.metrics)]
    return "\n".join(parts)


def _overview(methods: Sequence[Method]) -> str:
    lines = [markdown_line(["`--algorithm`", "source", "stages", "online"]), "|---|---|---|---|"]
    for method in methods:
        stages = ", ".join(stage.name for stage in method.stages)
        lines.append(markdown_line([method.name, method.source, stages, method.online.name if method.online else ""]))
    return "\n".join(lines) + "\n"


def _presets(methods: Sequence[Method]) -> str:
    lines = ["## Presets\n", markdown_line(["method", "`--preset`", "source"]), "|---|---|---|"]
    for method in methods:
        lines += [markdown_line([method.name, name, preset.source]) for name, preset in method.presets.items()]
    return "\n".join(lines) + "\n"


def _settings(methods: Sequence[Method]) -> str:
    lines = ["## Settings\n", markdown_line(["group", "flag", "default", "meaning"]), "|---|---|---|---|"]
    for flag, setting in merged_settings(methods).items():
        title = getattr(setting.owner, "title", setting.owner.__name__)
        choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
        star = "*" if setting.swept else ""
        cells = [title, f"`--{flag}`{star}", text_of(setting.default), setting.help + choices]
        lines.append(markdown_line(cells))
    return "\n".join(lines) + "\n"


def _metrics(stage: Stage) -> str:
    lines = [f"### {stage.name}\n", markdown_line(["column of metrics.csv", "meaning"]), "|---|---|"]
    lines += [markdown_line([name, meaning]) for name, meaning in stage.metrics.items()]
    return "\n".join(lines) + "\n"
