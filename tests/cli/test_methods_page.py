"""The page of methods says what the code declares, and the documentation holds it."""

import pathlib

import pytest

from jaxrl_srpo.cli.methods_page import methods_page
from jaxrl_srpo.methods import METHODS, stages_in_order
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.report.table import markdown_line

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_documentation_holds_the_page() -> None:
    assert PAGE.read_text() == methods_page(METHODS), "write it again: jaxrl-srpo methods > docs/methods.md"


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_method_has_its_presets_settings_and_metrics(method: Method) -> None:
    page = methods_page([method])
    for preset in method.presets.values():
        assert preset.source in page
    for flag, setting in method.settings().items():
        (line,) = [line for line in page.splitlines() if f"`--{flag}`" in line]
        assert (f"`--{flag}`*" in line) == setting.swept
        assert setting.help in line
    for stage in stages_in_order([method]):
        assert (f"### {stage.name}\n" in page) == stage.learns
        assert all(markdown_line([name, meaning]) in page for name, meaning in stage.metrics.items())
