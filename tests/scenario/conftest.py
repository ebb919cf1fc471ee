"""A small workspace of its own, so that no test depends on what the built-in library says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

FILES = {
    "scenarios/demo.yaml": """\
kind: scenario
version: 1
models:
  small: {engine: simulated}
  large: {engine: openai, url: "http://localhost:1/v1", model: some/large}
task: {name: reviews, train: 40, held_out: 12}
classroom: pair
cast:
  teacher: {model: large}
  students:
    - {persona: literal}
    - {persona: sceptic, count: 2}
method: {exam: 24, rounds: 2}
""",
    "classrooms/pair.yaml": "kind: classroom\nversion: 1\nedges: [{from: teacher, to: student, kind: teaches}]\n",
    "agents/personas/literal.yaml": "title: Literal\ntext: Take words as they are.\ntraits: {blind: 0.2, slip: 0.1}\n",
    "agents/personas/sceptic.yaml": "title: Sceptic\ntext: You doubt.\n",
    "agents/teacher.yaml": "role: teacher\nprompts: {answer: teacher/answer.md.j2}\n",
    "agents/teacher/answer.md.j2": "Teach {{ question }}\n",
    "agents/student.yaml": (
        "role: student\nprompts: {answer: student/answer.md.j2}\n"
        "sampling: {answer: {temperature: 0.5, max_tokens: 4}}\n"
    ),
    "agents/student/answer.md.j2": "Answer {{ question }}\n",
    "agents/assistant.yaml": "role: assistant\nprompts: {}\n",
    "agents/examiner.yaml": "role: examiner\nprompts: {}\n",
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Writes a file of the workspace, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LBT_SIM_DATA", raising=False)

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    for path, text in FILES.items():
        write(path, text)
    return write
