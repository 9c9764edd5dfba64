"""Comparing two reports loads no deep learning framework."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import tshsr.metrics

MODULES = sorted(module.name for module in pkgutil.iter_modules(tshsr.metrics.__path__, "tshsr.metrics."))


def test_no_module_of_metrics_loads_torch() -> None:
    assert "tshsr.metrics.comparison" in MODULES
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, *MODULES], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "numpy" in loaded
    assert not loaded & {"torch", "accelerate", "transformers", "tokenizers"}
    assert "scipy" not in loaded, "comparison loads it on first use"
