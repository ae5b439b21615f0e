"""Where a file is asked for, and in which order."""

import pytest

from jaxrl_srpo.data.mirrors import mirrored, public_addresses, refuse_other_addresses
from jaxrl_srpo.errors import DatasetError

PATH = "gym/x y.hdf5"


def test_public_copies_go_before_the_origin() -> None:
    assert public_addresses(PATH, ["https://c/"], "http://o/d4rl/") == (
        "https://c/gym/x%20y.hdf5",
        "https://c/x%20y.hdf5",
        "http://o/d4rl/gym/x%20y.hdf5",
    )


def test_a_mirror_is_the_only_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAXRL_SRPO_MIRROR", raising=False)
    urls = ("https://c/a", "http://o/a")
    assert mirrored(urls, "gym/a") == mirrored(urls, "gym/a", "") == urls
    assert mirrored(urls, "gym/a", "https://m/d4rl/") == ("https://m/d4rl/gym/a", "https://m/d4rl/a")
    monkeypatch.setenv("JAXRL_SRPO_MIRROR", "http://v:80")
    assert mirrored(urls, "gym/a") == ("http://v:80/gym/a", "http://v:80/a")
    assert mirrored(urls, "a", "https://m") == ("https://m/a",)
    assert mirrored(urls, "a", "https://m,http://n/d") == ("https://m/a", "http://n/d/a")


@pytest.mark.parametrize(
    "root",
    [
        "example.org/d4rl",
        "https://example.org,",
        "https://example.org,example.org",
        "ftp://example.org",
        "file:///etc",
        "http://",
        "http:///x",
        "http://[::1",
        "http://host:port",
        "http://host:99999",
        "http://a..b",
        "https://a b",
        "https://a\n.org",
        "https://ä.org",
        "https://" + "a" * 70 + ".org",
        "https://me:secret@example.org",
        "https://example.org/#here",
        "https://example.org/?at=here",
    ],
)
def test_what_is_no_mirror_is_refused_with_one_line(root: str) -> None:
    with pytest.raises(DatasetError, match=r"--mirror or JAXRL_SRPO_MIRROR") as caught:
        mirrored((), PATH, root)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://[::1]/a", "https://example.org/a?b=c"])
def test_addresses(url: str) -> None:
    refuse_other_addresses(url, "here")
