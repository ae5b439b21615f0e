"""What surrounds the code: version, license, citation, changelog and the workflow say the same."""

import importlib.metadata
import pathlib
import re
import subprocess
import tomllib
from typing import Any

import yaml

import jaxrl_srpo

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def releases() -> list[str]:
    """The changelog's versions, newest first."""
    return re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d{2}-\d{2}$", read("CHANGELOG.md"), re.M)


def test_the_installed_version_matches_the_package() -> None:
    installed = importlib.metadata.version("jaxrl-srpo")
    assert installed == jaxrl_srpo.__version__, "install again: pip install -e ."


def test_pyproject_names_a_license_that_exists() -> None:
    project: dict[str, Any] = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["license"] == "MIT"
    assert project["license-files"] == ["LICENSE"]
    (author,) = project["authors"]
    assert read("LICENSE").startswith("MIT License\n\nCopyright (c) 2026 " + author["name"])


def test_the_citation_is_of_the_last_release_and_names_the_papers() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == releases()[0]
    assert f"## [{citation['version']}] - {citation['date-released']}" in read("CHANGELOG.md")
    assert citation["license"] == "MIT"
    references = {reference["notes"]: reference for reference in citation["references"]}
    assert {name: reference["url"].rsplit("/", 1)[1] for name, reference in references.items()} == {
        "SRPO": "2310.07297",
        "SMM": "1906.05274",
        "AWAC": "2006.09359",
    }
    assert all(reference["title"] and reference["authors"] for reference in references.values())


def test_the_changelog_has_the_version() -> None:
    first = re.search(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.M)
    assert first is not None
    development = ".dev" in jaxrl_srpo.__version__
    assert first[1] == ("Unreleased" if development else jaxrl_srpo.__version__)


def test_the_workflow_runs_the_test_line_of_the_readme() -> None:
    (job,) = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"].values()
    find_line = job["steps"][-1]["run"].splitlines()[0]
    found = subprocess.run(["bash", "-c", f'{find_line}; echo "$line"'], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.count("\n") == 1
    assert found.stdout.startswith("python3 -m venv ")
    assert found.stdout in read("README.md")
    versions = job["strategy"]["matrix"]["python-version"]
    classifiers = tomllib.loads(read("pyproject.toml"))["project"]["classifiers"]
    assert versions == [line.split(" :: ")[-1] for line in classifiers if re.search(r":: 3\.\d+$", line)]


def test_every_file_that_a_page_names_is_there() -> None:
    pattern = re.compile(r"\b(?:tests|jaxrl_srpo|experiments|launch|examples)/[a-z0-9_/]+\.(?:py|sh|zip)\b")
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = {(page.name, path) for page in pages for path in pattern.findall(page.read_text())}
    assert len(named) > 20
    assert not [f"{page}: {path}" for page, path in sorted(named) if not (ROOT / path).exists()]
