"""What the commands take and which library call each makes; `napari_msp.cli` puts them together."""
