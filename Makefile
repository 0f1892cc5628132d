# Commands on a bare machine with Python 3.11+, pip and make:
#   make demo       simulated heads, the packaged model, a figure and numbers
#   make test       ruff, mypy, and every test that is not slow by nature
#   make test-slow  the others: whole trainings, full-size heads, processes that are killed
#   make bench      what this package does beside its peers, compared with benchmarks/RESULTS.md
#                   (QUICK=1: minutes; ONLY=maps: one subject; KEEP=1: writes that page anew)
#   make docs       the handbook, in build/handbook
# All first make .venv; run again they find it ready and lose no time.

.PHONY: demo test test-slow bench docs clean

demo:
	@sh scripts/demo.sh

test:
	@sh scripts/check.sh

test-slow:
	@sh scripts/check_slow.sh

bench:
	@sh scripts/bench.sh $(if $(QUICK),--quick) $(if $(KEEP),--keep) $(if $(ONLY),--only $(ONLY))

docs:
	@sh scripts/docs.sh

clean:
	rm -rf .venv build dist demo .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +
