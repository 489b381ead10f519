"""Columns and classes by their names."""

from __future__ import annotations

import pytest

from glora.tasks.own.columns import as_number, class_of, classes_of, label_column, text_columns


@pytest.mark.parametrize(
    ("row", "texts", "label"),
    [
        ({"text": "a b", "label": 1}, ("text",), "label"),
        ({"Body": "a b", "Category": "x"}, ("Body",), "Category"),
        ({"premise": "a", "hypothesis": "b", "label": 0, "id": 3}, ("premise", "hypothesis"), "label"),
        ({"question": "a", "sentence": "b", "label": 0}, ("question", "sentence"), "label"),
        ({"what people wrote": "one two three four", "mood": "x"}, ("what people wrote",), "mood"),
        ({"text": "a", "label_name": "joy"}, ("text",), "label_name"),
    ],
)
def test_columns_are_found(row: dict, texts: tuple[str, ...], label: str) -> None:
    assert text_columns([row], None, "f") == texts
    assert label_column([row], None, texts, "f") == label


def test_what_cannot_be_told_is_asked_for() -> None:
    row = {"first": "one two three four", "second": "five six seven eight", "n": 3, "m": 4}
    with pytest.raises(ValueError, match="which column is the text cannot be told from first, second, n, m; give task"):
        text_columns([row], None, "f")
    with pytest.raises(ValueError, match="which column is the label cannot be told"):
        label_column([row], None, ("first",), "f")
    with pytest.raises(ValueError, match=r"f has no column 'third' \(task.text\)"):
        text_columns([row], "third", "f")
    with pytest.raises(ValueError, match="one or two columns"):
        text_columns([row], ["first", "second", "n"], "f")


def test_classes_are_in_the_order_of_their_numbers_or_of_the_alphabet() -> None:
    assert classes_of(["10", "2", "2"], "f") == ("2", "10")
    assert classes_of([1.0, 0.0], "f") == ("0", "1")
    assert classes_of([True, False], "f") == ("false", "true")
    assert classes_of([" sad", "joy"], "f") == ("joy", "sad")
    assert class_of(" sad ") == "sad"
    with pytest.raises(ValueError, match="every row has the label 'a'"):
        classes_of(["a", "a"], "f")
    with pytest.raises(ValueError, match="no classes; give regression = true"):
        classes_of([i / 7 for i in range(200)], "f")
    with pytest.raises(ValueError, match="no classes; give task.label"):
        classes_of([f"id{i}" for i in range(200)], "f")
    assert [as_number(value) for value in ("1e3", "nan", None)] == [1000.0, None, None]
