"""Acquisitions, datasets and lattices: what lies on disk and where its voxels are."""
