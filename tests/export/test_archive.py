"""Zip files of parts: equal parts give equal bytes, and bad ones a line."""

import contextlib
import io
import zipfile

import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import archive
from jaxrl_srpo.methods import srpo
from tests.export import actors

METADATA = actors.metadata(actors.program(srpo.METHOD, srpo.METHOD.stages[-1], actors.SPACES["plain"]), "npz")
PARTS = {"a.npy": archive.array_bytes(np.arange(3, dtype=np.float32)), "b": b"bytes"}
PACKED = archive.pack(METADATA, PARTS)


def test_a_round_trip_of_equal_bytes() -> None:
    assert archive.unpack(PACKED, "file") == (METADATA, PARTS)
    assert archive.pack(METADATA, PARTS) == PACKED
    opened = np.load(io.BytesIO(PACKED))
    np.testing.assert_array_equal(opened["a"], [0.0, 1.0, 2.0])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"file is damaged .*export it again"):
        archive.unpack(PACKED[: int(share * len(PACKED))], "file")


def test_every_changed_byte_is_noticed() -> None:
    for at in range(0, len(PACKED), 41):
        damaged = bytearray(PACKED)
        damaged[at] ^= 1
        with contextlib.suppress(UserError):
            # A date or another field that nobody reads may differ; what is read does not.
            assert archive.unpack(bytes(damaged), "file") == (METADATA, PARTS)


def test_other_archives_are_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("metadata.json", b" " * 10**7)
    with pytest.raises(UserError, match="file: it is packed as no exported policy is"):
        archive.unpack(buffer.getvalue(), "file")
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    with pytest.raises(UserError, match=r"file is no exported policy: it has no metadata.json"):
        archive.unpack(buffer.getvalue(), "file")


def test_pickled_arrays_are_not_read() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([print]), allow_pickle=True)
    with pytest.raises(UserError, match="file: an array cannot be read"):
        archive.array_of(buffer.getvalue(), "file")
    with pytest.raises(UserError, match="does not hold float32"):
        archive.array_of(archive.array_bytes(np.arange(3)), "file")
