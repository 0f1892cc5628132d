"""What a few travelling heads teach, by method and time; `benchmarks/few_heads.py` runs it."""
