"""The settings of the teacher: network, views, schedule, SAM and loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from deitlt_tf.recipes import values
from deitlt_tf.recipes.views import Batch, View

# {loss of the teacher: the classifiers that it can train}; the first one is what --teacher_classifier=auto means.
CLASSIFIERS = {
    "ce": ("linear", "cosine"),
    "ldam": ("cosine",),
    "balanced_softmax": ("linear", "cosine"),
    "paco": ("linear", "cosine"),
    "mdcs": ("cosine", "linear"),
    "glmc": ("linear",),
}


@dataclass(frozen=True)
class SecondView:
    """The settings of the teacher's second view that differ from the first, for objectives that compare two views."""

    randaugment: str
    erasing: float

    def settings(self) -> dict[str, Any]:
        """`second` of `data.augment.with_second_view`."""
        return {"randaugment": self.randaugment, "erasing": self.erasing}


@dataclass(frozen=True)
class Cnn:
    """The teacher's network. classifier: linear or cosine. init: .keras file of weights to start from."""

    model: str
    classifier: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    init: str


@dataclass(frozen=True)
class TeacherSchedule:
    """The teacher's epochs, learning rate and regularisation. drops: {epoch: factor of the peak}, for shape "drops"."""

    epochs: int
    lr: float
    shape: str
    drops: dict[int, float]
    warmup_epochs: float
    momentum: float
    l2: float
    clip_norm: float
    reweight_epoch: int
    beta: float


@dataclass(frozen=True)
class Sam:
    """rho: radius of SAM, 0: plain SGD. rho_steps: {epoch: radius from then on}. flat_below: threshold of ImbSAM."""

    rho: float
    rho_steps: dict[int, float]
    flat_below: int


@dataclass(frozen=True)
class TeacherObjective:
    """The teacher's loss, and the parameters of all losses; each loss uses its own."""

    loss: str
    max_margin: float
    scale: float
    temperature: float
    queue: int
    dim: int
    alpha: float
    consistency: float
    label_power: float
    consistency_epochs: int


@dataclass(frozen=True)
class Teacher:
    """The flat CNN, trained here or loaded.

    path: file or folder of a finished teacher; "": train one. labels: file of its predicted classes of all views.
    workdir: folder of its own run.
    """

    path: str
    labels: str
    workdir: str
    network: Cnn
    view: View
    second_view: SecondView
    batch: Batch
    schedule: TeacherSchedule
    sam: Sam
    objective: TeacherObjective

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Self:
        """The settings of the teacher for these flags."""
        return cls(
            path=flags["teacher"],
            labels=flags["teacher_labels"],
            workdir=flags["teacher_workdir"],
            network=Cnn(
                **values.alike(Cnn, flags, "teacher_")
                | {"mean": values.numbers(flags, "teacher_mean"), "std": values.numbers(flags, "teacher_std")}
            ),
            view=View.read(flags, prefix="teacher_"),
            second_view=SecondView(**values.alike(SecondView, flags, "teacher_second_")),
            batch=Batch(size=flags["teacher_batch_size"], sampling=flags["teacher_sampling"]),
            schedule=TeacherSchedule(
                **values.alike(TeacherSchedule, flags, "teacher_")
                | {"shape": flags["teacher_schedule"], "drops": values.by_epoch(flags, "teacher_drops")}
            ),
            sam=Sam(
                **values.alike(Sam, flags, "teacher_") | {"rho_steps": values.by_epoch(flags, "teacher_rho_steps")}
            ),
            objective=TeacherObjective(**values.alike(TeacherObjective, flags, "teacher_")),
        )
