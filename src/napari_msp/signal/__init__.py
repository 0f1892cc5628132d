"""Spherical harmonics and maps of the diffusion signal. Needs NumPy and DIPY, no torch."""
