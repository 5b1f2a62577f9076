from __future__ import annotations

import sys

import pytest

from weavemw.cli.progress import progress


@pytest.mark.parametrize(("counts", "total", "lines"), [
    pytest.param([1, 50, 99], 1000, [], id="less than a hundred"),
    pytest.param([99, 100, 101, 199, 250], 1000, ["100", "250"], id="each hundred once"),
    pytest.param([10, 25], 25, ["25"], id="the end"),
    pytest.param([100, 200, 200], 200, ["100", "200"], id="the end once"),
    pytest.param([0, 0], 0, [], id="nothing to do"),
])
def test_in_a_log_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], counts: list[int], total: int,
                                            lines: list[str]) -> None:
    """On stderr, without escapes; stdout is for results."""
    with progress("attaching", "attached", total) as tell:
        for count in counts:
            tell(count)
    assert capsys.readouterr() == ("", "".join(f"attached {count} of {total}\n" for count in lines))


def test_little_work_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Where that is said."""
    with progress("attaching", "attached", 4, least=5) as tell:
        tell(4)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the count; it ends with its line."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("attaching", "attached", 4) as tell:
        tell(1)
        tell(4)
    out, err = capsys.readouterr()
    assert out == ""
    assert "attaching" in err
    assert "4/4" in err
    assert err.endswith("\n")
