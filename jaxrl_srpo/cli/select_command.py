"""`jaxrl-srpo select`: one policy of a run, by the data alone or by a few episodes."""

from typing import Any

from absl import flags

from jaxrl_srpo.cli.command import Command, define_own_methods, words
from jaxrl_srpo.cli.command_line import one_argument

_NOTE = """\
Without --episodes nothing is played: Q is fitted to every policy on the dataset (fitted Q evaluation), and cheaper
scores stand beside it; docs/selecting.md says what each is worth. The table goes to RUN_DIR/selection.csv."""
_DEFAULTS = {"fqe_discount": "that of the run"}
_DEFINE: dict[type, Any] = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def _define(values: flags.FlagValues) -> None:
    from jaxrl_srpo.selection.choosing import SETTINGS

    text, whole = flags.DEFINE_string, flags.DEFINE_integer
    text("by", "supported", "Score that ranks: supported, fqe, one_step, critic, cloning or ess.", flag_values=values)
    whole("episodes", 0, "Episodes to play for each dataset, spent by a bandit; 0: none.", flag_values=values)
    text("prior", "", "Play only the better half of the policies by this score.", flag_values=values)
    whole("pulls_at_once", 8, "Episodes played together.", flag_values=values)
    whole("seed", 0, "Seed of the bandit.", flag_values=values)
    text("policies", "", "Policies to choose from, for instance srpo,awac; all by default.", flag_values=values)
    define_own_methods(values)
    text("env", None, "Gymnasium id to play in, for data that names none.", flag_values=values)
    for flag, one in SETTINGS.items():
        help = f"{one.help[:1].upper()}{one.help[1:]}; {_DEFAULTS.get(flag, one.default)} by default."
        _DEFINE[type(one.default)](flag, None, help, flag_values=values)


def _select(values: flags.FlagValues, rest: list[str]) -> None:
    run_dir = one_argument(rest, "select", "RUN_DIR")
    from jaxrl_srpo.selection.choosing import SETTINGS, select
    from jaxrl_srpo.selection.records import format_selection

    given = {flag: values[flag].value for flag in SETTINGS if values[flag].value is not None}
    selection = select(
        run_dir,
        by=values.by,
        episodes=values.episodes,
        prior=values.prior,
        pulls_at_once=values.pulls_at_once,
        seed=values.seed,
        policies=words(values.policies),
        algorithm=words(values.algorithm),
        environment=values.env,
        **given,
    )
    print(format_selection(selection))


SELECT = Command(
    "select",
    "RUN_DIR",
    "choose one of its policies, by the data alone or by a few episodes",
    _define,
    _select,
    note=_NOTE,
)
