"""`run_cohort` with a quick job in place of `harmonize_scan`."""

from unittest.mock import patch

from napari_msp import cohort
from napari_msp.cohort.jobs import harmonize_scan


def run_cohort(*arguments, job=harmonize_scan, **settings):
    """Run a cohort; workers that are processes of their own must be able to import the job."""
    if job is harmonize_scan:
        return cohort.run_cohort(*arguments, **settings)
    with patch("napari_msp.cohort.harmonize_scan", job):
        return cohort.run_cohort(*arguments, **settings)
