"""JSON with its own digest: what was written comes back, anything else is refused in one line."""

import json
import pathlib

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed

CONTENT = {"b": [1, 2.5, None, True], "a": {"name": "hüpfer", "tiny": 1e-300}}


def write(path: pathlib.Path, text: str | bytes) -> pathlib.Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_content_comes_back_without_its_digest(tmp_path: pathlib.Path) -> None:
    assert sealed.read(write(tmp_path / "x.json", sealed.text_of(CONTENT))) == CONTENT
    assert sealed.SEAL in json.loads(sealed.text_of(CONTENT))


def test_content_without_a_digest_is_that_of_an_earlier_version(tmp_path: pathlib.Path) -> None:
    assert sealed.read(write(tmp_path / "x.json", json.dumps(CONTENT))) == CONTENT


def test_every_flipped_bit_is_refused_or_changes_nothing(tmp_path: pathlib.Path) -> None:
    whole = sealed.text_of({"seed": 0, "rate": 0.5}).encode()
    messages = []
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            content = sealed.read(write(tmp_path / "x.json", bytes(flipped)))
        except UserError as error:
            messages.append(str(error))
        else:
            # Without its seal the content is as it was.
            assert {key: content[key] for key in ("seed", "rate")} == {"seed": 0, "rate": 0.5}
    assert len(messages) > 8 * len(whole) * 0.8
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "no object"),
        ("{", "not valid JSON"),
        (b"\xff{}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"x": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"x": 1, "sha256": "00"}', "is damaged: it is not what was written"),
        ('{"x": 1, "sha256": []}', "is damaged: it is not what was written"),
    ],
)
def test_what_is_no_such_file_is_refused_in_one_line(
    tmp_path: pathlib.Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        sealed.read(write(tmp_path / "x.json", content))
    assert "\n" not in str(caught.value)


def test_a_directory_in_its_place_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        sealed.read(tmp_path)
