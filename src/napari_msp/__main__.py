"""`python -m napari_msp` is `napari-msp`."""

import sys

from napari_msp.cli import main

if __name__ == "__main__":
    sys.exit(main())
