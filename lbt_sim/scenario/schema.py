"""The shape of every YAML file: pydantic models, one per kind of file, a docstring under each field.

`kind` and `version` open each file. Unknown keys are errors. What a field means stands here once; the JSON
Schema for editors (`lbt-sim schema`) is made from it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

__all__ = [
    "AgentFile",
    "BudgetSpec",
    "CastSpec",
    "ClassroomFile",
    "DiscussionSpec",
    "EdgeSpec",
    "ExamSpec",
    "KnowledgeSpec",
    "LessonSpec",
    "M3Spec",
    "ModelSpec",
    "NotesSpec",
    "PersonaFile",
    "ReviseSpec",
    "SamplingSpec",
    "ScenarioFile",
    "SeatSpec",
    "SelectSpec",
    "TaskSpec",
    "TooLong",
    "TopologySpec",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
TooLong = Literal["fail", "drop_notes", "drop_exemplars"]


class Spec(BaseModel):
    """Base of all: unknown keys are refused, values are frozen, attribute docstrings become descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,  # `rounds: true` is a mistake, not one round
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


# --- agents -----------------------------------------------------------------------------------------------


class SamplingSpec(Spec):
    """How replies are drawn. What is not given stays as it is for that use (see agents/README.md)."""

    temperature: float = Field(default=0.0, ge=0.0, le=10.0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus sampling: the probability mass kept."""
    top_k: PositiveInt | None = None
    """Keep the k likeliest tokens only."""
    max_tokens: PositiveInt = 256
    """Where a reply is cut off."""


class NotesSpec(Spec):
    """What students and assistants keep in mind of what they heard."""

    keep: Literal["all", "last", "summary"] = "all"
    """`all`; `last`: the last `last` utterances, exemplars included; `summary` (students only): its own summary of
    what was said, exemplars kept. Assistants pass on all that they heard, whatever they keep in mind."""
    last: PositiveInt = 8
    """How many utterances `keep: last` keeps."""


class AgentFile(Spec):
    """An agent: a role, how it speaks, and its prompt templates, which stand beside this file."""

    kind: Literal["agent"] = "agent"
    version: Literal[1] = 1
    role: Literal["teacher", "assistant", "student", "examiner"]
    """What the agent does in the classroom."""
    title: str = ""
    """A name for people."""
    description: str = ""
    """What is special about this agent."""
    prompts: dict[str, str]
    """Use of a template -> its file, relative to this file. `lbt-sim prompts` shows what each is sent."""
    sampling: dict[str, SamplingSpec] = {}
    """Use -> how the reply is drawn; uses that are not named take the built-in values."""
    notes: NotesSpec = NotesSpec()
    """What it keeps of what it hears (students and assistants)."""
    exemplars: Literal["turns", "text"] = "turns"
    """How exemplars stand in an exam prompt: as chat turns (better for chat models) or written into the system turn."""


class TraitsSpec(Spec):
    """What a simulated learner is like; language models ignore this."""

    blind: Share = 0.0
    """Share of words that it does not know."""
    slip: Share = 0.0
    """Share of answers that it gets wrong by accident."""
    mind: str | None = None
    """Whose vocabulary and slips these are: seats that name the same mind are exact copies; without it each seat has
    its own. It also says whose forgetting it is, under `knowledge`, for every engine."""
    bias: str | None = None
    """The label that it answers when no exemplar is like the question; None: the first."""
    talk: Literal["exemplar", "silent"] = "exemplar"
    """What it says in a discussion: the exemplar that it holds nearest to its weak point, or nothing."""


class PersonaFile(Spec):
    """A persona: a paragraph that colours an agent's system prompt, and traits for simulated learners."""

    kind: Literal["persona"] = "persona"
    version: Literal[1] = 1
    title: str
    """A name for people."""
    text: str
    """One paragraph, in the second person: it is put into the agent's system prompt as it stands."""
    traits: TraitsSpec = TraitsSpec()
    """What stands for this persona in a simulated learner."""


# --- classrooms -------------------------------------------------------------------------------------------


class TopologySpec(Spec):
    """How the seats of an edge rule are wired among each other: a networkx generator, or a file."""

    name: str | None = None
    """`complete`, `ring`, `path`, `star`, `groups`, `watts_strogatz`, `barabasi_albert`, `erdos_renyi`,
    `random_regular`, `grid`."""
    params: dict[str, int | float | bool] = {}
    """The generator's own parameters, by networkx's names (`groups`: `size`)."""
    file: str | None = None
    """A GraphML file or an edge list over seat names or numbers from 0, in place of `name`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """`ring` and `{watts_strogatz: {k: 4, p: 0.1}}` and `{name: groups, size: 3}` are short forms."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and not {"params", "file"} & set(value):
            if "name" in value:
                return {"name": value["name"], "params": {k: v for k, v in value.items() if k != "name"}}
            if len(value) == 1:
                ((name, params),) = value.items()
                return {"name": name, "params": params or {}}
        return value

    @model_validator(mode="after")
    def _one_of(self) -> TopologySpec:
        if (self.name is None) == (self.file is None):
            raise ValueError("give either a topology's name or a file")
        return self


class EdgeSpec(Spec):
    """A rule that draws edges: `from` seats `to` seats, or `among` the seats of one role."""

    from_: str | None = Field(None, alias="from")
    """A role (`teacher`, `assistant`, `student`) or the name of one seat."""
    to: str | None = None
    """A role or the name of one seat."""
    among: str | None = None
    """A role: the seats are wired with each other as `topology` says."""
    kind: Literal["teaches", "discusses", "assists"]
    """`teaches`: from a teacher (from an assistant it means `assists`); `assists`: an assistant passes on what it
    heard; `discusses`: both ways."""
    split: Literal["all", "even"] = "all"
    """`even`: the `to` seats are dealt out evenly over the `from` seats; `all`: everyone to everyone."""
    topology: TopologySpec = TopologySpec(name="complete")
    """With `among`."""

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="after")
    def _one_of(self) -> EdgeSpec:
        if (self.among is None) == (self.from_ is None or self.to is None):
            raise ValueError("give either `among`, or both `from` and `to`")
        return self


