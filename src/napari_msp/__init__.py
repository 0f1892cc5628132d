"""napari-msp."""
