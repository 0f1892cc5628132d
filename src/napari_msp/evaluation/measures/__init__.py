"""The measures of Table 1: how far a prediction of one head is from its truth, in many ways.

A pure library: images in, numbers out. `MEASURES` says what each number is.
"""

from napari_msp.evaluation.measures.catalogue import MEASURES, Measure
from napari_msp.evaluation.measures.head import HeadMeasures, measure_head, measure_sh
from napari_msp.evaluation.measures.tissue import Tissue, tissue_of
from napari_msp.evaluation.measures.truth import Truth

__all__ = [
    "MEASURES",
    "HeadMeasures",
    "Measure",
    "Tissue",
    "Truth",
    "measure_head",
    "measure_sh",
    "tissue_of",
]
