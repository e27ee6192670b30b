"""The weight syntax: what front ends of the wild agree on, and no surprise for what is no syntax."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd1b.sampling.weights import GREATEST, parse


def pieces(prompt):
    return [(span.text, pytest.approx(span.weight)) for span in parse(prompt)]


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a red apple", [("a red apple", 1)]),
        ("", [("", 1)]),
        ("a (red:1.3) apple", [("a ", 1), ("red", 1.3), (" apple", 1)]),
        ("(a, b : .5 )", [("a, b ", 0.5)]),
        ("(x:0)(y:-1)", [("x", 0), ("y", -1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat] [[dog]]", [("cat", 1 / 1.1), (" ", 1), ("dog", 1 / 1.21)]),
        ("((red:1.2) apple:1.5) x", [("red", 1.8), (" apple", 1.5), (" x", 1)]),
        ("[(a:2) b]", [("a", 2 / 1.1), (" b", 1 / 1.1)]),
        (r"a cat \(grey\)", [("a cat (grey)", 1)]),
        (r"(a \(b\):2)", [("a (b)", 2)]),
        (r"\[a\] c:\\d", [(r"[a] c:\d", 1)]),
        ("[x:1.3]", [("x:1.3", 1 / 1.1)]),  # square brackets hold no number
        ("(x:one)", [("x:one", 1.1)]),
        ("(:2)", [("", 1)]),
        # a bracket without its partner is text
        (":) :(", [(":) :(", 1)]),
        ("a (cat", [("a (cat", 1)]),
        ("a cat] (b)", [("a cat] ", 1), ("b", 1.1)]),
        ("(a [b) c]", [("a [b", 1.1), (" c]", 1)]),
        ("c++ a\\b", [("c++ a\\b", 1)]),
    ],
)
def test_syntax(prompt, wanted):
    assert pieces(prompt) == wanted


@settings(deadline=None)
@given(st.text())
def test_text_without_brackets_is_one_span_as_it_stands(text):
    text = "".join(character for character in text if character not in "()[]\\")
    assert pieces(text) == [(text, 1)]


@settings(deadline=None)
@given(st.text())
def test_escaped_text_is_text(text):
    escaped = "".join(f"\\{character}" if character in "()[]\\" else character for character in text)
    assert pieces(escaped) == [(text, 1)]


@settings(deadline=None)
@given(st.text("a:1.(([))]\\", max_size=30))
def test_any_text_is_read_or_its_weight_refused(text):
    with contextlib.suppress(ValueError):
        spans = parse(text)
        assert all(abs(span.weight) <= GREATEST for span in spans)
        assert len("".join(span.text for span in spans)) <= len(text)


@pytest.mark.parametrize("prompt", ["(cat:11)", "(cat:-11)", "(((cat:9):9):9)", "(" * 25 + "cat" + ")" * 25])
def test_a_weight_too_great_is_named(prompt):
    with pytest.raises(ValueError, match=r"'cat' is further from 0 than 10.*\\\("):
        parse(prompt)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("prompt", ["(" * 16_000 + ")" * 16_000, "[" * 16_000 + ")" * 16_000, "[(" * 9 + ")]" * 16_000])
def test_hostile_nesting_is_read_in_linear_time(prompt):
    parse(prompt)
