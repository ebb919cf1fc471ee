"""Writes a Llama of a few hundred thousand random weights as a Hugging Face folder, and a LoRA adapter for it.

Run by its path with vLLM's interpreter: `python -I tiny_llama.py FOLDER`. Makes FOLDER/tiny and FOLDER/adapter; the
same in every run. It knows nothing, but answers like a model: which label is likelier depends on the whole prompt.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 10
HIDDEN, LAYERS, HEADS = 128, 2, 4  # heads of 32, the smallest that vLLM computes on the CPU
CONTEXT = 2048
ATTENTION = 4.0
INCLINED = 4.0
SPACED = 2.0
RANK = 4
LABELS = ("positive", "negative", "very")
"""Words that the model is inclined to begin with, the one or the other, and after a space as well, but less."""

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""As reasoning models have it: thinking can be switched off."""

TEXT = """\
Answer with one word: positive or negative.
Is the review positive or negative? Write positive or negative.
A wonderful film: I laughed, I cried, and I want to see it again.
The worst evening of the year. The plot made no sense, and nobody on the stage could act.
very good, very bad, very positive, very negative
The food was cold, the waiter was rude, and the bill was wrong.
Breakfast was lovely, the room was clean, the view was beautiful.
This phone broke after two days; the shop would not take it back.
A clear and honest book that explains hard things in simple words.
The battery lasts for a week, the screen is bright, and the price is fair.
It is not bad at all. It is not good either. It is not what I had hoped for.
The music was too loud, the seats were too small, and the heating was off.
You are a teacher. You are a student. The teacher explains, the student asks and answers.
system user assistant teacher student examiner question answer review label word text
I would buy it again, and I would give it to my friends.
I would not buy it again, and I would not give it to anybody.
one two three four five six seven eight nine ten yes no maybe
Here are some examples. Learn from them, and label the next review as they do.
"""


def main(folder: Path) -> None:
    tokenizer = tokens()
    torch.manual_seed(SEED)
    model = llama(tokenizer)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    adapter(folder / "adapter", str(folder / "tiny"))


def tokens() -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that there is no text that it cannot write."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    bpe.train_from_iterator(TEXT.splitlines() + [label for label in LABELS for _ in range(8)], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special[1:],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def llama(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=CONTEXT,
        initializer_range=0.1,  # far from the usual 0.02: what was read is to change what is said
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
        dtype="float32",
    )
    model = LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= ATTENTION  # else the last token alone would say what comes next
        read = [rendered(tokenizer, line, thinking) for line in TEXT.splitlines() for thinking in (True, False)]
        usual = torch.stack([model.model(ids).last_hidden_state[0, -1] for ids in read]).mean(0)
        likeliest = (model.lm_head.weight @ usual).max()
        for label, less in [(label, 0.0) for label in LABELS] + [(f" {label}", SPACED) for label in LABELS]:
            row = model.lm_head.weight[tokenizer.encode(label, add_special_tokens=False)[0]]
            row += (likeliest + INCLINED - less - row @ usual) * usual / (usual @ usual)
    return model


def rendered(tokenizer: PreTrainedTokenizerFast, said: str, thinking: bool) -> torch.Tensor:
    """A chat prompt's tokens."""
    turns = [{"role": "user", "content": said}]
    options = {"add_generation_prompt": True, "enable_thinking": thinking}
    return tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True, **options)["input_ids"]


def adapter(folder: Path, base: str) -> None:
    """A LoRA adapter of random weights, as PEFT would write it."""
    folder.mkdir(parents=True, exist_ok=True)
    modules = ["q_proj", "v_proj"]
    said = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": RANK,
            "lora_alpha": 2 * RANK, "lora_dropout": 0.0, "bias": "none", "target_modules": modules}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=1), "utf-8")
    save_file(dict(matrices(modules)), folder / "adapter_model.safetensors", metadata={"format": "pt"})


def matrices(modules: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for layer in range(LAYERS):
        for module in modules:
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            yield f"{name}.lora_A.weight", 0.3 * torch.randn(RANK, HIDDEN)
            yield f"{name}.lora_B.weight", 0.3 * torch.randn(HIDDEN, RANK)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
