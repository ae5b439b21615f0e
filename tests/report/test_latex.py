"""Tables for LaTeX."""

from jaxrl_srpo.report.latex import escaped, tabular


def test_a_tabular_has_rules_and_escaped_cells() -> None:
    assert tabular("lr", ["a_b", "c"], [["1 ± 2", "x"]]) == [
        "\\begin{tabular}{lr}",
        "\\toprule",
        "a\\_b & c \\\\",
        "\\midrule",
        "1 $\\pm$ 2 & x \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]
    assert escaped("td3_bc") == "td3\\_bc"
