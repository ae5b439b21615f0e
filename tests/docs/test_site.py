"""The pages: every link leads somewhere, every excerpt is in the code, and the site builds without a warning."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def links(text: str) -> list[str]:
    """The targets of a page's links and pictures that are files; code is left out."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`\n?(?!\])", "", text, flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def test_links_are_found() -> None:
    text = "[a](b.md#c) ![d](e.png) [web](https://x.y)\n```\n[no](code.md)\n```\n[f](#g) [`h`](../i.py)\n"
    assert links(text) == ["b.md", "e.png", "../i.py"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file(page: pathlib.Path) -> None:
    assert not [target for target in links(page.read_text()) if not (page.parent / target).exists()]


def test_the_excerpts_of_the_page_on_methods_are_in_the_code() -> None:
    page = (ROOT / "docs" / "own_method.md").read_text()
    excerpts = re.findall(r"^From `([^`]+)`:\n\n```python\n(.*?)\n```$", page, re.M | re.S)
    assert len(excerpts) > 10
    assert not [code for file, code in excerpts if code not in (ROOT / file).read_text()]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is missing: pip install -e '.[docs]'")
def test_the_site_builds_without_a_warning(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in ("index.html", "reference/index.html", "tutorials/train_and_choose/index.html"):
        assert (tmp_path / page).exists(), page
    assert "load_results" in (tmp_path / "reference" / "index.html").read_text()
