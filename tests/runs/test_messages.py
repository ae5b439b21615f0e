"""What is said about members while they train, once each."""

import numpy as np

from jaxrl_srpo.runs.messages import Messages


def test_a_divergence_is_said_once_with_its_update() -> None:
    messages = Messages(["a", "b"])
    assert not messages.diverged(np.asarray([-1, -1]))
    said = messages.diverged(np.asarray([-1, 7]))
    assert said == {1: "diverged: b at update 7; it keeps its last good state, the others go on"}
    assert list(messages.diverged(np.asarray([9, 7]))) == [0]


def test_weights_on_few_actions_are_said_once_per_member() -> None:
    messages = Messages(["a", "b"])
    sizes = {"effective_sample_size": np.asarray([[0.5], [0.004]])}
    (line,) = messages.concentrated(sizes)
    assert line.startswith("b: effective sample size 0.004")
    assert "--awac_lambda" in line
    assert not messages.concentrated(sizes)


def test_stages_without_weights_say_nothing() -> None:
    assert not Messages(["a"]).concentrated({"loss": np.asarray([[0.0]])})
    assert not Messages(["a"]).concentrated({"effective_sample_size": np.asarray([[np.nan]])})
