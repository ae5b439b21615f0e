"""Files in D4RL's layout: sound ones of every kind, and the ways in which they are spoiled."""

import os
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.fuzz.mutation import DAMAGE, Expected, Mutation

FIELDS = ("observations", "actions", "rewards", "terminals")


def columns(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Walks of random sizes; half of them with next_observations."""
    lengths = random.integers(3, 40, int(random.integers(2, 6)))
    rows, width, action_size = int(lengths.sum()), int(random.integers(1, 8)), int(random.integers(1, 5))
    ends = np.zeros(rows, bool)
    ends[np.cumsum(lengths) - 1] = True
    terminals = ends & (random.random(rows) < 0.5)
    steps = random.normal(0.0, 0.1, (rows, width))
    starts = np.roll(ends, 1)
    walk = np.cumsum(steps, axis=0) + 3.0 * np.cumsum(starts)[:, None]
    observations = walk.astype(np.float32)
    found = {
        "observations": observations,
        "actions": random.uniform(-1, 1, (rows, action_size)).astype(np.float32),
        "rewards": random.normal(size=rows).astype(np.float32),
        "terminals": terminals,
        "timeouts": ends & ~terminals,
    }
    if random.random() < 0.5:
        following = np.roll(observations, -1, axis=0)
        following[ends] = observations[ends] + np.float32(0.05)
        found["next_observations"] = following
    return found


def write(random: np.random.Generator, path: pathlib.Path) -> None:
    """A sound file, packed in one of HDF5's ways."""
    packed: list[dict[str, Any]] = [
        {},
        {"chunks": True},
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf"},
        {"chunks": True, "fletcher32": True},
    ]
    options = packed[random.integers(len(packed))]
    with h5py.File(path, "w", libver=["earliest", "latest"][random.integers(2)]) as file:
        for name, values in columns(random).items():
            file.create_dataset(name, data=values, **options)


def pick(random: np.random.Generator, *names: str) -> str:
    return names[int(random.integers(len(names)))]


def one_of(random: np.random.Generator, file: h5py.File) -> str:
    return pick(random, *(name for name in (*FIELDS, "timeouts", "next_observations") if name in file))


def replace(file: h5py.File, name: str, values: Any, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, data=values, **options)


InFile = Callable[[np.random.Generator, h5py.File], None]


def inside(name: str, expected: Expected, change: InFile) -> Mutation:
    """A mutation of an open file."""

    def mutate(random: np.random.Generator, path: pathlib.Path) -> None:
        with h5py.File(path, "r+") as file:
            change(random, file)

    return Mutation(name, expected, mutate)


def of_type(make: Callable[[np.ndarray], Any], *names: str) -> InFile:
    """Turns one of some fields into values of another type."""

    def change(random: np.random.Generator, file: h5py.File) -> None:
        name = pick(random, *[name for name in names or (one_of(random, file),) if name in file])
        replace(file, name, make(file[name][()]))

    return change


def object_dataset(kind: Any, values: Callable[[h5py.File, int], list[Any]]) -> InFile:
    """A field whose values have no fixed size."""

    def change(random: np.random.Generator, file: h5py.File) -> None:
        name = one_of(random, file)
        rows = len(file[name])
        given = values(file, rows)
        del file[name]
        dataset = file.create_dataset(name, (rows,), kind)
        for k, value in enumerate(given):
            dataset[k] = value

    return change


def time_type(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    rows = len(file[name])
    del file[name]
    kind = h5py.h5t.UNIX_D32LE.copy()
    made = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple((rows,)))
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(rows, "<u4"), kind)


def bit_field(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    rows = len(file[name])
    del file[name]
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.STD_B8LE, h5py.h5s.create_simple((rows,)))


def put(*values: float, names: tuple[str, ...] = ("observations", "actions", "rewards")) -> InFile:
    """Puts a value somewhere into a field of doubles."""

    def change(random: np.random.Generator, file: h5py.File) -> None:
        name = pick(random, *(name for name in names if name in file))
        found = file[name][()].astype(np.float64)
        found.reshape(-1)[random.integers(found.size)] = values[random.integers(len(values))]
        replace(file, name, found)

    return change


