"""All settings of a run, typed, and the only function that reads them from flags.

    {flag: value}  ->  read(flags)  ->  Recipe(data, student, teacher, federated, run)

Every flag of a recipe sets exactly one field, which a test checks. A field has the meaning, unit and default of its
flag; `recipes.flags` states them. The parts are in `recipes.data`, `student`, `teacher`, `federated` and `run`, each
with its own `read`. Libraries take single fields as keywords and never see these classes, except in the rooms that run
a whole recipe: training, federated, serving, report, inspect_data.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deitlt_tf.recipes.data import Data
from deitlt_tf.recipes.federated import Federated
from deitlt_tf.recipes.flags import DEFAULTS, EARLIER, FREE, GROUPS, PATHS, TEACHER
from deitlt_tf.recipes.run import Run
from deitlt_tf.recipes.student import Student
from deitlt_tf.recipes.teacher import CLASSIFIERS, Teacher


@dataclass(frozen=True)
class Recipe:
    """All settings of a run.

    flags: {name: value} of all flags of a recipe, from which the settings were read; "auto" is replaced by its meaning.
    explicit_flags: names of the flags that the command line or a flag file has set.
    lengths: {"epochs": (...), "teacher_epochs": (...)}: the default, then what flag files and command line have set, in
      order. A recipe's K belongs to the length that the recipe has set, and not to a later one.
    """

    data: Data
    student: Student
    teacher: Teacher
    federated: Federated
    run: Run
    flags: Mapping[str, Any] = field(repr=False)
    explicit_flags: frozenset[str] = frozenset()
    lengths: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def trains_teacher(self) -> bool:
        """Whether the student needs a teacher and --teacher does not name one."""
        return not self.student.plain and not self.teacher.path

    def changed(self, **flags: Any) -> "Recipe":
        """The recipe with other values of some flags."""
        explicit = self.explicit_flags | flags.keys()
        return read({**self.flags, **flags}, explicit_flags=explicit, lengths=self.lengths)

    def data_arguments(self) -> str:
        """The flags on the data that were set, as arguments of another command."""
        values = as_text(self.flags)
        names = [name for name in GROUPS["The data"] if name in self.explicit_flags]
        return " ".join(f"--{name}={shlex.quote(values[name])}" for name in names)

    def identity(self) -> dict[str, Any]:
        """Keywords of `runs.folder.claim`: the flags that decide whether a folder holds the run of this recipe."""
        return {"flags": as_text(self.flags), "free": FREE, "defaults": as_text(DEFAULTS | EARLIER), "paths": PATHS}

    def shared_flags(self) -> dict[str, str]:
        """{name: text} of the flags in which clients and server of a federated run agree: all but the data's."""
        own = {*FREE, *GROUPS["The data"]}
        return as_text({name: value for name, value in self.flags.items() if name not in own})

    def teacher_identity(self) -> dict[str, Any]:
        """Keywords of `runs.folder.claim` for the teacher's own run, which several recipes may share."""
        own = {name: self.flags[name] for name in TEACHER}
        return self.identity() | {"flags": as_text(own), "role": "teacher"}


def as_text(flags: Mapping[str, Any]) -> dict[str, str]:
    """{name: value as in a flag file} of these flags."""
    return {name: ",".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in flags.items()}


def read(
    flags: Mapping[str, Any],
    *,
    explicit_flags: frozenset[str] = frozenset(),
    lengths: Mapping[str, tuple[int, ...]] | None = None,
) -> Recipe:
    """The settings for these values of flags.

    flags: {name: parsed value} of every flag of a recipe. explicit_flags, lengths: see `Recipe`.
    Raises ValueError that names the flag, for a value of a wrong form or two flags that contradict each other.
    """
    if flags["teacher_classifier"] == "auto":
        flags = {**flags, "teacher_classifier": CLASSIFIERS[flags["teacher_loss"]][0]}
    recipe = Recipe(
        data=Data.read(flags),
        student=Student.read(flags),
        teacher=Teacher.read(flags),
        federated=Federated.read(flags),
        run=Run.read(flags),
        flags=dict(flags),
        explicit_flags=frozenset(explicit_flags),
        lengths=lengths or {},
    )
    if recipe.student.distillation.teacher_sees == "clean" and recipe.student.distillation.kind == "soft":
        raise ValueError("--teacher_sees=clean mixes classes of the teacher, not logits: it needs --distillation=hard.")
    return recipe
