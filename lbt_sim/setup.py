"""From a loaded scenario to everything that a run needs, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbt_sim.classroom import Classroom, build_classroom
from lbt_sim.classroom.example import example_cast
from lbt_sim.errors import ScenarioError, TemplateError, nearest
from lbt_sim.grading.load import check_grader, open_grader
from lbt_sim.models.base import ModelInfo
from lbt_sim.roles.uses import NEEDED, misuses
from lbt_sim.scenario.load import LoadedScenario, Seat, resolve_agents, resolve_classroom
from lbt_sim.scenario.loaded import read_classroom
from lbt_sim.scenario.schema import ScenarioFile
from lbt_sim.scenario.validation import as_one
from lbt_sim.seeds import Seeds
from lbt_sim.tasks.base import Task
from lbt_sim.tasks.load import load_task

__all__ = ["Prepared", "check_counting", "models_needed", "prepare", "seat_classroom", "uses_needed"]


@dataclass(frozen=True)
class Prepared:
    """A scenario with its seats, its graph and its problems: nothing has been asked of any model yet."""

    loaded: LoadedScenario
    seats: tuple[Seat, ...]
    classroom: Classroom
    task: Task

    @property
    def file(self) -> ScenarioFile:
        """The scenario's values."""
        return self.loaded.file


def prepare(loaded: LoadedScenario) -> Prepared:
    """Finds agents, builds the graph, loads the problems, and checks that they go together.

    Raises:
        InputError: Anything that would stop the run later and can be seen now.
    """
    seats = resolve_agents(loaded)
    _check_templates(loaded, seats)
    plan = resolve_classroom(loaded)
    room = [(seat.name, seat.role) for seat in seats if seat.role != "examiner"]
    seeds = Seeds(loaded.file.seed)
    classroom = build_classroom(plan.file, room, seed=seeds, read_file=plan.read_file, place=plan.place)
    check_grader(loaded.file.task.grader, loaded.place("task.grader"))
    task = load_task(loaded.file.task, seed=loaded.file.seed, find_data=loaded.data_file, place=loaded.place)
    if task.grader != "rubric":
        open_grader(
            task, place=loaded.place
        )  # says now what would not suit it later; it starts nothing before it grades
    prepared = Prepared(loaded, seats, classroom, task)
    _check_method(prepared)
    _check_engines(prepared)
    return prepared


def uses_needed(file: ScenarioFile, seat: Seat, *, rubric: bool) -> set[str]:
    """The templates that whoever sits here needs in this scenario."""
    role = seat.role
    uses = set(NEEDED[role])
    if seat.agent.notes.keep == "summary":
        uses |= {"summarise"}
    lesson, method = file.lesson, file.method
    if role == "teacher":
        lecture = method.material == "lecture"
        if "rewrite" in method.revise.operators:
            uses |= {"reflect", "rewrite", "repair"}
        if "choose" in method.revise.operators and not lecture:
            uses |= {"choose"}
        if method.start == "written" or lecture:
            uses |= {"write", "repair"}
    if role in ("teacher", "assistant") and lesson.questions:
        uses |= {"reply"}
    if role == "assistant" and lesson.assistants == "reword":
        uses |= {"pass_on"}
    if role == "student":
        uses |= {"ask"} if lesson.questions else set()
    if role in ("assistant", "student"):
        uses |= {"discuss"} if lesson.discussion.turns and lesson.discussion.mode == "talk" else set()
    if role == "examiner":
        uses |= {"set_exam"} if method.exam.set_by == "written" else set()
        uses |= {"judge"} if rubric else set()
    return uses


def _check_templates(loaded: LoadedScenario, seats: Sequence[Seat]) -> None:
    for seat in seats:
        if seat.agent.notes.keep == "summary" and seat.role != "student":
            raise loaded.error(
                "cast",
                f"the {seat.role} '{seat.name}' is to keep a summary, which only students do",
                remedy="In its agent's YAML, use `notes: {keep: all}` or `{keep: last}`.",
            )
        needed = uses_needed(loaded.file, seat, rubric=loaded.file.task.grader == "rubric")
        missing = sorted(needed - set(seat.templates))
        if missing:
            raise TemplateError(
                f"the {seat.role} '{seat.name}' has no template for {', '.join(missing)}, which this scenario needs",
                where=loaded.place("cast"),
                valid=sorted(seat.templates),
                remedy=f"Add `{missing[0]}: …` under `prompts` in its agent's YAML, with a template file beside it.",
            )
    # Seats of one agent share its templates: what is wrong with one is told once.
    shared = {id(template): (use, template) for seat in seats for use, template in seat.templates.items()}
    mistakes = [mistake for use, template in shared.values() for mistake in misuses(use, template)]
    if mistakes:
        raise as_one(mistakes)


def _check_method(prepared: Prepared) -> None:
    """What task and method ask of each other."""
    loaded, file, task = prepared.loaded, prepared.file, prepared.task
    method = file.method
    if method.exemplars >= len(task.train):
        raise loaded.error(
            "method.exemplars",
            f"{method.exemplars} exemplars of {len(task.train)} train problems leave none for exams",
            remedy="Lower method.exemplars, or raise task.train.",
        )
    unknown = [id_ for id_ in method.exam.ids if id_ not in {problem.id for problem in task.train}]
    if unknown:
        raise loaded.error(
            "method.exam.ids",
            f"'{unknown[0]}' is not a train problem",
            valid=[problem.id for problem in task.train[:10]] + ["…"],
            remedy="Correct the ids, or leave them out to have problems drawn by seed.",
        )
    if method.select.metric == "f1" and task.positive is None:
        raise loaded.error("method.select.metric", "F1 needs labels", ["accuracy"], "Use accuracy.")
    _check_settings(prepared)
    _check_knowledge(prepared)
    if file.lesson.material == "jigsaw" and all(len(group) < 2 for group in prepared.classroom.groups()):
        raise loaded.error(
            "lesson.material",
            "a jigsaw lesson needs students who talk to each other, and this classroom has no discusses edges",
            remedy="Use a classroom with groups (`classroom: jigsaw`), or `lesson.material: shared`.",
        )


def _check_settings(prepared: Prepared) -> None:
    """Refuses what would have no effect: a setting that is silently left out would be taken for a result."""
    loaded, method, lesson = prepared.loaded, prepared.file.method, prepared.file.lesson
    teachers = sum(seat.role == "teacher" for seat in prepared.seats)
    assistants = any(seat.role == "assistant" for seat in prepared.seats)
    lecture = method.material == "lecture"
    refused: list[tuple[bool, str, str, str]] = [
        (
            lecture and lesson.material != "shared",
            "lesson.material",
            f"a lecture cannot be dealt out as {lesson.material}: it is one text",
            "Use `lesson.material: shared`, or `method.material: exemplars`.",
        ),
        (
            lesson.material == "split" and teachers < 2,
            "lesson.material",
            "the material is split among teachers, and there is one",
            "Cast several teachers, or use `shared` or `jigsaw`.",
        ),
        (
            lesson.material == "jigsaw" and assistants and lesson.assistants == "reword",
            "lesson.assistants",
            "what an assistant says in its own words cannot be dealt out to a jigsaw group",
            "Use `lesson.assistants: relay`.",
        ),
        (
            lecture and bool(method.revise.operators) and "rewrite" not in method.revise.operators,
            "method.revise.operators",
            "a lecture is revised by `rewrite`: `choose` exchanges exemplars",
            "Add `rewrite`, or use `method.material: exemplars`.",
        ),
        (
            method.revise.feedback == "shuffled" and method.revise.donor is None,
            "method.revise.donor",
            "the teacher is to be told of another run's failures, and no run is named",
            "Name a run folder: `method.revise.donor: runs/NAME`.",
        ),
        (
            method.revise.feedback != "shuffled" and method.revise.donor is not None,
            "method.revise.donor",
            f"another run's failures are named, and the feedback is `{method.revise.feedback}`",
            "Use `method.revise.feedback: shuffled`, or leave the donor out (`--set method.revise.donor=null`).",
        ),
        (
            method.revise.feedback != "failures" and not method.revise.operators,
            "method.revise.feedback",
            f"nothing is revised, so that feedback `{method.revise.feedback}` would change nothing",
            "Leave the feedback out, or name operators under `method.revise.operators`.",
        ),
        (
            bool(method.exam.ids) and method.exam.set_by != "fixed",
            "method.exam.ids",
            f"these problems are for an exam that is fixed, and this one is {method.exam.set_by}",
            "Use `method.exam.set_by: fixed`, or leave the ids out.",
        ),
    ]
    for wrong, key, what, remedy in refused:
        if wrong:
            raise loaded.error(key, what, remedy=remedy)


