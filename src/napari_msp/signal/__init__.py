"""From the signal to spherical harmonics and maps. Needs NumPy and DIPY, no torch."""
