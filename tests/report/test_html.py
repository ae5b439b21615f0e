"""The page of a run: what stands in it, and what a real browser makes of it."""

import pathlib
import re
import shutil
import subprocess

import pytest

from jaxrl_srpo.report import compare_runs, write_report
from tests.report import written_run
from tests.report.written_run import EVALUATIONS, HOPPER, METRICS

NASTY = "<script>alert(1)</script>&\"'"
# Sorts by the column `mean ± std` twice, then writes down what a reader would see.
PROBE = """<script>
const errors = [];
window.onerror = message => errors.push(message);
const button = [...document.querySelectorAll("th button")].find(one => one.textContent === "mean ± std");
const firsts = [0, 1].map(() => { button.click(); return document.querySelector("tbody tr").textContent; });
const seen = [button.parentNode.getAttribute("aria-sort"), document.documentElement.scrollWidth <= innerWidth];
document.body.dataset.seen = JSON.stringify([...seen, errors.length, ...firsts]);
</script>"""


def text_of(run_dir: pathlib.Path) -> str:
    write_report(run_dir)
    return (run_dir / "report" / "index.html").read_text()


def test_the_page_loads_nothing_and_holds_all(tmp_path: pathlib.Path) -> None:
    stages = [{**one, "metrics": {"loss": "what it minimizes"}} for one in written_run.STAGES]
    text = text_of(written_run.write(tmp_path, metrics=METRICS, stages=stages))
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert text.count("data:image/svg+xml;base64,") == 2
    for part in ("50.0 ± 14.1", "what it minimizes", "jaxrl-srpo train --seeds=0:2", "jax 0.10.2", "<caption>"):
        assert part in text


def test_names_are_escaped(tmp_path: pathlib.Path) -> None:
    run_dir = written_run.write(
        tmp_path, EVALUATIONS.replace(HOPPER, "<script>alert(1)</script>"), command=[NASTY], versions={NASTY: NASTY},
        datasets=[written_run.dataset("<script>alert(1)</script>")],
        settings={"<script>alert(1)</script>": {NASTY: NASTY}},
        members=[{"dataset": "<script>alert(1)</script>", "seed": 0, "values": {}}],
    )  # fmt: skip
    text = text_of(run_dir)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5


def test_settings_that_differ_come_first_and_warnings_are_told(tmp_path: pathlib.Path) -> None:
    members = [{"dataset": HOPPER, "seed": seed, "values": {"tau": seed}} for seed in (0, 1)]
    run_dir = written_run.write(tmp_path, "", members=members, settings={HOPPER: {"alpha": 3, "tau": 0}})
    text = text_of(run_dir)
    assert text.index("<td>tau</td><td>0, 1</td>") < text.index("<td>alpha</td><td>3</td>")
    assert "No policy has been evaluated." in text


def test_several_runs_share_one_table(tmp_path: pathlib.Path) -> None:
    runs = [written_run.write(tmp_path / name) for name in ("first", "second")]
    text = compare_runs(runs, tmp_path / "out").read_text()
    assert ">run</button>" in text
    assert text.count("<td>first</td>") == text.count("<td>second</td>") == 5
    assert "<h2>first</h2>" in text
    assert "<h2>second</h2>" in text


def test_a_browser_sorts_and_nothing_overflows(tmp_path: pathlib.Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("chromium is not installed")
    page = tmp_path / "probe.html"
    # A frame is as narrow as a phone; windows of a headless browser are not.
    inner = text_of(written_run.write(tmp_path / "run", metrics=METRICS)).replace("</body>", PROBE + "</body>")
    (tmp_path / "inner.html").write_text(inner)
    page.write_text(
        '<iframe id="phone" src="inner.html" style="width:390px;height:800px;border:0"></iframe><script>'
        "phone.onload = () => document.body.dataset.seen = phone.contentDocument.body.dataset.seen;</script>"
    )
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    seen = re.search(r"<body data-seen=\"([^\"]*)\"", dom)
    assert seen is not None, dom
    order, fits, errors, first, last = seen[1].replace("&quot;", '"').strip("[]").split(",", 4)
    assert (order, fits, errors) == ('"descending"', "true", "0")
    assert "44.0" in first
    assert "72.0" in last
