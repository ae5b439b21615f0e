"""Whatever is raised while somebody's file is read becomes one line."""

import pytest

from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, UserError, first_line, printed


class OwnError(Exception):
    """Of a library whose exceptions have no common base."""


@pytest.mark.parametrize(
    "error", [OSError("cut\nshort"), KeyError("x"), RecursionError(), MemoryError(), OwnError("no")]
)
def test_every_exception_becomes_one_line(error: Exception) -> None:
    with (
        pytest.raises(DatasetError, match=r"^x\.hdf5: rewards cannot be read: [^\n]+$") as caught,
        readable("x.hdf5: rewards"),
    ):
        raise error
    assert caught.value.__cause__ is error


def test_what_is_meant_for_a_person_passes() -> None:
    with pytest.raises(UserError, match=r"^give a range$"), readable("x"):
        raise UserError("give a range")
    with pytest.raises(KeyboardInterrupt), readable("x"):
        raise KeyboardInterrupt


def test_the_first_line_of_an_exception_is_short() -> None:
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("\n\n")) == "ValueError"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert len(first_line(ValueError("x" * 10_000))) == 300


@pytest.mark.parametrize(
    ("value", "text"), [("Hopper-v4", "Hopper-v4"), (b"Hopper-v4", "Hopper-v4"), ("Läufer", "Läufer")]
)
def test_printable_text_is_text(value: object, text: str) -> None:
    assert require_text("x", value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "env_id is int; expected text"),
        (b"\xff\xfe", r"env_id is '\\udcff\\udcfe'; expected printable text in UTF-8"),
        ("a\nb", r"env_id is 'a\\nb'; expected printable text"),
        ("\x1b[2J", r"env_id is '\\x1b\[2J'; expected printable text"),
        ("\ud800", r"env_id is '\\ud800'; expected printable text"),
    ],
)
def test_other_text_is_refused(value: object, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        require_text("env_id", value)


def test_text_of_a_file_breaks_no_line() -> None:
    assert printed("episode 0") == "episode 0"
    assert printed("a\nb\udcff") == r"'a\nb\udcff'"
