"""`python -m stub_vllm …`, beside this folder; or `python benchmarks/stub_vllm.py …`, from anywhere."""

from __future__ import annotations

from .process import main

main()
