from __future__ import annotations

from lbt_sim.transcript.diff import exemplar_changes, lecture_changes


def exemplar(question, answer="positive"):
    return {"question": question, "answer": answer, "rationale": None}


def test_exemplars_are_compared_by_question():
    found = exemplar_changes([exemplar("a"), exemplar("b"), exemplar("c")], [exemplar("b"), exemplar("d")])
    assert [e["question"] for e in found.removed] == ["a", "c"]
    assert [e["question"] for e in found.added] == ["d"]
    assert found.kept == 1
    assert not found.reordered


def test_another_answer_to_the_same_question_is_told():
    found = exemplar_changes([exemplar("a")], [exemplar("a", "negative")])
    assert [(old["answer"], new["answer"]) for old, new in found.altered] == [("positive", "negative")]
    assert (found.removed, found.added, found.kept) == ((), (), 0)


def test_another_order_is_told():
    assert exemplar_changes([exemplar("a"), exemplar("b")], [exemplar("b"), exemplar("a")]).reordered


def test_lectures_are_compared_by_sentence():
    changes = lecture_changes("One. Two. Three.", "One. Too. Three.")
    assert changes == [("=", "1"), ("-", "Two."), ("+", "Too."), ("=", "1")]
