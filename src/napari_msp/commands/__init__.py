"""One file a command: its options, an example, and the library call that it makes.

`shared` has the options that several commands have, and the words in which errors speak of them;
`console` what is shown while a command runs. `napari_msp.cli` puts them together.
"""
