"""Many predictions looked through: what is known of each, what raters say, and a report.

`predictions` finds them, `measures` says what is unusual, `missing_measures` measures what no
sidecar says, `ratings` keeps what raters say in the tables of `rating_table`, `agreement` compares
raters, and `report` writes the page.
No Qt, and no torch until a prediction is measured.
"""
