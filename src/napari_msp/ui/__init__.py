"""Everything that knows napari."""
