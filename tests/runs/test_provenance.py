"""Which code and packages a run was made with."""

from jaxrl_srpo.runs import provenance


def test_the_commit_and_versions_are_known() -> None:
    assert provenance.versions()["python"].startswith("3.")
    assert set(provenance.commit()) <= set("0123456789abcdef")
