"""Harmonize many subjects, one after another or on Dask; a bad one does not stop the others.

`run` is where it begins, `scans` chooses one of each subject, `jobs` harmonizes it unless that was
done, `cluster` has Dask do so, and `table` keeps what became of everybody.
"""

from napari_msp.cohort.jobs import CohortResult
from napari_msp.cohort.run import run_cohort
from napari_msp.cohort.table import CohortSummary, summarise_cohort

__all__ = ["CohortResult", "CohortSummary", "run_cohort", "summarise_cohort"]
