"""Options survive a JSON file, for workers anywhere."""

import json
import pathlib

from jaxrl_srpo.runs.options import Options


def test_they_come_back_as_they_were_but_for_tracking(tmp_path: pathlib.Path) -> None:
    options = Options(tmp_path, "Pendulum-v1", False, True, "https://example.org", "vmap", 3.0, 2, ("wandb",))
    again = Options.from_json(json.loads(json.dumps(options.to_json())))
    assert again == Options(tmp_path, "Pendulum-v1", False, True, "https://example.org", "vmap", 3.0, 2)


def test_what_an_older_file_lacks_is_at_its_default() -> None:
    assert Options.from_json({}) == Options()
    assert Options.from_json({"evaluate": False}) == Options(evaluate=False)


def test_a_relative_folder_is_kept_whole() -> None:
    assert pathlib.Path(Options(artefacts=pathlib.Path("shared")).to_json()["artefacts"]).is_absolute()


def test_every_worker_reads_the_same_data() -> None:
    options = Options(
        environment="Pendulum-v1", allow_invalid_data=True, mirror="https://example.org", drop_reset_rows=True
    )
    assert Options.from_json(json.loads(json.dumps(options.to_json()))).reading() == {
        "mirror": "https://example.org",
        "allow_invalid": True,
        "env": "Pendulum-v1",
        "drop_reset_rows": True,
    }
