"""Review of many predictions: what is known of each, raters' verdicts, and a report.

`predictions` finds them, `measures` finds unusual numbers, `missing_measures` measures what
sidecars lack, `ratings` keeps raters' verdicts in the tables of `rating_table`, `agreement`
compares raters, and `report` writes the page.
No Qt, and no torch until a prediction is measured.
"""
