"""Files that are neither HDF5 nor .npz, named for what they are, with the way to a file that can be read."""

import pathlib
import zipfile

_FIELDS = "observations [N, n], actions [N, m], rewards [N], terminals [N] and timeouts [N]"
_TO_NPZ = f"to an .npz file as {_FIELDS}, with numpy.savez"
_WITH_NUMPY = f"write its arrays {_TO_NPZ}"
_UNPACK = "unpack it first"
# The first bytes, what they are of, and what to do.
_BEGINNINGS = (
    (b"\x93NUMPY", "a NumPy array (.npy)", f"write its arrays, which numpy.load reads, {_TO_NPZ}"),
    (b"PAR1", "Parquet", f"write its arrays, which pyarrow.parquet.read_table reads, {_TO_NPZ}"),
    (b"ARROW1", "Arrow", f"write its arrays, which pyarrow.feather.read_table reads, {_TO_NPZ}"),
    (b"\xff\xff\xff\xff", "an Arrow stream", f"write its arrays, which pyarrow.ipc.open_stream reads, {_TO_NPZ}"),
    (b"FEA1", "Feather", f"write its arrays, which pyarrow.feather.read_table reads, {_TO_NPZ}"),
    (b"MATLAB 5.0", "a MATLAB file", f"write its arrays, which scipy.io.loadmat reads, {_TO_NPZ}"),
    (b"SQLite format 3", "an SQLite database", _WITH_NUMPY),
    (b"\x1f\x8b", "packed with gzip", _UNPACK),
    (b"BZh", "packed with bzip2", _UNPACK),
    (b"\xfd7zXZ", "packed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
    (b"7z\xbc\xaf", "packed with 7-Zip", _UNPACK),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`"),
    (b"<!DOCTYPE", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
)
_PICKLE = (
    "a pickle, which is not read because it can run code",
    f"where you trust it, load it yourself and {_WITH_NUMPY}",
)
_SUFFIXES = {
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".joblib": _PICKLE,
    ".csv": ("CSV", _WITH_NUMPY),
    ".json": ("JSON", _WITH_NUMPY),
    ".jsonl": ("JSON lines", _WITH_NUMPY),
    ".tfrecord": ("a TFRecord", _WITH_NUMPY),
}


def other_format(path: str) -> str:
    """What a file is that is no HDF5, and how to convert it; empty where that is unknown."""
    try:
        found = _by_content(pathlib.Path(path))
    except OSError:
        return ""
    if found is None:
        return ""
    kind, advice = found
    return f"is {kind}, not HDF5; {advice}"


def _by_content(path: pathlib.Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        begin = file.read(262)
    for magic, kind, advice in _BEGINNINGS:
        if begin.startswith(magic):
            return kind, advice
    if begin.startswith(b"PK\x03\x04"):
        return _archive(path)
    if begin[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    # A pickle's second byte is its protocol; the oldest ones have none.
    if begin[:1] == b"\x80" and begin[1:2] <= b"\x05":
        return _PICKLE
    return _SUFFIXES.get(path.suffix.lower())


def _archive(path: pathlib.Path) -> tuple[str, str]:
    """Several formats are zip archives of others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        names = []
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file, which holds a pickle and is not read because that can run code", _PICKLE[1]
    if not names:
        return "an archive that cannot be read", "get it again"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", "load_dataset and --datasets read it by its path"
    return "a zip archive", _UNPACK
