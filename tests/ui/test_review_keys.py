"""The keys of a review, and the sheet that shows them."""

from napari_msp.review.ratings import DEFAULT_TAGS
from napari_msp.ui.review.keys import COMMANDS, REBOUND, key_of, sheet, tag_keys


def test_no_key_does_two_things():
    keys = [key for command in COMMANDS for key in command.keys]
    assert len(keys) == len(set(keys))
    assert not any(key.isdigit() for key in keys)  # they are the tags'


def test_the_sheet_names_every_key_and_every_rebound_one():
    text = sheet({**DEFAULT_TAGS, "<b>ours</b>": "& more"})
    for command in COMMANDS:
        assert command.words in text
        for key in command.keys:
            assert key in text
    for tag in list(DEFAULT_TAGS)[:10]:
        assert tag in text
    for why in REBOUND.values():
        assert why in text
    assert "<b>ours" not in text


def test_ten_tags_have_a_digit():
    keys = tag_keys([f"tag {number}" for number in range(12)])
    assert list(keys) == [*"1234567890"]
    assert keys["0"] == "tag 9"
    assert key_of("undo") == "Backspace"
