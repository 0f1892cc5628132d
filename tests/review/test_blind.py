"""Blind review, and the list of artefacts."""

import json

import pytest

from napari_msp.errors import UserError
from napari_msp.review.predictions import open_review
from napari_msp.review.ratings import DEFAULT_TAGS, Blind, open_blind, read_tags, tags_path


def test_order_and_names_are_kept_and_say_nothing(cohort):
    entries = open_review(cohort).entries
    first = open_blind(cohort, "anna")
    again = open_blind(cohort, "anna")
    assert again == first
    order = first.ordered(entries)
    assert again.ordered(reversed(entries)) == order
    assert sorted(order, key=lambda each: each.key) != order
    names = [first.name(each) for each in order]
    assert len(set(names)) == 12
    assert not any(
        each.subject[4:] in name.split("-") for each, name in zip(order, names, strict=True)
    )


def test_raters_have_orders_of_their_own(cohort):
    entries = open_review(cohort).entries
    seeds = {open_blind(cohort, name).seed for name in ("anna", "bea", "cleo")}
    assert len(seeds) == 3
    assert Blind(1).ordered(entries) != Blind(2).ordered(entries)


def test_what_is_added_later_changes_no_order(cohort):
    entries = open_review(cohort).entries
    few, all_of_them = Blind(7).ordered(entries[:8]), Blind(7).ordered(entries)
    assert [each for each in all_of_them if each in few] == few


def test_sides_are_hidden_where_asked(cohort):
    entries = open_review(cohort).entries
    assert {Blind(3).sides(each) for each in entries} == {("scan", "prediction")}
    hidden = [Blind(3, hide_roles=True).sides(each) for each in entries]
    assert set(hidden) == {("scan", "prediction"), ("prediction", "scan")}
    seed = open_blind(cohort, "anna").seed
    assert open_blind(cohort, "anna", hide_roles=True) == Blind(seed, hide_roles=True)


def test_a_damaged_seed_is_told(cohort):
    open_blind(cohort, "anna")
    (cohort / "review/rater-anna_blind.json").write_text("{}")
    with pytest.raises(UserError, match="has no seed"):
        open_blind(cohort, "anna")


def test_tags_are_those_of_the_folder(tmp_path):
    assert read_tags(tmp_path) == DEFAULT_TAGS
    tags_path(tmp_path).parent.mkdir()
    tags_path(tmp_path).write_text(json.dumps({"spike": "one bright line", "other": ""}))
    assert list(read_tags(tmp_path)) == ["spike", "other"]
    tags_path(tmp_path).write_text(json.dumps({" two\nlines ": 3}))
    assert read_tags(tmp_path) == {"two lines": ""}
    for content, said in (("{}", "names no tag"), ("[", "not valid JSON"), ("[]", "JSON object")):
        tags_path(tmp_path).write_text(content)
        with pytest.raises(UserError, match=said):
            read_tags(tmp_path)
