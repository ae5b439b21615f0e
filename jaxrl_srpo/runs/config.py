"""A sweep in a file: the arguments of `train` in JSON or YAML, or a run's `sweep.json`, which has those of the run."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from jaxrl_srpo.data.names import parse_seeds
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import expand_home
from jaxrl_srpo.methods import METHODS
from jaxrl_srpo.methods.contract import merged_settings
from jaxrl_srpo.methods.settings import Setting

Config = dict[str, tuple[str, ...]]
"""Words by the name of a flag, as a command line would have them."""


def read_config(path: str | os.PathLike[str]) -> Config:
    """What a file asks for.

    Every value is read as a command line would have it, so that `seeds: 0:4` and `beta: [0.05, 0.1]` mean what they
    mean there.

    Raises:
      UserError: the file cannot be read, holds something else than words and lists of words by name, or names code
        to import, which only a command line may.
    """
    file = expand_home(path)
    try:
        text = file.read_text()
        # Without types: YAML would make a number of 1:4, and JSON lose digits.
        content = yaml.load(text, Loader=yaml.BaseLoader) if file.suffix != ".json" else _plain(text)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"--config={path}: cannot be read as JSON or YAML: {' '.join(str(error).split())}") from None
    if isinstance(content, Mapping) and "stages" in content and "members" in content:
        content = _of_run(file, content)
    if not isinstance(content, Mapping):
        raise UserError(f"--config={path}: should hold the arguments of train by name, for instance `seeds: 0:4`")
    config = {str(name): _words(path, str(name), value) for name, value in content.items()}
    for name in ("algorithm", "env"):
        for word in config.get(name, ()):
            if ":" in word:
                raise UserError(
                    f"--config={path}: names code to import, {word}; only the command line may: --{name}={word}"
                )
    return config


def _plain(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def _of_run(path: pathlib.Path, content: Mapping[str, Any]) -> Any:
    if not isinstance(content.get("asked"), Mapping):
        raise UserError(f"--config={path}: does not say what was asked for, as runs of earlier versions do not")
    return content["asked"]


def _words(path: str | os.PathLike[str], name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if any(not isinstance(one, str | bool) for one in values) or not values:
        raise UserError(f"--config={path}: {name} should be a number, a word, or a list of these")
    return tuple(str(one).lower() if isinstance(one, bool) else one for one in values)


def as_flags(config: Config) -> list[str]:
    """The same as flags of a command line."""
    return [f"--{name}={','.join(words)}" for name, words in config.items()]


def as_arguments(config: Config) -> dict[str, Any]:
    """The same as arguments of `api.train`.

    Raises:
      UserError: a name is of no argument and no setting, or a value is none of its own.
    """
    settings = merged_settings(METHODS)
    return {name: _argument(name, words, settings.get(name)) for name, words in config.items()}


def _argument(name: str, words: tuple[str, ...], setting: Setting | None) -> Any:
    text = ",".join(words)
    if setting is not None:
        return setting.parse(text) if not isinstance(setting.default, bool) else _truth(name, text)
    if name in ("datasets", "algorithm"):
        return list(words)
    if name == "seeds":
        return parse_seeds(text)
    if name in ("preset", "out"):
        return text
    if name == "budget":
        try:
            return float(text)
        except ValueError:
            raise UserError(f"--budget={text}: expects a number, for instance 0.1") from None
    raise UserError(f"{name}: no argument of train and no setting; `jaxrl-srpo train --helpfull` lists settings")


def _truth(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"--{name}={text}: expects true or false")
    return text == "true"