def shaped(make: Callable[[np.ndarray], Any], *names: str) -> InFile:
    return of_type(make, *names)


def another_width(random: np.random.Generator, file: h5py.File) -> None:
    if "next_observations" in file:
        del file["next_observations"]
    file["next_observations"] = np.concatenate([file["observations"][()]] * 2, axis=1)


def missing(random: np.random.Generator, file: h5py.File) -> None:
    del file[pick(random, *FIELDS)]


def group_instead(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    del file[name]
    file.create_group(name)


def null_space(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    del file[name]
    file[name] = h5py.Empty(np.float32)


def soft_link(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    del file[name]
    file[name] = h5py.SoftLink(pick(random, "/rewards", "/absent", f"/{name}"))


def external_link(random: np.random.Generator, file: h5py.File) -> None:
    file[pick(random, "infos", "a/b/c", "timeouts2")] = h5py.ExternalLink(
        pick(random, "x.hdf5", "/etc/passwd"), "/rewards"
    )


def external_storage(random: np.random.Generator, file: h5py.File) -> None:
    rows = len(file["rewards"])
    del file["rewards"]
    file.create_dataset("rewards", (rows,), np.float32, external=[(file.filename, 0, 4 * rows)])


def virtual(random: np.random.Generator, file: h5py.File) -> None:
    rows = len(file["rewards"])
    layout = h5py.VirtualLayout((rows,), np.float32)
    layout[:] = h5py.VirtualSource("absent.hdf5", "rewards", (rows,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def unwritten(random: np.random.Generator, file: h5py.File) -> None:
    name = one_of(random, file)
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, np.float32, chunks=bool(random.integers(2)) or None)


def in_part(random: np.random.Generator, file: h5py.File) -> None:
    values = file["rewards"][()]
    del file["rewards"]
    made = file.create_dataset("rewards", values.shape, np.float32, chunks=(2,))
    made[:2] = values[:2]


def larger_than_memory(random: np.random.Generator, file: h5py.File) -> None:
    for name in list(file):
        shape = (2**40, *file[name].shape[1:])
        del file[name]
        file.create_dataset(name, shape, np.float32, chunks=(1000, *shape[1:]), compression="gzip")[:1000] = 1.0


def jump(random: np.random.Generator, file: h5py.File) -> None:
    """s' of a row inside an episode is not where the next one begins."""
    ends = file["terminals"][()] | file["timeouts"][()]
    rows = np.flatnonzero(~ends[:-1])
    following = np.roll(file["observations"][()], -1, axis=0)
    following[random.choice(rows)] += 100.0
    if "next_observations" in file:
        del file["next_observations"]
    file["next_observations"] = following


def attribute(*pairs: tuple[str, Any]) -> InFile:
    def change(random: np.random.Generator, file: h5py.File) -> None:
        name, value = pairs[random.integers(len(pairs))]
        file.attrs[name] = value
        other = {"action_low": "action_high", "action_high": "action_low"}.get(name)
        if other:
            file.attrs[other] = 1.0 if other == "action_high" else -1.0

    return change


def one_bound(random: np.random.Generator, file: h5py.File) -> None:
    name, value = [("action_low", -1.0), ("action_high", 1.0)][random.integers(2)]
    file.attrs[name] = value


def reference_attribute(random: np.random.Generator, file: h5py.File) -> None:
    file.attrs[pick(random, "env_id", "action_low")] = file.ref


def discrete(random: np.random.Generator, file: h5py.File) -> None:
    file["discrete_action"] = [True, np.ones(1), np.ones((2, 2), bool), b"yes", h5py.Empty("f4")][random.integers(5)]


def odd_neighbors(random: np.random.Generator, file: h5py.File) -> None:
    """What nobody reads may be of any type."""
    file["infos/text"] = np.full(3, b"x")
    file["infos/record"] = np.zeros(3, [("a", "f4"), ("b", "S3")])
    file["infos/nothing"] = h5py.Empty("f4")
    file["infos/none"] = np.zeros((0, 3))
    file.create_dataset("metadata/ragged", (3,), h5py.string_dtype())[:] = "x"
    file["metadata/type"] = np.dtype("f4")
    file["metadata/pointer"] = file.ref
    file["discrete_action"] = False
    file.attrs["odd"] = np.zeros(2, [("a", "f4")])
    file.attrs["none"] = h5py.Empty("f4")
    file.attrs["text"] = "x" * 2000


def loops(random: np.random.Generator, file: h5py.File) -> None:
    inner = file.create_group("infos/a/b")
    inner["up"] = file["infos"]
    inner["root"] = file["/"]
    inner["same"] = file["rewards"]


def odd_links(random: np.random.Generator, file: h5py.File) -> None:
    """Names that would break a line, or be no text."""
    name = [b"a\nb", b"\xff", b"\x1b[2J"][random.integers(3)]
    file[name] = h5py.SoftLink("/x\ny")


def odd_names(random: np.random.Generator, file: h5py.File) -> None:
    for name in (b"a\nb", b"\x1b[2J", b"x" * 3000):
        file[name] = 1.0


def other_layout(random: np.random.Generator, file: h5py.File) -> None:
    for name in list(file):
        file.move(name, pick(random, "episode_0/", "data/demo_0/", "a\nb/") + name)


def deep(random: np.random.Generator, file: h5py.File) -> None:
    group = file
    for _ in range(200):
        group = group.create_group("x")


def d3rlpy(random: np.random.Generator, file: h5py.File) -> None:
    file["episode_terminals"] = (file["terminals"][()] | file["timeouts"][()]).astype(np.float32)
    del file["timeouts"]


def widened(random: np.random.Generator, file: h5py.File) -> None:
    """Equal numbers in wider or turned types."""
    kinds = {"observations": ("<f8", ">f4", ">f8"), "actions": (">f4", "<f8"), "rewards": (">f8", "<f8")}
    flags = ("u1", ">i8", "<f4", "?")
    for name in list(file):
        replace(
            file,
            name,
            file[name][()].astype(pick(random, *kinds.get(name, kinds["observations"])))
            if name not in ("terminals", "timeouts")
            else file[name][()].astype(pick(random, *flags)),
        )


def columns_of_one(random: np.random.Generator, file: h5py.File) -> None:
    for name in ("rewards", "terminals", "timeouts"):
        replace(file, name, file[name][()][:, None])


def small_integers(random: np.random.Generator, file: h5py.File) -> None:
    kind = np.dtype(pick(random, "u1", "u2", "i1", "i2", "?"))
    shape = file["observations"].shape
    whole = random.integers(0, 2 if kind.kind == "b" else 127, shape).astype(kind)
    if "next_observations" in file:
        del file["next_observations"]
    replace(file, "observations", whole)
    ends = np.arange(shape[0]) % 7 == 6
    replace(file, "terminals", ends)
    replace(file, "timeouts", np.zeros(shape[0], bool))


def equal_rewards(random: np.random.Generator, file: h5py.File) -> None:
    replace(file, "rewards", np.full(file["rewards"].shape, pick_float(random, 0.0, 1.0, -3.0)))


def pick_float(random: np.random.Generator, *values: float) -> float:
    return values[int(random.integers(len(values)))]


def no_ends(random: np.random.Generator, file: h5py.File) -> None:
    for name in ("terminals", "timeouts"):
        replace(file, name, np.zeros(file[name].shape, bool))
    if "next_observations" in file:
        del file["next_observations"]
    steps = random.normal(size=file["observations"].shape)
    replace(file, "observations", np.cumsum(steps, axis=0))


def constant(random: np.random.Generator, file: h5py.File) -> None:
    for name in ("observations", "next_observations", "actions"):
        if name in file:
            replace(file, name, np.zeros(file[name].shape, np.float32))


def named(*names: bytes) -> Callable[[np.random.Generator, pathlib.Path], pathlib.Path]:
    """The file by another name."""

    def mutate(random: np.random.Generator, path: pathlib.Path) -> pathlib.Path:
        return path.rename(path.parent / os.fsdecode(names[random.integers(len(names))]))

    return mutate


def other_format(random: np.random.Generator, path: pathlib.Path) -> None:
    found = {"observations": np.zeros((5, 2)), "rewards": np.zeros(5)}
    if random.integers(2):
        with path.open("wb") as file:
            np.savez(file, observations=found["observations"], rewards=found["rewards"])
    else:
        path.write_bytes(pickle.dumps(found, protocol=int(random.integers(0, 6))))


def folder_instead(random: np.random.Generator, path: pathlib.Path) -> None:
    path.unlink()
    path.mkdir()


def in_a_link(random: np.random.Generator, path: pathlib.Path) -> pathlib.Path:
    """A person may keep a dataset elsewhere."""
    link = path.parent / "linked.hdf5"
    link.symlink_to(path)
    return link


_RECORD = np.dtype([("x", "f4"), ("y", "i4")])
_ENUM = h5py.enum_dtype({"no": 0, "yes": 1}, "i1")

MUTATIONS = (
    *DAMAGE,
    inside("strings", Expected.REFUSED, of_type(lambda x: np.full(len(x), b"1.0"))),
    inside("records", Expected.REFUSED, of_type(lambda x: np.zeros(len(x), _RECORD))),
    inside("opaque", Expected.REFUSED, of_type(lambda x: np.zeros(len(x), "V8"))),
    inside("arrays", Expected.REFUSED, of_type(lambda x: np.zeros(len(x), [("x", "f4", (3,))]))),
    inside("complex", Expected.REFUSED, of_type(lambda x: x.astype(np.complex64))),
    inside("strings without a size", Expected.REFUSED, object_dataset(h5py.string_dtype(), lambda f, n: ["x"] * n)),
    inside("ragged", Expected.REFUSED, object_dataset(h5py.vlen_dtype("f4"), lambda f, n: [np.ones(2, "f4")] * n)),
    inside("references", Expected.REFUSED, object_dataset(h5py.ref_dtype, lambda f, n: [f.ref] * n)),
    inside("times", Expected.REFUSED, time_type),
    inside("bit fields", Expected.REFUSED, bit_field),
    inside("whole actions", Expected.REFUSED, of_type(lambda x: np.sign(x).astype(np.int64), "actions")),
    inside("flags as actions", Expected.REFUSED, of_type(lambda x: x > 0, "actions")),
    inside("discrete", Expected.REFUSED, discrete),
    inside("not finite", Expected.REFUSED, put(np.nan, np.inf, -np.inf, 1e300, -1e300)),
    inside("large", Expected.MAY, put(3e38, -3e38, 1e-300)),
    inside("flags", Expected.REFUSED, put(0.5, 2.0, -1.0, np.nan, np.inf, names=("terminals", "timeouts"))),
    inside("no width", Expected.REFUSED, shaped(lambda x: x[:, :0], "observations", "actions", "next_observations")),
    inside("no rows", Expected.REFUSED, shaped(lambda x: x[:0])),
    inside("a row less", Expected.REFUSED, shaped(lambda x: x[:-1])),
    inside("a row more", Expected.REFUSED, shaped(lambda x: np.concatenate([x, x[:1]]))),
    inside("an axis more", Expected.REFUSED, shaped(lambda x: np.stack([x, x], axis=1))),
    inside("an axis less", Expected.REFUSED, shaped(lambda x: x[:, 0], "observations", "actions")),
    inside("a scalar", Expected.REFUSED, shaped(lambda x: x.reshape(-1)[0])),
    inside("another width", Expected.REFUSED, another_width),
    inside("missing", Expected.REFUSED, missing),
    inside("a group instead", Expected.REFUSED, group_instead),
    inside("no space", Expected.REFUSED, null_space),
    inside("a soft link", Expected.REFUSED, soft_link),
    inside("a link to another file", Expected.REFUSED, external_link),
    inside("values in another file", Expected.REFUSED, external_storage),
    inside("virtual", Expected.REFUSED, virtual),
    inside("never written", Expected.REFUSED, unwritten),
    inside("written in part", Expected.REFUSED, in_part),
    inside("larger than memory", Expected.REFUSED, larger_than_memory),
    inside("a jump", Expected.REFUSED, jump),
    inside(
        "bounds",
        Expected.REFUSED,
        attribute(
            ("action_low", "low"),
            ("action_low", np.nan),
            ("action_high", np.inf),
            ("action_low", 2.0),
            ("action_low", [-1.0] * 9),
            ("action_low", np.zeros((1, 1, 1))),
            ("action_low", h5py.Empty("f4")),
            ("action_high", 1j),
            ("action_high", np.zeros(2, _RECORD)),
            ("action_high", 1e300),
            ("action_high", -0.5),
        ),
    ),
    inside("one bound", Expected.REFUSED, one_bound),
    inside(
        "env_id",
        Expected.REFUSED,
        attribute(
            ("env_id", 7),
            ("env_id", np.bytes_(b"\xff\xfe")),
            ("env_id", "a\nb"),
            ("env_id", ["a", "b"]),
            ("env_id", h5py.Empty("S1")),
            ("env_id", np.zeros(2, _RECORD)),
            ("env_id", True),
        ),
    ),
    inside("references as attributes", Expected.REFUSED, reference_attribute),
    inside(
        "sound attributes",
        Expected.LOADS,
        attribute(
            ("action_low", -1.0),
            ("action_low", [-2]),
            ("action_high", np.float64(3)),
            ("env_id", "Mine-v0"),
            ("env_id", np.bytes_(b"Mine-v0")),
            ("env_id", "module:Mine-v0"),
            ("env_id", "Läufer-v0"),
            ("env_id", ""),
        ),
    ),
    inside("odd neighbors", Expected.EQUAL, odd_neighbors),
    inside("loops", Expected.EQUAL, loops),
    inside("links of odd names", Expected.REFUSED, odd_links),
    inside("another layout", Expected.REFUSED, other_layout),
    inside("odd names inside", Expected.EQUAL, odd_names),
    inside("deep", Expected.EQUAL, deep),
    inside("as d3rlpy", Expected.EQUAL, d3rlpy),
    inside("wider types", Expected.EQUAL, widened),
    inside("columns of one", Expected.EQUAL, columns_of_one),
    inside("flags as enumerations", Expected.EQUAL, of_type(lambda x: x.astype(_ENUM), "terminals", "timeouts")),
    inside("halves", Expected.LOADS, of_type(lambda x: x.astype(np.float16), "actions", "rewards")),
    inside("whole rewards", Expected.LOADS, of_type(lambda x: np.sign(x).astype(np.int32), "rewards")),
    inside("small integers", Expected.LOADS, small_integers),
    inside("equal rewards", Expected.LOADS, equal_rewards),
    inside("no ends", Expected.LOADS, no_ends),
    inside("constant", Expected.LOADS, constant),
    Mutation("nothing", Expected.EQUAL, lambda random, path: None),
    Mutation(
        "odd names", Expected.EQUAL, named(b"a b.hdf5", b"x", "Läufer.h5".encode(), b"-x.hdf5", b"a,b.hdf5", b"%s.h5")
    ),
    Mutation(
        "names of no text", Expected.REFUSED, named(b"a\xff.hdf5", b"a\nb.hdf5", b"\x1b[2J.hdf5", b"\xed\xa0\x80")
    ),
    Mutation("a link of the system", Expected.EQUAL, in_a_link),
    Mutation("another format", Expected.REFUSED, other_format),
    Mutation("absent", Expected.REFUSED, lambda random, path: path.unlink()),
    Mutation("a folder", Expected.REFUSED, folder_instead),
)
"""Of files in D4RL's layout."""
