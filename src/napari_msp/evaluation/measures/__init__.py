"""The measures of Table 1: how far a prediction of one head is from its truth, in many ways.

A pure library: images in, numbers out. `catalogue.MEASURES` says what each number is.
"""
