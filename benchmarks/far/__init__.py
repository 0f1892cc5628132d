"""Far sets: simulated travelling heads that share nothing with `napari_msp.data.phantom`.

Own anatomy, own signal models, own scanners; not a line and not a number is shared. Base models are
chosen by three of the sets and measured on three others. What the sets are is fixed in `sets`, and
`digests.json` keeps what they were before anything was chosen by them::

    python -m far make OUT [SET ...]     # from benchmarks/: write them as BIDS datasets
    python -m far check [SET ...]        # make them anew and compare with the digests
"""

from far.sets import CHOOSING, MEASURING, SETS, FarSet, Scan, make_head

__all__ = ["CHOOSING", "MEASURING", "SETS", "FarSet", "Scan", "make_head"]