class ClassroomFile(Spec):
    """A classroom: seats and the edges that decide who hears whom."""

    kind: Literal["classroom"] = "classroom"
    version: Literal[1] = 1
    title: str = ""
    """A name for people."""
    description: str = ""
    """What this wiring is for."""
    seats: dict[Literal["teacher", "assistant", "student"], PositiveInt | Literal["*"]] = {"teacher": 1, "student": "*"}
    """Role -> how many seats; `"*"`: as many as the scenario casts."""
    edges: list[EdgeSpec] = []
    """Rules that draw the edges, in order."""
    file: str | None = None
    """A GraphML file or edge list with the whole graph (node attribute `role`, edge attribute `kind`), in place of
    `edges`."""


# --- scenarios --------------------------------------------------------------------------------------------


class ModelSpec(BaseModel):
    """A model and the engine that runs it; the other keys are the engine's own."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    engine: str
    """`llamacpp`, `openai`, `simulated`, `scripted`, or one that an installed package adds."""


class TaskSpec(Spec):
    """Where problems come from (exactly one source) and how they are asked and graded."""

    name: str | None = None
    """A built-in generator: `reviews` or `arithmetic`."""
    jsonl: str | list[str] | None = None
    """JSON Lines: one file that is split, or [train, held-out]. Found beside the scenario, in the working
    directory, or under `--data`."""
    csv: str | list[str] | None = None
    """CSV with a header row: one file or [train, held-out]."""
    dataset: str | None = None
    """A Hugging Face dataset id (extra `hub`)."""
    config: str | None = None
    """With `dataset`: the configuration."""
    splits: list[str] = ["train", "test"]
    """With `dataset`: the splits used as train and held-out."""
    revision: str | None = None
    """With `dataset`: a commit to pin."""
    title: str | None = None
    """What to call the task."""
    question: str | None = None
    """The field that holds the question, or a Jinja template over a row's fields."""
    answer: str | None = None
    """The field that holds the answer or label."""
    answer_pattern: str | None = None
    """A regular expression whose first group is the answer within that field."""
    rationale: str | None = None
    """The field that holds a worked solution."""
    family: str | None = None
    """The field that says what kind of problem a row is."""
    instruction: str | None = None
    """What is asked, in a sentence or two; stands in the agents' prompts."""
    labels: dict[str, str] | list[str] | None = None
    """The label set: a list, or a mapping of the data's values to the words that are answered."""
    positive: str | None = None
    """The label that F1 is computed for; without it the first label."""
    grader: str | None = None
    """How answers are graded: `labels`, `exact`, `number`, `math`, `rubric`, or a grader that an installed package
    adds; without it `labels` where there are labels, else `exact`."""
    rubric: str | None = None
    """With `rubric`: what a right answer contains, for the examiner's model."""
    train: PositiveInt | None = None
    """How many problems to teach and examine with; without it all."""
    held_out: PositiveInt | None = None
    """How many problems are kept for reporting; without it all, or a fifth of one file."""
    duplicates: Literal["error", "drop"] = "error"
    """A text that stands in both splits: an error, or dropped from train."""
    seed: int | None = None
    """Which problems are generated or sampled; without it the same for every run seed."""
    options: dict[str, int | float | str | bool] = {}
    """Options of a generator."""


