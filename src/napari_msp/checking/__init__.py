"""Everything that is wrong with a travelling-heads dataset, told at once.

`dataset` goes through the scans, `scan` through one of them; the other files each look at one
thing and yield what they find.
"""

from napari_msp.checking.dataset import check_dataset
from napari_msp.checking.findings import Finding, has_errors, report_text

__all__ = ["Finding", "check_dataset", "has_errors", "report_text"]
