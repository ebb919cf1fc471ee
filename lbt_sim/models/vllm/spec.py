"""What a scenario says of a vLLM model: which weights, on which GPUs, served how, and how it is asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from lbt_sim.errors import ModelUnavailable
from lbt_sim.models.openai import address
from lbt_sim.scenario.schema import Spec

__all__ = ["OURS", "VllmSpec", "path_of"]

OURS: Mapping[str, str] = {
    "model": "model",
    "revision": "revision",
    "tokenizer-revision": "revision",
    "tensor-parallel-size": "tensor_parallel",
    "gpu-memory-utilization": "memory",
    "max-model-len": "length",
    "dtype": "dtype",
    "enable-lora": "lora",
    "lora-modules": "lora",
    "max-lora-rank": "lora",
    "max-loras": "lora",
    "served-model-name": "",
    "host": "",
    "port": "",
    "uds": "",
    "api-key": "",
    "api-server-count": "replicas",
    "data-parallel-size": "replicas",
    "data-parallel-size-local": "replicas",
    "pipeline-parallel-size": "tensor_parallel",
    "config": "flags",
    "ssl-certfile": "",
    "ssl-keyfile": "",
    "ssl-ca-certs": "",
    "root-path": "",
    "disable-log-stats": "",
    "hf-token": "",
    "headless": "",
}
"""vLLM's flags that lbt-sim sets itself -> the key that says so in a scenario, '' where nobody has a say."""

_SECRET = re.compile(r"(^|_)(KEY|TOKEN|SECRET|CRED\w*|PASSW\w*)(_|$)", re.IGNORECASE)
_SERVER_KEYS = (
    "model", "revision", "device", "gpus", "tensor_parallel", "memory", "cpu_cache", "length", "dtype", "replicas",
    "flags", "environment", "python", "command",
)  # fmt: skip


