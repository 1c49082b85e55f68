# For a fresh machine:  make demo,  make check  (minutes)  and  make test  (everything).
# All set everything up from uv.lock; nothing is installed outside this folder.

UV_VERSION := 0.13.9
UV := $(or $(shell uv --version >/dev/null 2>&1 && command -v uv),.uv/bin/uv)
# The scripts below run with the environment's own programs first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# TensorFlow with CUDA where there is an NVIDIA GPU; GPU=1 asks for it, where jobs will have one.
GPU := $(wildcard /dev/nvidia0)
ENVIRONMENT := .venv/.complete-$(if $(GPU),gpu,cpu)

# Files of tests share what they set up, so each stays on one worker; those that take minutes come
# first, so that no worker is left with one at the end.
TESTS := $(addprefix tests/,services workflow fuzz golden rules unit)

# What needs minutes, servers, a browser or downloads is left to "make test".
QUICK := $(addprefix tests/,golden rules unit) -m "not (slow or services or packages)"

.PHONY: demo check test unit lint types environment picture clean

demo: environment  ## run the benchmark on the example and say where the report is
	@snakemake --cores all --resources gpu=1 --quiet rules
	@echo "Report: $(CURDIR)/results/report/index.html"

check: lint unit  ## what must hold before each commit, in minutes, without root or services

test: environment  ## run the whole test suite
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 25 $(TESTS)

unit: environment  ## run the tests that are quick
	@python -m pytest -q -n 2 --dist loadfile --durations 15 $(QUICK)

lint: types  ## formatters, linters, types, spelling, Snakemake's own lint
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules workflow
	@codespell
	@snakemake --lint

types: environment  ## the types of the package and of the rules' scripts
	@mypy

environment: $(ENVIRONMENT)

$(ENVIRONMENT): uv.lock pyproject.toml | $(UV)
	@echo "Setting up the environment from uv.lock ..."
	@$(UV) sync --frozen --quiet --compile-bytecode $(if $(GPU),--no-group cpu --group gpu)
	@rm -f .venv/.complete-*
	@touch $@

.uv/bin/uv:
	@echo "Setting up uv ..."
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet uv==$(UV_VERSION)

picture: demo  ## renew the picture of the README from the demo's results
	@python -c "from PIL import Image; \
	image = Image.open('results/report/figures/picture.png').convert('RGB'); \
	image.thumbnail((1500, 4000)); \
	image.quantize(255).save('docs/picture.png', optimize=True)"

clean:  ## remove results and the environment; downloads stay in .cache
	rm -rf results .snakemake .venv .uv
