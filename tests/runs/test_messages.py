"""What is said about members while they train, once each."""

import numpy as np

from jaxrl_srpo.runs.messages import Notices


def test_a_divergence_is_said_once_with_its_update():
    notices = Notices(["a", "b"])
    assert not notices.diverged(np.asarray([-1, -1]))
    said = notices.diverged(np.asarray([-1, 7]))
    assert list(said) == ["b"]
    assert "at update 7" in said["b"]
    assert list(notices.diverged(np.asarray([9, 7]))) == ["a"]


def test_weights_on_few_actions_are_said_once_per_member():
    notices = Notices(["a", "b"])
    sizes = {"effective_sample_size": np.asarray([[0.5], [0.004]])}
    (line,) = notices.concentrated(sizes)
    assert line.startswith("b: effective sample size 0.004")
    assert "--awac_lambda" in line
    assert not notices.concentrated(sizes)


def test_stages_without_weights_say_nothing():
    assert not Notices(["a"]).concentrated({"loss": np.asarray([[0.0]])})
    assert not Notices(["a"]).concentrated({"effective_sample_size": np.asarray([[np.nan]])})
