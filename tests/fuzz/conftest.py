"""What tests of damaged run directories share."""

import pytest

from tests.fuzz import run_directories
from tests.fuzz.run_directories import Base


@pytest.fixture(scope="session")
def run_base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A finished and a half-finished run, trained once."""
    return run_directories.make_base(tmp_path_factory.mktemp("base"))
