# SPDX-License-Identifier: BSD-2-Clause
"""Labels as text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pympi import Kernel
from pympi.errors import LabelError
from pympi.label import EMPTY, format_label, parse_label
from pympi.policy import Partition, PolicyModule

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_labels_read_back_as_written(values: dict[str, str]) -> None:
    text = format_label(values)
    assert parse_label(text) == values
    assert format_label(parse_label(text)) == text


@given(st.text(max_size=30))
def test_any_text_is_a_label_or_an_error(text: str) -> None:
    try:
        values = parse_label(text)
    except LabelError:
        with pytest.raises(LabelError, match=re.escape(repr(text))):
            parse_label(text)
    else:
        assert parse_label(format_label(values)) == values


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "character 1: expected a module name"),
        ("te", "character 3: expected '/'"),
        ("te/", "character 4: expected a value of 'te'"),
        ("te/a,", "character 6: expected a module name"),
        ("te/a,te/b", "expected each module once"),
        ("Te/a", "character 1: expected a module name"),
        ("te/a\\b", "character 5: expected ','"),
        ("te/a\\", "character 5: expected ','"),
        ("te/a\0b", "character 5: expected ','"),
        ("-,te/a", "character 1: expected a module name"),
    ],
)
def test_errors_say_where_and_what(text: str, where: str) -> None:
    with pytest.raises(LabelError) as caught:
        parse_label(text)
    assert where in str(caught.value)


def test_order_does_not_matter_and_empty_is_a_dash() -> None:
    assert format_label({"te": "b", "mls": "a"}) == "mls/a,te/b"
    assert format_label({}) == EMPTY == "-"
    assert parse_label("-") == {}


class Upper(PolicyModule):
    """Takes letters in any case, and writes them in capitals."""

    name = "upper"

    def parse(self, text: str) -> str:
        if not text.isalpha():
            raise ValueError("letters only")
        return text.upper()


def test_a_kernel_takes_labels_whole_or_not_at_all() -> None:
    with Kernel(policies=[Upper(), Partition()]) as kernel:
        sids = kernel.stats()["sids"]
        for wrong in ("upper/1,partition/p", "upper/a,partition/ p", "upper/a,te/x", "upper@2/a"):
            with pytest.raises(LabelError):
                kernel.create_task("t", label=wrong)
        assert kernel.stats()["sids"] == sids
        first = kernel.create_task("t", label="partition/p,upper/a")
        second = kernel.create_task("t", label="upper/A,partition/p")
        assert first.label == "partition/p,upper/A"
        assert first.sid == second.sid


def test_a_label_may_be_long_but_not_too_long() -> None:
    with Kernel(policies=[Partition()]) as kernel:
        long = "partition/" + "x" * 4000
        assert kernel.create_task("t", label=long).label == long
        with pytest.raises(LabelError, match="at most 4096 bytes"):
            kernel.create_task("t", label="partition/" + "x" * 5000)
        with pytest.raises(LabelError, match="surrogates"):
            kernel.create_task("t", label="partition/\ud800")


class Lossy(PolicyModule):
    """Writes what it does not read back."""

    name = "lossy"

    def format(self, value: str) -> str:
        return value + "!"


def test_a_module_must_read_what_it_writes() -> None:
    with Kernel(policies=[Lossy()]) as kernel, pytest.raises(LabelError, match="reads it"):
        kernel.create_task("t", label="lossy/x")
