"""What docs/serving.md shows is true: its scenarios are valid, its commands exist, its keys are those of the engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbt_sim.models.registry import check_model
from lbt_sim.models.vllm.spec import VllmSpec
from lbt_sim.scenario.load import load_scenario
from lbt_sim.scenario.yaml import write_yaml

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
BLOCKS = [block for block in SHOWN if "models" in yaml.safe_load(block)]


def test_the_page_shows_models_and_a_cluster() -> None:
    assert (len(BLOCKS), len(SHOWN)) == (3, 4)


def test_the_cluster_serves_the_model_that_the_scenario_beside_it_names() -> None:
    (cluster,) = (yaml.safe_load(block) for block in SHOWN if block not in BLOCKS)
    (application,) = cluster["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    (served,) = application["args"]["llm_configs"]
    assert served["model_loading_config"]["model_id"] == yaml.safe_load(BLOCKS[2])["models"]["weak"]["model"]


@pytest.mark.parametrize("block", BLOCKS)
def test_what_is_shown_is_a_valid_scenarios_models(block: str, tmp_path: Path) -> None:
    value: dict[str, Any] = {"kind": "scenario", "version": 1, "task": {"name": "reviews"}, **yaml.safe_load(block)}
    file = tmp_path / "shown.yaml"
    file.write_text(write_yaml(value), encoding="utf-8")
    for name, spec in load_scenario(str(file)).file.models.items():
        check_model(name, spec)


def test_entries_that_differ_in_their_adapter_share_their_servers_as_the_page_says(tmp_path: Path) -> None:
    models = yaml.safe_load(BLOCKS[0])["models"]
    specs = {name: VllmSpec(**{k: v for k, v in said.items() if k != "engine"}) for name, said in models.items()}
    assert specs["weak"].server_key == specs["tuned"].server_key != specs["strong"].server_key


def test_every_option_that_the_page_names_is_one() -> None:
    named = {"restarts", "patience", "memory", "cpu_cache", "python", "command", "urls", "lora", "replicas", "length"}
    assert named <= set(VllmSpec.model_fields)
    assert all(f"`{name}`" in PAGE or f"{name}:" in PAGE for name in named)
