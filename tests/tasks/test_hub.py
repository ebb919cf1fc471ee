import json
import sys

import pytest

from lbt_sim.errors import Place, TaskError
from lbt_sim.scenario.schema import TaskSpec
from lbt_sim.tasks import load_task
from lbt_sim.tasks.hub import read_dataset


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TaskError, match="needs the package `datasets`") as caught:
        read_dataset("openai/gsm8k", "train", config="main", revision=None, where=Place(key="task.dataset"))
    assert "--extra hub" in caught.value.remedy
    assert caught.value.where == Place(key="task.dataset")


def write(folder, name, count, start):
    rows = [json.dumps({"q": f"Is {start + n} odd?", "a": n % 2}) for n in range(count)]
    (folder / name).write_text("\n".join(rows))


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A folder that the real library loads as a dataset, without network."""
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "odd"
    folder.mkdir()
    write(folder, "train.jsonl", 6, 0)
    write(folder, "test.jsonl", 4, 100)
    return folder


def test_splits_of_a_dataset_are_train_and_held_out(local):
    spec = TaskSpec(dataset=str(local), question="q", answer="a", labels={"0": "No", "1": "Yes"})
    task = load_task(spec, seed=0, find_data=lambda name: local / name)
    assert (len(task.train), len(task.held_out)) == (6, 4)
    assert [p.answer for p in task.train[:2]] == ["No", "Yes"]


def test_unknown_split_is_an_error_of_the_task(local):
    with pytest.raises(TaskError, match="split 'nonesuch'"):
        read_dataset(str(local), "nonesuch", config=None, revision=None, where=Place())
