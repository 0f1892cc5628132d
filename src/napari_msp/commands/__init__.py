"""One file per command: its options, an example, and the library call that it makes.

`shared` has options of several commands, and the words in which errors refer to them; `console`
shows messages of a running command. `napari_msp.cli` puts them together.
"""