class KnowledgeSpec(Spec):
    """Which of the worked examples that it hears stay with a student or an assistant; for any engine.

    What does not stay is in none of its prompts, and it cannot pass it on.
    """

    share: Share = 1.0
    """Share of the worked examples that stays with it. Which ones is drawn by the run's seed, its name (or the `mind`
    of its traits) and the example's question: the same example is kept or lost in every round alike."""
    without: list[str] = []
    """Families of problems whose worked examples never stay with it."""


class SeatSpec(Spec):
    """Who sits on a seat (or on `count` seats)."""

    agent: str | None = None
    """An agent of `agents/`; without it the role's own."""
    model: str | None = None
    """A name under `models`; without it the first."""
    persona: str | None = None
    """A persona of `agents/personas/`."""
    name: Name | None = None
    """What to call the agent; without it the persona's or the role's name, numbered."""
    count: PositiveInt = 1
    """How many of them."""
    sampling: dict[str, SamplingSpec] = {}
    """Overrides of the agent's sampling."""
    traits: TraitsSpec | None = None
    """Overrides of the persona's traits."""
    knowledge: KnowledgeSpec | None = None
    """Students and assistants: what of the worked examples stays with it; without it all."""


class CastSpec(Spec):
    """Who is in the room."""

    teacher: SeatSpec | list[SeatSpec] = SeatSpec()
    """The teacher, or several."""
    assistants: list[SeatSpec] = []
    """Assistants: they pass on what they hear."""
    students: list[SeatSpec] | Literal["teacher"] = [SeatSpec()]
    """The students; `teacher`: the teacher is its own student (its model, its persona, the way it answers)."""
    examiner: SeatSpec = SeatSpec()
    """Sets and grades the exam. Its model is only used where the exam or the rubric needs one."""


class DiscussionSpec(Spec):
    """How students talk after the lesson."""

    turns: int = Field(default=0, ge=0, le=100)
    """How often each student speaks."""
    mode: Literal["talk", "recite"] = "talk"
    """`talk`: the model writes what it says; `recite`: it passes on exemplars that it heard, word for word."""
    recite: PositiveInt = 1
    """With `recite`: how many exemplars a turn."""


class LessonSpec(Spec):
    """What happens before the exam."""

    questions: int = Field(default=0, ge=0, le=10)
    """How many questions each student may ask whoever teaches it."""
    discussion: DiscussionSpec = DiscussionSpec()
    """The talk among students that are joined by `discusses` edges; a number is short for `turns`."""
    material: Literal["shared", "split", "jigsaw"] = "shared"
    """`shared`: everyone is taught all of it; `split`: each of several teachers teaches its part; `jigsaw`: each
    student of a group hears one part, and the group all parts. A lecture is always shared."""
    assistants: Literal["relay", "reword"] = "relay"
    """How assistants pass on material: word for word, or in their own words."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("discussion"), int):
            return {**value, "discussion": {"turns": value["discussion"]}}
        return value


class ExamSpec(Spec):
    """The exam of a round."""

    problems: PositiveInt = 24
    """How many problems each student answers."""
    set_by: Literal["sampled", "fixed", "written"] = "sampled"
    """`sampled` from train anew each round; `fixed`: the same each round; `written` by the examiner's model and
    checked."""
    ids: list[str] = []
    """With `fixed`: the problems' ids; without it the first `problems` of a seeded shuffle."""
    checks: PositiveInt = 3
    """With `written`: how many times the examiner solves a new problem; all must agree with its own answer."""

    @field_validator("ids")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        if len(set(value)) != len(value):
            raise ValueError("a problem stands here more than once")
        return value

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, (str, float)):
            raise ValueError(f"found {value!r}; wanted a whole number of problems, or a mapping")  # noqa: TRY004 - pydantic's way
        return {"problems": value} if isinstance(value, int) and not isinstance(value, bool) else value