def _check_knowledge(prepared: Prepared) -> None:
    """Refuses knowledge of those who do not learn in the lesson, and families that the task does not have."""
    loaded, cast = prepared.loaded, prepared.file.cast
    teachers = cast.teacher if isinstance(cast.teacher, list) else [cast.teacher]
    several = isinstance(cast.teacher, list)
    seats = [(("teacher", n) if several else ("teacher",), spec) for n, spec in enumerate(teachers)]
    for key, spec in [*seats, (("examiner",), cast.examiner)]:
        if spec.knowledge is not None:
            raise loaded.error(
                ("cast", *key, "knowledge"),
                f"knowledge confines what stays of a lesson, and the {key[0]} hears none",
                remedy="Remove it. Students and assistants may have it.",
            )
    valid = sorted({problem.family for problem in prepared.task.train if problem.family})
    learners = [("students", cast.students if isinstance(cast.students, list) else []), ("assistants", cast.assistants)]
    for role, specs in learners:
        for number, spec in enumerate(specs):
            unknown = [name for name in (spec.knowledge.without if spec.knowledge else ()) if name not in valid]
            if unknown:
                near = nearest(unknown[0], valid)
                hint = f"; did you mean '{near}'?" if near else ""
                raise loaded.error(
                    ("cast", role, number, "knowledge", "without"),
                    f"'{unknown[0]}' is not a family of the train problems{hint}",
                    valid,
                    "Correct the name."
                    if valid
                    else "This task does not say what kind its problems are; `task.family` names the field that does.",
                )


def _check_engines(prepared: Prepared) -> None:
    from lbt_sim.models.registry import check_model

    for name, spec in prepared.file.models.items():
        check_model(name, spec, prepared.loaded.place(f"models.{name}"))
    for seat in prepared.seats:
        engine = prepared.file.models[seat.model].engine
        if engine == "simulated" and seat.agent.exemplars == "text":
            raise ScenarioError(
                f"'{seat.name}' has its worked examples written as text, which simulated learners cannot read",
                where=prepared.loaded.place(f"models.{seat.model}.engine"),
                remedy="Set `exemplars: turns` in the agent's YAML, or use a language model.",
            )


def check_counting(prepared: Prepared, infos: Mapping[str, ModelInfo]) -> None:
    """Refuses a `too_long` that needs to know how long prompts are with models whose engine cannot tell.

    Args:
        prepared: The scenario.
        infos: Name under `models` -> what the model said of itself when it got ready, or what a manifest says.

    Raises:
        ScenarioError: An engine does not count tokens, or does not know its model's context.
    """
    policy = prepared.file.too_long
    if policy == "fail":
        return
    for name in dict.fromkeys(seat.model for seat in prepared.seats if seat.role != "examiner"):
        info = infos[name]
        if info.unlimited or (info.context is not None and info.counts_tokens):
            continue
        lacks = "cannot count a prompt's tokens" if info.context is not None else "does not say how long its context is"
        engine = prepared.file.models[name].engine
        raise prepared.loaded.error(
            "too_long",
            f"`{policy}` has to know how long prompts are, and models.{name} (engine '{engine}') {lacks}",
            valid=["fail"],
            remedy="Use `too_long: fail`, or an engine that can (`vllm`, `llamacpp`).",
        )


def models_needed(prepared: Prepared) -> list[str]:
    """Names under `models` that the run will call; the examiner's only where it writes or judges."""
    asks = prepared.file.method.exam.set_by == "written" or prepared.task.grader == "rubric"
    return list(dict.fromkeys(seat.model for seat in prepared.seats if seat.role != "examiner" or asks))


def seat_classroom(name: str, students: int, seed: int) -> Classroom:
    """A classroom by its name, or a scenario's, to be looked at.

    Args:
        name: A classroom or, where there is none of that name, a scenario: that one's own cast is seated.
        students: How many students to seat in a classroom that takes any number.
        seed: For random topologies.
    """
    from lbt_sim.library import FolderLayer, Library, built_in
    from lbt_sim.scenario.load import load_scenario

    here = Path.cwd()
    library = Library([FolderLayer(here, "here"), built_in()])
    if name.endswith((".yaml", ".yml")) or name not in library.names("classrooms"):
        if name not in library.names("scenarios") and not name.endswith((".yaml", ".yml")):
            library.find("classrooms", name)  # raises, and says which there are
        return prepare(load_scenario(name)).classroom
    plan = read_classroom(library, library.find("classrooms", name))
    cast = example_cast(plan.file, students, plan.read_file)
    return build_classroom(plan.file, cast, seed=Seeds(seed), read_file=plan.read_file, place=plan.place)
