"""Datasets of Minari's store in every format: sound ones, and the ways in which they are spoiled."""

import json
import pathlib
import shutil
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
from gymnasium import spaces

from tests.fuzz.mutation import DAMAGE, Expected, Mutate, Mutation

DATASET = "fuzz/walk-v0"
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 7, 10**18, 10**400, 1e300, float("nan"), float("inf"), "", "x", "\ud800", "a\nb", "{", "[]", "7",
    "{}", [], {}, [[]], {"type": "Box"}, ["x"], "null",
)  # fmt: skip
"""Values of JSON where others are expected."""

ODD_SCORES: tuple[Any, ...] = ("x", "nan", "7", [1], {}, True, 0.0, 10**400, float("nan"), float("inf"))


def write(random: np.random.Generator, data_format: str) -> None:
    """A sound dataset in the store of MINARI_DATASETS_PATH."""
    width, action_size, dictionary = int(random.integers(1, 6)), int(random.integers(1, 4)), bool(random.integers(2))
    lengths = random.integers(1, 20, int(random.integers(1, 5))).tolist()
    state = spaces.Box(-np.inf, np.inf, (width,), np.float64)
    goal = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    observation_space = (
        spaces.Dict({"observation": state, "achieved_goal": goal, "desired_goal": goal}) if dictionary else state
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        minari.create_dataset_from_buffers(
            DATASET,
            [_episode(random, steps, width, action_size, dictionary) for steps in lengths],
            env="Pendulum-v1" if random.integers(2) else None,
            observation_space=observation_space,
            action_space=spaces.Box(-1.0, 1.0, (action_size,), np.float32),
            ref_min_score=0.0,
            ref_max_score=10.0,
            data_format=data_format,
            author="test",
            author_email="test@example.org",
            algorithm_name="random",
            code_permalink="https://example.org",
            description="for a test",
        )


def _episode(random: np.random.Generator, steps: int, width: int, action_size: int, dictionary: bool) -> Any:
    observations: Any = random.normal(size=(steps + 1, width))
    if dictionary:
        goals = np.full((steps + 1, 2), 3.0)
        observations = {"observation": observations, "achieved_goal": goals + 1.0, "desired_goal": goals}
    ends, terminated = np.arange(steps) == steps - 1, bool(random.integers(2))
    return minari.data_collector.EpisodeBuffer(
        observations=observations,
        actions=random.uniform(-1, 1, (steps, action_size)).astype(np.float32),
        rewards=random.normal(size=steps),
        terminations=ends & terminated,
        truncations=ends & (not terminated),
        infos=None,
    )


def one_of(random: np.random.Generator, values: Any) -> Any:
    return values[int(random.integers(len(values)))]


def metadata(name: str, expected: Expected, change: Callable[[np.random.Generator, dict[str, Any]], Any]) -> Mutation:
    """A mutation of the JSON object of metadata."""

    def mutate(random: np.random.Generator, folder: pathlib.Path) -> None:
        path = folder / "metadata.json"
        path.write_text(json.dumps(change(random, json.loads(path.read_text()))))

    return Mutation(f"metadata: {name}", expected, mutate)


def within(name: str, expected: Expected, key: str, change: Callable[[np.random.Generator, Any], Any]) -> Mutation:
    """A mutation of JSON inside of the JSON of metadata."""

    def inner(random: np.random.Generator, found: dict[str, Any]) -> dict[str, Any]:
        return found | {
            key: json.dumps(change(random, json.loads(found.get(key) or gymnasium.spec("Pendulum-v1").to_json())))
        }

    return metadata(f"{key}, {name}", expected, inner)


def odd_value(random: np.random.Generator, found: dict[str, Any]) -> dict[str, Any]:
    return found | {one_of(random, sorted(found)): one_of(random, ODD)}


def without(random: np.random.Generator, found: dict[str, Any]) -> dict[str, Any]:
    gone = one_of(random, sorted(found))
    return {key: value for key, value in found.items() if key != gone}


def raw(random: np.random.Generator, folder: pathlib.Path) -> None:
    """Metadata that are no JSON object."""
    content = (b"", b"[]", b"7", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a": 1', b"{}", b'"x"')
    (folder / "metadata.json").write_bytes(one_of(random, content))


def main_file(mutation: Mutation) -> Mutation:
    """Damage to the file of all episodes."""
    return Mutation(
        mutation.name, mutation.expected, lambda random, folder: mutation.mutate(random, folder / "main_data.hdf5")
    )


def metadata_file(mutation: Mutation) -> Mutation:
    return Mutation(
        f"metadata: {mutation.name}",
        mutation.expected if mutation.name in ("cut short", "random bytes") else Expected.MAY,
        lambda random, folder: mutation.mutate(random, folder / "metadata.json"),
    )


def in_episode(name: str, expected: Expected, column: str, make: Callable[[Any], Any]) -> Mutation:
    """Replaces a column of one episode."""

    def mutate(random: np.random.Generator, folder: pathlib.Path) -> None:
        with h5py.File(folder / "main_data.hdf5", "r+") as file:
            episode = file[f"episode_{random.integers(len(file))}"]
            place = f"{column}/observation" if isinstance(episode[column], h5py.Group) else column
            values = make(episode[place][()])
            del episode[place]
            if values is not None:
                episode[place] = values

    return Mutation(f"{column}: {name}", expected, mutate)


def in_file(name: str, expected: Expected, change: Callable[[np.random.Generator, h5py.File], Any]) -> Mutation:
    def mutate(random: np.random.Generator, folder: pathlib.Path) -> None:
        with h5py.File(folder / "main_data.hdf5", "r+") as file:
            change(random, file)

    return Mutation(name, expected, mutate)


def soft_link(random: np.random.Generator, file: h5py.File) -> None:
    del file["episode_0/rewards"]
    file["episode_0/rewards"] = h5py.SoftLink("/episode_0/truncations")


def external_link(random: np.random.Generator, file: h5py.File) -> None:
    file["episode_0/infos"] = h5py.ExternalLink("/etc/passwd", "/x")


def loop(random: np.random.Generator, file: h5py.File) -> None:
    """Minari walks all infos, and this for ever."""
    file.create_group("episode_0/infos")["up"] = file["episode_0"]


def group_column(random: np.random.Generator, file: h5py.File) -> None:
    del file["episode_0/rewards"]
    file.create_group("episode_0/rewards")


def other_keys(random: np.random.Generator, file: h5py.File) -> None:
    del file["episode_0/observations"]
    file.create_group("episode_0/observations")["elsewhere"] = np.zeros((3, 2))


def file_of_episode(change: Callable[[np.random.Generator, pathlib.Path], Any]) -> Mutate:
    """Mutates the file of one episode in pyarrow's formats."""

    def mutate(random: np.random.Generator, folder: pathlib.Path) -> None:
        files = sorted(path for path in folder.glob("*/*") if path.suffix in (".arrow", ".parquet"))
        change(random, one_of(random, files))

    return mutate


def in_table(change: Callable[[np.random.Generator, Any], Any]) -> Mutate:
    """Mutates the table of one episode."""

    def rewrite(random: np.random.Generator, path: pathlib.Path) -> None:
        import pyarrow.dataset

        kind = path.suffix[1:]
        table = change(random, pyarrow.dataset.dataset(str(path), format=kind).to_table())
        path.unlink()
        pyarrow.dataset.write_dataset(
            table,
            str(path.parent),
            format=kind,
            basename_template="part-{i}." + kind,
            existing_data_behavior="overwrite_or_ignore",
        )

    return file_of_episode(rewrite)


def column_of(name: str, make: Callable[[int], list[Any]]) -> Callable[[np.random.Generator, Any], Any]:
    def change(random: np.random.Generator, table: Any) -> Any:
        import pyarrow

        index = table.schema.get_field_index(name)
        return table.set_column(index, name, pyarrow.array(make(len(table))))

    return change


def drop_column(random: np.random.Generator, table: Any) -> Any:
    return table.drop_columns([one_of(random, ["observations", "actions", "rewards", "terminations", "truncations"])])


BOX = "action_space"
METADATA = (
    metadata("an odd value", Expected.MAY, odd_value),
    metadata("a key missing", Expected.MAY, without),
    metadata("a list", Expected.REFUSED, lambda random, found: [found]),
    metadata(
        "no spaces", Expected.REFUSED, lambda random, found: {k: v for k, v in found.items() if k[-5:] != "space"}
    ),
    metadata("more episodes", Expected.REFUSED, lambda r, f: f | {"total_episodes": f["total_episodes"] + 1}),
    metadata("fewer steps", Expected.REFUSED, lambda r, f: f | {"total_steps": f["total_steps"] - 1}),
    metadata("more keys", Expected.EQUAL, lambda random, found: found | {"odd": [{}], "x" * 500: None}),
    metadata(
        "scores", Expected.REFUSED, lambda r, f: f | {"ref_min_score": 0.0, "ref_max_score": one_of(r, ODD_SCORES)}
    ),
    within("an odd value", Expected.MAY, BOX, lambda r, f: f | {one_of(r, sorted(f)): one_of(r, ODD)}),
    within("an odd value", Expected.MAY, "observation_space", lambda r, f: f | {one_of(r, sorted(f)): one_of(r, ODD)}),
    within("a key missing", Expected.REFUSED, BOX, lambda r, f: without(r, f)),
    within("odd", Expected.REFUSED, BOX, lambda r, f: one_of(r, [v for v in ODD if not isinstance(v, dict)])),
    within("bounds turned", Expected.REFUSED, BOX, lambda r, f: f | {"low": f["high"], "high": [-2.0] * len(f["low"])}),
    within("wider", Expected.REFUSED, BOX, lambda r, f: _wide(f, len(f["low"]) + 1)),
    within("discrete", Expected.REFUSED, BOX, lambda r, f: {"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}),
    within(
        "several",
        Expected.REFUSED,
        BOX,
        lambda r, f: {"type": "MultiDiscrete", "dtype": "int64", "nvec": [2], "start": [0]},
    ),
    within("without bounds", Expected.LOADS, BOX, lambda r, f: f | {"low": [-np.inf] * len(f["low"])}),
    within("huge bounds", Expected.LOADS, BOX, lambda r, f: f | {"high": [1e300] * len(f["low"]), "dtype": "float64"}),
    within("an odd value", Expected.MAY, "env_spec", lambda r, f: f | {one_of(r, sorted(f)): one_of(r, ODD)}),
    within("odd", Expected.MAY, "env_spec", lambda r, f: one_of(r, ODD)),
    within("unknown", Expected.EQUAL, "env_spec", lambda r, f: f | {"id": "Mine-v0", "entry_point": "os:system"}),
    Mutation("metadata: raw", Expected.REFUSED, raw),
    Mutation("metadata: missing", Expected.REFUSED, lambda random, folder: (folder / "metadata.json").unlink()),
    *(metadata_file(mutation) for mutation in DAMAGE),
    Mutation("nothing", Expected.EQUAL, lambda random, folder: None),
    Mutation("absent", Expected.REFUSED, lambda random, folder: shutil.rmtree(folder)),
)


def _wide(box: dict[str, Any], size: int) -> dict[str, Any]:
    return box | {"shape": [size], "low": [-1.0] * size, "high": [1.0] * size}


HDF5 = (
    *METADATA,
    *(main_file(mutation) for mutation in DAMAGE),
    Mutation("no file", Expected.REFUSED, lambda random, folder: (folder / "main_data.hdf5").unlink()),
    metadata(
        "another format", Expected.REFUSED, lambda r, f: f | {"data_format": one_of(r, ["arrow", "parquet", "zarr", 7])}
    ),
    in_file("an episode missing", Expected.REFUSED, lambda r, f: f.pop(f"episode_{r.integers(len(f))}")),
    in_file("an episode more", Expected.REFUSED, lambda r, f: f.copy("episode_0", f"episode_{len(f)}")),
    in_file("an episode of another name", Expected.REFUSED, lambda r, f: f.move("episode_0", "episode_00")),
    in_file("a soft link", Expected.REFUSED, soft_link),
    in_file("a link to another file", Expected.REFUSED, external_link),
    in_file("a loop", Expected.MAY, loop),
    in_file("a group as column", Expected.REFUSED, group_column),
    in_file("other keys", Expected.REFUSED, other_keys),
    in_file("neighbors", Expected.EQUAL, lambda r, f: f.create_dataset("episode_0/infos/x", data=np.full(3, b"x"))),
    *(
        in_episode(name, expected, column, make)
        for column in ("observations", "actions", "rewards", "terminations", "truncations")
        for name, expected, make in (
            ("missing", Expected.REFUSED, lambda x: None),
            ("strings", Expected.REFUSED, lambda x: np.full(x.shape, b"1.0")),
            ("records", Expected.REFUSED, lambda x: np.zeros(len(x), [("x", "f4")])),
            ("complex", Expected.REFUSED, lambda x: x + 1j),
            ("longer", Expected.REFUSED, lambda x: np.concatenate([x, x])),
            ("no rows", Expected.REFUSED, lambda x: x[:0]),
            ("scalar", Expected.REFUSED, lambda x: x.reshape(-1)[0]),
            ("empty", Expected.REFUSED, lambda x: h5py.Empty("f4")),
            ("an axis more", Expected.REFUSED, lambda x: np.stack([x, x], axis=-1)),
        )
    ),
    *(
        in_episode("not finite", Expected.REFUSED, column, lambda x: np.full(x.shape, 1e300))
        for column in ("observations", "actions", "rewards")
    ),
    *(
        in_episode("other flags", Expected.REFUSED, column, lambda x: np.full(x.shape, 2.0))
        for column in ("terminations", "truncations")
    ),
    in_episode("equal", Expected.LOADS, "rewards", lambda x: np.ones(x.shape)),
    in_episode("whole", Expected.LOADS, "rewards", lambda x: np.ones(x.shape, np.int64)),
    in_episode("flags as bytes", Expected.EQUAL, "terminations", lambda x: x.astype(np.uint8)),
    in_episode("doubles", Expected.EQUAL, "actions", lambda x: x.astype(np.float64)),
    in_episode("no width", Expected.REFUSED, "actions", lambda x: x[:, :0]),
    in_episode("another width", Expected.REFUSED, "actions", lambda x: np.concatenate([x, x], axis=1)),
)
"""Of Minari's HDF5 files."""

ARROW = (
    *METADATA,
    Mutation("a file cut short", Expected.REFUSED, file_of_episode(DAMAGE[0].mutate)),
    Mutation("a file of random bytes", Expected.REFUSED, file_of_episode(DAMAGE[-1].mutate)),
    *(Mutation(f"a file, {m.name}", Expected.MAY, file_of_episode(m.mutate)) for m in DAMAGE[1:-1]),
    Mutation("a file missing", Expected.REFUSED, file_of_episode(lambda random, path: path.unlink())),
    Mutation("a folder missing", Expected.REFUSED, file_of_episode(lambda random, path: shutil.rmtree(path.parent))),
    Mutation("a folder more", Expected.REFUSED, lambda random, folder: shutil.copytree(folder / "0", folder / "99")),
    Mutation(
        "another file",
        Expected.REFUSED,
        file_of_episode(lambda random, path: (path.parent / "note.txt").write_text("x")),
    ),
    metadata("another format", Expected.REFUSED, lambda r, f: f | {"data_format": "hdf5"}),
    Mutation("a column missing", Expected.REFUSED, in_table(drop_column)),
    *(
        Mutation(f"{column}: {name}", Expected.REFUSED, in_table(column_of(column, make)))
        for column in ("observations", "actions", "rewards", "terminations", "truncations")
        for name, make in (
            ("strings", lambda rows: ["1"] * rows),
            ("nothing", lambda rows: [None] * rows),
            ("ragged", lambda rows: [[1.0] * (1 + k % 3) for k in range(rows)]),
            ("records", lambda rows: [{"a": 1}] * rows),
            ("not finite", lambda rows: [float("nan")] * rows),
        )
    ),
    Mutation("a row less", Expected.REFUSED, in_table(lambda random, table: table.slice(0, len(table) - 1))),
    Mutation("no rows", Expected.REFUSED, in_table(lambda random, table: table.slice(0, 0))),
)
"""Of folders in Arrow and Parquet."""
