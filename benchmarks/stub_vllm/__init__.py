"""A stand-in for a vLLM server: its API as of 0.32, a model of its latency and prefix cache, and faults on demand.

    python benchmarks/stub_vllm.py --model tiny --served-model-name tiny --port 8000 --seconds 0.05 --slots 64

Flags of `vllm serve` that it does not know are accepted and ignored. It answers by rule, not by a language model.

**Answers** depend on the prompt's tokens, on the LoRA adapter's folder and, at a temperature above 0, on the seed
(sample i of n: seed + i; without a seed: 0), never on the way they are asked for: alone, in a batch, as one of n
samples, held to choices. One distribution over first tokens is behind them all. Labels that stand as assistant turns
in the prompt, or are named by its system turn or its last line, are likely. Where there are such, a reply is one of
them; where a set of problems is asked for ("Write 4 examples"), it is a JSON list made of those in the prompt; else
it is `--output-tokens` of prose. `top_p`, `top_k` and penalties are ignored; there is no streaming and no tool use.

**Time.** A conversation waits, first in first out, for one of `--slots`; a batch of N takes N, n samples take n. It
holds its slot for `--seconds`, plus `--seconds-per-prompt-token` for each prompt token that is not in the prefix
cache, plus `--seconds-per-output-token` for each token of the reply. A slot that comes free is taken at that very
time, however late this process gets to it: what it needs itself costs latency, not slots.

**Prefix cache.** Whole blocks; the least recently used leave first, of one prompt the deepest; those of running calls
are not pinned. As in vLLM the block with a prompt's last token is always computed. What a call computes can be used
when its prefill is done (`--seconds` belong to it), or at once with `--share-in-flight`, which is what vLLM does; n
samples of one prompt always share it.

`GET /stub/stats` tells, since the start or `POST /stub/reset` (which forgets the cache as well, unless told
`{"keep_cache": true}`):

| key | counts |
| --- | --- |
| `calls`, `batches` | requests taken on, on either path; those of them that were batches |
| `conversations` | prompts that got a slot: N for a batch of N, n for n samples |
| `prompt_tokens`, `cached_tokens`, `computed_tokens` | of all conversations, when their prefill is done |
| `generated_tokens` | of all that are finished |
| `unique_tokens` | nodes of the token-level trie of all prompts: what they have if no beginning is counted twice |
| `unique_block_tokens` | the least that any order computes, with an endless cache (below) |
| `most_running`, `refused`, `aborted` | most slots taken at once; calls refused for the queue; conversations given up |
| `busy_seconds` | slot time of all that started; divided by `slots`, what the server alone needs |
| `cpu_seconds` | of this process, since it started |

`unique_block_tokens` counts each distinct whole block, together with all that stands before it, once; and for each
conversation, repeated ones too, the 1 to `--block` tokens from its last block's begin. A salt or an adapter makes
another prompt of the same tokens.

`POST /stub/faults` switches faults on (`FAULTS`), `{"fault": "none"}` all off.
"""

from __future__ import annotations

from .answers import Draw, First, reply_to
from .engine import Engine
from .process import arguments, main, runner_of
from .server import Stub
from .tokens import Template, decode, encode

__all__ = [
    "Draw",
    "Engine",
    "First",
    "Stub",
    "Template",
    "arguments",
    "decode",
    "encode",
    "main",
    "reply_to",
    "runner_of",
]
