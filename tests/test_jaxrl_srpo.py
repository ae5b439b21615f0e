"""The public face of the package."""

import importlib
import pathlib

import pytest

import jaxrl_srpo


def test_every_public_name_exists() -> None:
    for name in jaxrl_srpo.__all__:
        assert getattr(jaxrl_srpo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        importlib.import_module("jaxrl_srpo").trian  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports under TYPE_CHECKING, programs the names that are imported on first use."""
    text = pathlib.Path(jaxrl_srpo.__file__).read_text()
    lines = text[text.index("if TYPE_CHECKING:") : text.index("__version__")].splitlines()[1:]
    imported = {
        (name.strip(), line.split()[1])
        for line in lines
        if line.strip()
        for name in line.split(" import ")[1].split(",")
    }
    assert imported == set(jaxrl_srpo._MODULES.items())
    assert sorted(jaxrl_srpo._MODULES) == jaxrl_srpo.__all__
