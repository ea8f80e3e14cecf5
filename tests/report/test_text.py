"""Texts on the page."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.report.text import percent


@settings(deadline=None)
@given(st.floats(0, 1))
def test_a_percentage_is_never_rounded_to_all_or_nothing(value):
    text = percent(value)
    assert (text == "100.0%") == (value == 1)
    assert (text == "0.0%") == (value == 0)
