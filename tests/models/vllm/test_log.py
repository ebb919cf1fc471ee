"""Of a log of hundreds of lines, the few that tell; and what to do about them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbt_sim.models.vllm.log import explain, telling_lines

CACHE = """\
(APIServer pid=11) INFO 11-24 15:24:53 [api_utils.py:286] non-default args: {'port': 8391}
(EngineCore pid=12) INFO 11-24 15:26:07 [model.py:1] Starting to load model tiny...
Loading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]\rLoading: 100% Completed | 1/1
(EngineCore pid=12) ERROR 11-24 15:26:08 [core.py:1100] EngineCore failed to start.
(EngineCore pid=12) ERROR 11-24 15:26:08 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=12) ERROR 11-24 15:26:08 [core.py:1100]   File "/site/vllm/v1/engine/core.py", line 1, in run
(EngineCore pid=12) ERROR 11-24 15:26:08 [core.py:1100]     raise ValueError("no")
(EngineCore pid=12) ERROR 11-24 15:26:08 [core.py:1100] ValueError: No available memory for the cache blocks. Try more.
(EngineCore pid=12) Traceback (most recent call last):
(EngineCore pid=12)   File "/site/vllm/v1/engine/core.py", line 1, in run
(EngineCore pid=12) ValueError: No available memory for the cache blocks. Try more.
Traceback (most recent call last):
  File "/site/vllm/entrypoints/api.py", line 2, in main
    raise RuntimeError(
    ^^^^^^^^^^^^^^^^^^^
RuntimeError: Engine core initialization failed. See root cause above.
/lib/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked shared_memory objects
  warnings.warn('resource_tracker: There appear to be %d '
"""

PYDANTIC = """\
Traceback (most recent call last):
  File "/site/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (80000) is greater than the derived max_model_len (8192). [type=value_error]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""

CHAIN = """\
Traceback (most recent call last):
  File "/site/a.py", line 1, in a
httpx.ConnectError: [Errno -2] Name or service not known

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/site/b.py", line 1, in b
OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.
Check your internet connection.
"""


def test_ends_of_tracebacks_and_logged_errors_are_told_once_without_noise() -> None:
    assert telling_lines(CACHE) == [
        "EngineCore failed to start.",
        "ValueError: No available memory for the cache blocks. Try more.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]


def test_message_of_several_lines_is_kept() -> None:
    assert telling_lines(PYDANTIC)[0].startswith("pydantic_core")
    assert telling_lines(PYDANTIC)[1].startswith("Value error, User-specified max_model_len (80000)")
    assert len(telling_lines(PYDANTIC)) == 2


def test_chained_exceptions_are_all_told() -> None:
    assert [line[:20] for line in telling_lines(CHAIN)] == [
        "httpx.ConnectError: ",
        "OSError: We couldn't",
        "Check your internet ",
    ]


def test_usage_error_is_told_without_the_usage() -> None:
    usage = "usage: api_server.py [-h]\n" + "   [--some-flag FLAG]\n" * 300
    assert telling_lines(usage + "api_server.py: error: unrecognized arguments: --no-such-flag\n") == [
        "api_server.py: error: unrecognized arguments: --no-such-flag"
    ]


def test_log_without_errors_tells_its_last_lines() -> None:
    log = "\n".join(f"(APIServer pid=1) INFO 11-24 15:24:53 [a.py:1] line {n}" for n in range(50)) + "\n\n"
    assert telling_lines(log, 3) == ["line 47", "line 48", "line 49"]
    assert telling_lines("") == []


def test_the_last_of_too_many_are_told() -> None:
    log = "\n".join(f"ERROR 11-24 15:24:53 [a.py:1] no {n}" for n in range(50))
    assert telling_lines(log, 2) == ["no 48", "no 49"]
    assert len(telling_lines(log)) == 12


def test_nothing_in_a_line_acts_on_a_terminal() -> None:
    log = "\x1b]0;title\x07\x1b[31mERROR\x1b[0m 11-24 15:24:53 [a.py:1] red\x1b[2J\x9b2J \u202egnp\x00\x08\n"
    (line,) = telling_lines(log)
    assert line.startswith("red")
    assert line.isprintable()


def test_long_line_is_cut() -> None:
    (line,) = telling_lines("ValueError: " + "x" * 10_000)
    assert len(line) == 400
    assert line.endswith("…")


@given(st.text(), st.integers(1, 5))
def test_any_text_is_told_of(text: str, limit: int) -> None:
    lines = telling_lines(text, limit)
    assert len(lines) <= limit
    assert all(line and line.isprintable() and line == line.strip() for line in lines)
    assert len(set(lines)) == len(lines)
    assert isinstance(explain(text), str)


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        (CACHE, "raise `memory`"),
        (PYDANTIC, "set `length` lower"),
        (CHAIN, "hub is out of reach"),
        (
            "ValueError: Free memory on device cuda:0 (10.2/79.1 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 71.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by others.",
            "nvidia-smi",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "ran out of memory"),
        (
            "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is "
            "needed, which is larger than the available KV cache memory (7.07 GiB). Try increasing",
            "set `length` lower",
        ),
        (
            "ValueError: Available memory on node 0 (9.66/15.09 GiB) on kv cache allocation is less than requested "
            "memory for kv (9999.0 GiB). Decrease --kv-cache-memory-bytes, VLLM_CPU_KVCACHE_SPACE, or reduce",
            "lower `cpu_cache`",
        ),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "`flags`"),
        ("api_server.py: error: argument --dtype: invalid choice: 'bfloat17'", "`flags`"),
        (
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/name'",
            "check `model`",
        ),
        (
            "OSError: org/none is not a local folder and is not a valid model identifier listed on 'https://x'",
            "`model`",
        ),
        ("OSError: You are trying to access a gated repo.\nMake sure to have access to it", "HF_TOKEN"),
        ("ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", "`float16`"),
        ("ModuleNotFoundError: No module named 'vllm'", "lacks the module vllm. `lbt-sim doctor`"),
        ("/usr/bin/python: No module named vllm.entrypoints", "lacks the module vllm.entrypoints."),
        ("ModuleNotFoundError: No module named 'gguf'", "pip install gguf"),
        ("OSError: [Errno 98] Address already in use", "Another program took the port"),
        ("RuntimeError: Failed to infer device type", "no GPU"),
        ("Application startup complete.", ""),
        ("", ""),
    ],
)
def test_well_known_failure_has_a_remedy(log: str, remedy: str) -> None:
    assert remedy in explain(log)
    assert bool(remedy) == bool(explain(log))
