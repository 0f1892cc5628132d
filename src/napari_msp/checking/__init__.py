"""Everything that is wrong with a travelling-heads dataset, told at once.

`dataset` goes through the scans, `scan` through one of them; the other files each look at one
thing and yield what they find. `outliers` compares subjects; `rows` and `table` set side by side
what was measured.
"""

from napari_msp.checking.dataset import CheckedDataset, check_dataset
from napari_msp.checking.findings import Finding, has_errors, report_text
from napari_msp.checking.rows import ScanRow
from napari_msp.checking.table import check_table_name, table_text, write_table

__all__ = [
    "CheckedDataset",
    "Finding",
    "ScanRow",
    "check_dataset",
    "check_table_name",
    "has_errors",
    "report_text",
    "table_text",
    "write_table",
]
