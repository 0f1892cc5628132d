# Two commands on a bare machine with Python 3.11+, pip and make:
#   make demo    simulated heads, the packaged model, a figure and numbers
#   make test    the whole test suite, ruff and mypy
# Both first make .venv; run again they find it ready and lose no time.

.PHONY: demo test clean

demo:
	@sh scripts/demo.sh

test:
	@sh scripts/check.sh

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +
