"""What a person sees of a stage under way, on a terminal and in a file."""

import io
import re

import pytest

from jaxrl_srpo.runs.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines_of(seconds: list[float], steps: int = 10, total: int = 1_000, begin: int = 0) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    with Progress("critic (2 members)", total, "updates", stream=stream, clock=clock) as progress:
        progress.begin(begin)
        for passed in seconds:
            clock.now += passed
            progress.advance(steps)
    return stream.getvalue().splitlines()


def test_a_file_gets_a_line_at_once_and_then_now_and_then() -> None:
    assert lines_of([20.0, 20.0, 20.0, 20.0]) == [
        "compiling critic (2 members) ...",
        "critic (2 members): 20 of 1,000 updates each, 0.5 a second, 32 min left",
        "critic (2 members): 40 of 1,000 updates each, 0.5 a second, 32 min left",
    ]


def test_lines_become_rarer_in_a_long_stage() -> None:
    assert len(lines_of([100.0] * 1_000, total=100_000)) < 60


def test_the_rate_is_that_of_this_process() -> None:
    first = lines_of([40.0], begin=500)[1]
    assert first == "critic (2 members): 510 of 1,000 updates each, 0.25 a second, 32 min left"


def test_the_end_is_told_however_soon() -> None:
    assert lines_of([1.0], steps=500, begin=500)[-1] == "critic (2 members): 1,000 updates each, done after 1 s"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_nothing_is_compiled_for_a_finished_stage(stream: type[io.StringIO]) -> None:
    out = stream()
    with Progress("critic (2 members)", 5, "updates", stream=out) as progress:
        progress.begin(5)
    assert out.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_what_is_not_shown_prints_messages_alone(stream: type[io.StringIO]) -> None:
    out = stream()
    with Progress("critic (2 members)", 5, "updates", shown=False, stream=out) as progress:
        progress.begin(0)
        progress.advance(5)
        progress.write("a member diverged")
    assert out.getvalue() == "a member diverged\n"


def test_a_terminal_has_a_bar_that_counts_the_steps_of_a_member() -> None:
    out = Terminal()
    with Progress("critic (2 members)", 5_000, "updates", stream=out) as progress:
        progress.begin(0)
        for _ in range(5):
            progress.advance(1_000)
        progress.write("a member diverged")
    text = out.getvalue()
    assert text.index("compiling critic (2 members):   0%") < text.index("5.00k/5.00k")
    assert re.search(r"\rcritic \(2 members\): 100%", text)
    assert "a member diverged\n" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, "0 s"), (59.9, "59 s"), (60.0, "1 min"), (3_600.0, "1 h 0 min"), (90_000.0, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
