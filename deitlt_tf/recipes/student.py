"""The settings of the student: network, views, batches, mixing, schedule and distillation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from deitlt_tf.recipes import values
from deitlt_tf.recipes.views import Batch, View


@dataclass(frozen=True)
class Mixing:
    """Mixup, CutMix and smoothing of the student's batches."""

    mixup: float
    cutmix: float
    probability: float
    switch_probability: float
    smoothing: float

    def keywords(self) -> dict[str, float]:
        """Keywords of `mixing.mix`."""
        return {
            "mixup_alpha": self.mixup,
            "cutmix_alpha": self.cutmix,
            "probability": self.probability,
            "switch_probability": self.switch_probability,
            "smoothing": self.smoothing,
        }


@dataclass(frozen=True)
class Transformer:
    """The student's network. depth, embed_dim, num_heads: 0 = the model's own. init: weights to start from."""

    model: str
    patch_size: int
    stem: str
    depth: int
    embed_dim: int
    num_heads: int
    drop_path: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    activation: str
    init: str


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network with a cosine head.

    head_scale: factor of the cosines. features: folder where features of images are kept; "": in that of the run.
    """

    name: str
    head_scale: float
    features: str


@dataclass(frozen=True)
class Adaptation:
    """What the method adapt trains of a pre-trained network.

    tune: what is trained besides the head. rank: of adapters; 0: by the rule. head_init: file of class embeddings; "":
    class means.
    """

    tune: str
    rank: int
    head_init: str


@dataclass(frozen=True)
class StudentSchedule:
    """The student's epochs, learning rate and regularisation, and the epoch K from which its loss is re-weighted."""

    epochs: int
    lr: float
    lr_rule: str
    warmup_epochs: float
    warmup_lr: float
    min_lr: float
    weight_decay: float
    clip_norm: float
    ema_decay: float
    ema_warmup: bool
    reweight_epoch: int
    beta: float
    mixing_off: bool


@dataclass(frozen=True)
class Distillation:
    """How DIST learns from the teacher. alpha: share of this loss in the whole loss. guidance: W, at the first step."""

    kind: str
    teacher_sees: str
    temperature: float
    alpha: float
    guidance: float


@dataclass(frozen=True)
class Student:
    """The Vision Transformer. method: deit_lt, deit (no re-weighting), vit (plain, no teacher), vit_drw.

    With quick and adapt the student is a pre-trained network with a cosine head: that of --init, or without it the
    `backbone`. With quick the head alone is trained, with adapt a few other weights, too.
    five_crops: pixels by which an image is larger than its five crops at test time; 0: one crop only.
    """

    method: str
    baseline: bool
    network: Transformer
    backbone: Backbone
    adaptation: Adaptation
    view: View
    five_crops: int
    batch: Batch
    mixing: Mixing
    schedule: StudentSchedule
    distillation: Distillation
    logit_adjustment: float

    @classmethod
    def read(cls, flags: Mapping[str, Any]) -> Self:
        """The settings of the student for these flags."""
        return cls(
            method=flags["method"],
            baseline=flags["baseline"],
            network=Transformer(
                **values.alike(Transformer, flags)
                | {"mean": values.numbers(flags, "mean"), "std": values.numbers(flags, "std")}
            ),
            backbone=Backbone(name=flags["backbone"], head_scale=flags["head_scale"], features=flags["feature_dir"]),
            adaptation=Adaptation(tune=flags["tune"], rank=flags["adapter_rank"], head_init=flags["head_init"]),
            five_crops=flags["five_crops"],
            view=View.read(flags),
            batch=Batch(size=flags["batch_size"], **values.alike(Batch, flags)),
            mixing=Mixing(
                mixup=flags["mixup"],
                cutmix=flags["cutmix"],
                probability=flags["mix_prob"],
                switch_probability=flags["switch_prob"],
                smoothing=flags["smoothing"],
            ),
            schedule=StudentSchedule(**values.alike(StudentSchedule, flags)),
            distillation=Distillation(
                kind=flags["distillation"],
                teacher_sees=flags["teacher_sees"],
                temperature=flags["temperature"],
                alpha=flags["alpha"],
                guidance=flags["guidance"],
            ),
            logit_adjustment=flags["logit_adjustment"],
        )

    @property
    def plain(self) -> bool:
        """Whether the network has one head, which needs no teacher."""
        return self.method not in ("deit_lt", "deit")

    @property
    def frozen(self) -> bool:
        """Whether all weights of the network but its head are pre-trained ones and stay as they are."""
        return self.method == "quick"

    @property
    def adapts(self) -> bool:
        """Whether most weights of the network are pre-trained ones and stay as they are."""
        return self.method == "adapt"

    @property
    def reweight_epoch(self) -> int:
        """K: the epoch from which this method weights the loss by class; -1: never."""
        return self.schedule.reweight_epoch if self.method in ("deit_lt", "vit_drw") else -1

    @property
    def pretrained(self) -> bool:
        """Whether the network begins with pre-trained weights and a cosine head: quick and adapt."""
        return self.frozen or self.adapts

    @property
    def takes_backbone(self) -> bool:
        """Whether the network is the `backbone`, by its name, and not a Vision Transformer from a file (--init)."""
        return self.pretrained and not self.network.init

    @property
    def model(self) -> str:
        """Name of the network for `models.build`."""
        if self.takes_backbone:
            return self.backbone.name
        return self.network.model.replace("deit_", "vit_") if self.plain else self.network.model

    @property
    def peak_lr(self) -> float:
        """The peak learning rate. linear: lr x batch / 512; official: lr x batch / accumulation / 512; constant: lr."""
        schedule = self.schedule
        if schedule.lr_rule == "linear":
            return schedule.lr * self.batch.size / 512
        if schedule.lr_rule == "official":
            return schedule.lr * self.batch.size / self.batch.accumulation / 512
        return schedule.lr