class VllmSpec(Spec):
    """Options of the engine `vllm`."""

    model: str
    """A Hugging Face id, a local folder, the path of a GGUF file, or a model that `lbt-sim models pull` knows."""
    revision: str | None = None
    """With a Hugging Face id: the commit, branch or tag."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: NVIDIA GPUs where there are any and vLLM was built for them, else the CPU."""
    gpus: list[int] | Literal["auto"] = "auto"
    """GPUs by their number in `nvidia-smi` (where CUDA_VISIBLE_DEVICES is set: by their place in it), dealt out to the
    replicas in order; `auto`: those with the most memory free."""
    tensor_parallel: PositiveInt = 1
    """GPUs that one server spreads its weights over."""
    memory: float | None = Field(default=None, gt=0.0, le=1.0)
    """Share of each of its GPUs' memory that a server takes; without it 0.9, divided among the servers on one GPU."""
    cpu_cache: PositiveInt = 2
    """On the CPU: GiB of memory for the key-value cache."""
    length: PositiveInt | None = None
    """Tokens that prompt and reply may have together; without it what the model was made for."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The weights' type; `auto`: the model's own on GPUs, float32 on the CPU."""
    lora: str | None = None
    """A folder with a LoRA adapter that this entry answers with. Entries that differ in it alone share a server."""
    replicas: PositiveInt = 1
    """Servers with the same model."""
    flags: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Further flags of `vllm serve` by their names, without the dashes in front: `max-num-seqs: 64`."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of the servers: `VLLM_BATCH_INVARIANT: "1"`."""
    python: str | None = None
    """The interpreter of the environment that holds vLLM; without it `lbt-sim doctor` says which is taken."""
    command: list[str] | None = Field(default=None, min_length=1)
    """In place of `python`: a command that takes the flags of `vllm serve`."""
    urls: list[str] = Field(default_factory=list)
    """Servers of this model that already run (`http://gpu7:8000/v1`): they are used, never started or stopped."""
    api_key_env: str | None = None
    """With `urls`: the environment variable that holds their API key."""
    thinking: bool = True
    """Whether a reasoning model thinks before it writes. For labels it is never asked to where its template allows."""
    batches: bool = True
    """Whether whole exams go out in few requests, where the server can. The answers are the same."""
    concurrency: PositiveInt | None = None
    """Calls in flight at each server at most; without it the server's own figures lead."""
    patience: float = Field(default=180.0, gt=0.0, le=86_400.0)
    """Seconds without any progress, while calls wait, after which a server counts as hung and is started anew."""
    start_timeout: float = Field(default=1800.0, gt=0.0, le=86_400.0)
    """Seconds that a server may take until it answers: weights may have to be fetched."""
    restarts: int = Field(default=3, ge=0, le=100)
    """How often a server that died or hung is started anew, until it has answered for ten minutes again."""
    retries: int = Field(default=5, ge=0, le=100)
    """Further attempts of a call after an error that may pass. A server that dies costs none."""

    @field_validator("urls")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        return [address(url) for url in value]

    @field_validator("flags")
    @classmethod
    def _free_flags(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name.startswith("-"):
                raise ValueError(f"write {name.lstrip('-')!r}, without the dashes in front")
            plain = name.replace("_", "-")
            # vLLM takes any beginning of a flag's name for it.
            if ours := [flag for flag in OURS if flag == plain or (plain != "tokenizer" and flag.startswith(plain))]:
                key = OURS[ours[0]]
                raise ValueError(f"{name!r} is set by lbt-sim: " + (f"use `{key}`" if key else "it picks it itself"))
        return {name.replace("_", "-"): flag for name, flag in value.items()}

    @field_validator("model", "revision", "lora", "python", "command", "flags", "environment")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if any("\0" in text for text in _texts(value)):
            raise ValueError("the character NUL (`\\0`) can be given to no program")
        return value

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not name or "=" in name:
                raise ValueError(f"{name!r} is no variable's name: wanted `NAME: value`")
            if _SECRET.search(name) and name != "VLLM_API_KEY":  # that one is refused for another reason
                raise ValueError(f"{name} looks like a secret: set it where lbt-sim is started; servers inherit it")
        return value

    @field_validator("gpus")
    @classmethod
    def _once(cls, value: list[int] | str) -> list[int] | str:
        if isinstance(value, list) and (len(set(value)) != len(value) or not value or min(value) < 0):
            raise ValueError("wanted the numbers of different GPUs, from 0")
        return value

    @model_validator(mode="after")
    def _together(self) -> VllmSpec:
        if self.python is not None and self.command is not None:
            raise ValueError("give either `python` or `command`")
        if self.urls:
            given = sorted(set(_SERVER_KEYS) & self.model_fields_set - {"model", "revision"})
            if given:
                names, one = ", ".join(f"`{key}`" for key in given), len(given) == 1
                raise ValueError(
                    f"{names} {'is' if one else 'are'} for servers that lbt-sim starts, and `urls` names running ones: "
                    f"leave out either {'it' if one else 'these'} or `urls`"
                )
        elif self.api_key_env is not None:
            raise ValueError("`api_key_env` goes with `urls`")
        if isinstance(self.gpus, list) and self.device == "cpu":
            raise ValueError("`gpus` and `device: cpu` contradict each other")
        if isinstance(self.gpus, list) and len(self.gpus) % self.tensor_parallel:
            raise ValueError(
                f"{len(self.gpus)} GPUs cannot be dealt out to servers of `tensor_parallel: {self.tensor_parallel}`"
            )
        return self

    @property
    def server_key(self) -> str:
        """Equal for entries that the same servers answer: 16 hexadecimal digits."""
        values = {key: getattr(self, key) for key in _SERVER_KEYS} | {"urls": self.urls}
        with suppress(ModelUnavailable):  # what is no path of this machine is told when it is looked for
            if (here := path_of(self.model)).exists():
                values["model"] = str(here.resolve())  # the same words mean another folder elsewhere
        return blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def path_of(text: str) -> Path:
    """A path as a scenario writes it, with the home folder that `~` stands for.

    Raises:
        ModelUnavailable: There can be no such path on this machine, or nobody may look whether there is.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except OSError as error:
        what, remedy = f"{text}: {error.strerror or error}", "Correct the path, or its permissions."
    except RuntimeError:
        what, remedy = f"{text}: there is no such user's folder on this machine", "Write the path out."
    else:
        return path
    raise ModelUnavailable(what, remedy=remedy)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for pair in value.items() for one in pair for text in _texts(one))
    elif isinstance(value, list):
        yield from (text for one in value for text in _texts(one))