class ReviseSpec(Spec):
    """How the teacher revises its material."""

    operators: list[Literal["rewrite", "choose"]] = ["rewrite"]
    """`rewrite`: reflect, then write the material anew; `choose`: pick exemplars from the pool led by the failures.
    None of them: a control; the class is taught and examined, and the material stays as it is."""
    reflections: PositiveInt = 4
    """Reflections for each material of the beam; each gives `rewrites` candidates."""
    rewrites: PositiveInt = 1
    """Candidates written from one reflection."""
    chosen: PositiveInt = 4
    """Candidates that `choose` makes from each material."""
    swaps: PositiveInt = 2
    """With `choose`: how many exemplars are exchanged at most."""
    menu: int = Field(default=6, ge=2, le=9)
    """With `choose`: how many problems are offered for each exchange."""
    failures: PositiveInt = 4
    """Failures shown in one reflection."""
    mix: PositiveInt = 1
    """Reflections put together into one rewrite."""
    keep: PositiveInt | None = None
    """A cap on new candidates of one material; more are drawn at random."""
    feedback: Literal["failures", "none", "shuffled"] = "failures"
    """`none`: a control; as many calls, but the teacher is told of random problems instead of the failures.
    `shuffled`: another; it is told of the failures of another run's class (`donor`) instead of its own's."""
    donor: str | None = None
    """With `shuffled`: the run folder whose failures are shown, relative to the working directory. A new run reads it
    once and keeps what it read."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value == "none":
            return {"operators": []}
        return {"operators": [value] if isinstance(value, str) else value} if isinstance(value, (str, list)) else value


class SelectSpec(Spec):
    """How the beam is chosen among the candidates: by the teacher's own score on train problems."""

    by: Literal["teacher", "students"] = "teacher"
    """Whose score decides."""
    metric: Literal["accuracy", "probability", "f1"] = "accuracy"
    """What the score is. `probability`: mean probability of the right label, which tells candidates apart with fewer
    answers where the engine gives log-probabilities (elsewhere it is the accuracy)."""
    ties: Literal["likelihood", "first"] = "likelihood"
    """Who wins among equal scores: whose right labels are likelier (where the engine gives log-probabilities), or
    who came first, the beam before new candidates."""
    strategy: Literal["race", "halving", "uniform", "successive_rejects", "ucb"] = "race"
    """`race`: successive halving in blocks with a paired race; `uniform`: everyone the same problems."""
    budget: PositiveInt = 240
    """Answers to spend on all candidates of a round together, of everyone whose score decides."""
    spend: Literal["needed", "all"] = "needed"
    """`all`: what the budget has left once the choice is made is answered by the winner, and changes nothing; for
    studies in which every arm has to cost the same."""
    block: PositiveInt = 8
    """The least number of common problems before anyone is dropped."""
    rescore: int = Field(default=24, ge=0)
    """Train problems that are set aside: nothing is taught, examined or selected with them, and the winner of each
    round is scored anew on them, on top of `budget`. At most a fifth of train; 0: not done."""


class M3Spec(Spec):
    """M3: reflect on the students' failures, revise the material, keep what helps the teacher."""

    name: Literal["m3"] = "m3"
    preset: Literal["default", "paper", "published-code"] = "default"
    """Where values that are not given come from."""
    rounds: int = Field(default=4, ge=0, le=1000)
    """Rounds of revision; round 0 is the initial material."""
    material: Literal["exemplars", "lecture"] = "exemplars"
    """What the teacher teaches with."""
    start: Literal["sampled", "written"] = "sampled"
    """The initial exemplars: sampled from train, or written by the teacher from the task alone. A first lecture is
    always written."""
    exemplars: int = Field(default=8, ge=1, le=1000)
    """Exemplars in a set."""
    beam: PositiveInt = 2
    """Materials kept from round to round."""
    exam: ExamSpec = ExamSpec()
    """The exam of a round; a number is short for `problems`."""
    revise: ReviseSpec = ReviseSpec()
    """How new candidates are made; a list of operators is a short form, `none` is short for no operators."""
    select: SelectSpec = SelectSpec()
    """How the beam is chosen."""


class BudgetSpec(Spec):
    """What a run may spend at most, and how many calls may give up."""

    calls: PositiveInt | None = None
    """Model calls; the run stops, resumable, before one more."""
    tokens: PositiveInt | None = None
    """Prompt and completion tokens together."""
    failed: Share = 0.05
    """Share of a step's calls that may give up; above it the run stops, resumable. One call alone never stops it."""


class ScenarioFile(Spec):
    """A scenario: a task, a cast, a classroom, a method, a budget."""

    kind: Literal["scenario"] = "scenario"
    version: Literal[1] = 1
    title: str = ""
    """A name for people."""
    description: str = ""
    """What to look at."""
    models: dict[Name, ModelSpec] = Field(min_length=1)
    """Name -> a model and its engine."""
    task: TaskSpec
    """What is taught."""
    classroom: str | ClassroomFile = "star"
    """A classroom of `classrooms/`, or one written here."""
    cast: CastSpec = CastSpec()
    """Who is in the room."""
    lesson: LessonSpec = LessonSpec()
    """What happens before the exam."""
    method: M3Spec = M3Spec()
    """What is done with the classroom."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """The run's seed: every random choice comes from it."""
    budget: BudgetSpec = BudgetSpec()
    """What may be spent."""
    too_long: TooLong = "fail"
    """What happens to a prompt that, with the reply's `max_tokens`, is longer than the model's context. `fail`: the
    call gives up. `drop_notes`: the oldest remarks (what was said in words, a lecture too) are left out until it fits.
    `drop_exemplars`: the worked examples heard first are left out. One decision for all items of an exam, a notice
    each time; what does not fit with nothing left to drop gives up."""
