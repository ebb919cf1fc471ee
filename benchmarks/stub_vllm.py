"""Runs the stand-in for a vLLM server: the package beside this file, `stub_vllm/`, whose text says what it does.

python benchmarks/stub_vllm.py --model tiny --served-model-name tiny --port 8000 --seconds 0.05 --slots 64
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of a package and a module of one name Python takes the package

from stub_vllm.process import main

if __name__ == "__main__":
    main()
