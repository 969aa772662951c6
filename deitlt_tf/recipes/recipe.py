"""The typed settings of a run, and the only function that reads them from flags.

    {flag: value}  ->  read(flags)  ->  Recipe(data, student, teacher, federated, run)

Every flag of a recipe sets exactly one field, which a test checks. A field has the meaning, unit and default of its
flag; `recipes.flags` states them. Libraries take single fields as keywords and never see the classes of this module,
except in the rooms that run a whole recipe: training, federated, serving, report, inspect_data.
"""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deitlt_tf.recipes.flags import DEFAULTS, EARLIER, FREE, GROUPS, PATHS, TEACHER

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
class Data:
    """Where the images are, which of them are used, and how they are read.

    max_pixels: largest height x width of an image. decoded_bytes: most memory for decoded training images.
    """

    name: str
    data_dir: str
    train_list: str
    val_list: str
    test_list: str
    image_root: str
    class_names_file: str
    taxonomy_file: str
    table: tuple[str, ...]
    rank: str
    keep: str
    min_images: int
    max_images: int
    split_by: str
    test_where: str
    test_fraction: float
    val_fraction: float
    split_seed: int
    imbalance: float
    imbalance_type: str
    imbalance_seed: int
    download: bool
    skip_bad_images: bool
    max_pixels: int
    decoded_bytes: float
    resize: str

    def source(self) -> dict[str, Any]:
        """Keywords of `data.sources.load`."""
        names = (
            *("data_dir", "train_list", "val_list", "test_list", "image_root", "class_names_file", "taxonomy_file"),
            *("table", "rank", "keep", "min_images", "max_images", "split_by", "test_where", "test_fraction"),
            *("val_fraction", "split_seed", "imbalance", "imbalance_type", "imbalance_seed", "download"),
        )
        return {name: getattr(self, name) for name in names}

    def loading(self) -> dict[str, Any]:
        """Keywords of `runs.data.load_splits`, except the folder."""
        reading = {"skip_bad_images": self.skip_bad_images, "max_pixels": self.max_pixels}
        return {"name": self.name} | reading | self.source()


@dataclass(frozen=True)
class View:
    """The views of an image for one network. image_size: side of the input, pixels. randaugment: timm's notation."""

    image_size: int
    crop: str
    crop_min_scale: float
    padding: int
    flip: bool
    randaugment: str
    erasing: float
    eval_resize: int

    def training(self, *, resize: str) -> dict[str, Any]:
        """Keywords of `data.augment.training_view`."""
        names = ("image_size", "crop", "crop_min_scale", "padding", "flip", "randaugment", "erasing")
        return {name: getattr(self, name) for name in names} | {"resize": resize}


@dataclass(frozen=True)
class SecondView:
    """The settings of the teacher's second view that differ from the first, for objectives that compare two views."""

    randaugment: str
    erasing: float

    def settings(self) -> dict[str, Any]:
        """`second` of `data.augment.with_second_view`."""
        return {"randaugment": self.randaugment, "erasing": self.erasing}


@dataclass(frozen=True)
class Batch:
    """The batch of one optimiser step.

    size: images, over all devices and parts. sampling: shares of the classes, see `data.pipeline.train`.
    accumulation: parts that each device computes one after the other. repeats: views of one image.
    """

    size: int
    sampling: str
    accumulation: int = 1
    repeats: int = 1


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

    With the method quick the student is a frozen `backbone` with a cosine head; with adapt it is the network of
    --init, or without it the backbone, of which few weights are trained.
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

    @property
    def plain(self) -> bool:
        """Whether the network has one head, which needs no teacher."""
        return self.method not in ("deit_lt", "deit")

    @property
    def frozen(self) -> bool:
        """Whether the network is a pre-trained backbone with a head, and not a ViT trained from scratch."""
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
    def adapts_backbone(self) -> bool:
        """Whether the network is the `backbone`, by its name, and not a Vision Transformer from a file (--init)."""
        return self.adapts and not self.network.init

    @property
    def model(self) -> str:
        """Name of the network for `models.build`."""
        if self.frozen or self.adapts_backbone:
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


@dataclass(frozen=True)
class Clients:
    """Who takes part: `count` clients that share one data set, or one client for each folder of `dirs`."""

    count: int
    dirs: tuple[str, ...]
    alpha: float
    partition_seed: int
    fraction: float


@dataclass(frozen=True)
class Rounds:
    """How many rounds there are, and what a client does in one. proximal: FedProx's mu."""

    count: int
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    proximal: float


@dataclass(frozen=True)
class FederatedHeads:
    """FedLoGe's parts (fixed head, local heads, GLA-FR), the zeros and norm of the fixed head, GLA-FR's length."""

    fixed: bool
    local: bool
    realign: bool
    sparsity: float
    norm: float
    length: float


@dataclass(frozen=True)
class Federated:
    """Clients that train one network together. network: cnn, the teacher's, or vit, the student's."""

    method: str
    network: str
    clients: Clients
    rounds: Rounds
    heads: FederatedHeads

    @property
    def has_fixed_head(self) -> bool:
        """Whether SSE-C trains the features."""
        return self.method == "fedloge" and self.heads.fixed

    @property
    def has_local_heads(self) -> bool:
        """Whether each client keeps a head of its own."""
        return self.method == "fedloge" and self.heads.local

    @property
    def proximal(self) -> float:
        """FedProx's mu; 0 for the other methods."""
        return self.rounds.proximal if self.method == "fedprox" else 0.0


@dataclass(frozen=True)
class Run:
    """The folder of the run, its seed, and its devices."""

    workdir: str
    seed: int
    strategy: str
    worker_timeout: float
    logical_cpus: int
    precision: str
    deterministic: bool
    checkpoint_seconds: float
    eval_every: int
    traceback: bool

    @property
    def folder(self) -> Path:
        """`workdir` as a path."""
        return Path(self.workdir)

    def devices(self) -> dict[str, Any]:
        """Keywords of `devices.strategy.running`."""
        return {"name": self.strategy, "logical_cpus": self.logical_cpus, "timeout_seconds": self.worker_timeout}

    def numerics(self) -> dict[str, Any]:
        """Keywords of `devices.strategy.prepare`."""
        return {"seed": self.seed, "precision": self.precision, "deterministic": self.deterministic}


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
        data=_data(flags),
        student=_student(flags),
        teacher=_teacher(flags),
        federated=_federated(flags),
        run=_run(flags),
        flags=dict(flags),
        explicit_flags=frozenset(explicit_flags),
        lengths=lengths or {},
    )
    if recipe.student.distillation.teacher_sees == "clean" and recipe.student.distillation.kind == "soft":
        raise ValueError("--teacher_sees=clean mixes classes of the teacher, not logits: it needs --distillation=hard.")
    return recipe


def _data(flags: Mapping[str, Any]) -> Data:
    return Data(
        name=flags["data"],
        data_dir=flags["data_dir"],
        train_list=flags["train_list"],
        val_list=flags["val_list"],
        test_list=flags["test_list"],
        image_root=flags["image_root"],
        class_names_file=flags["class_names_file"],
        taxonomy_file=flags["taxonomy_file"],
        table=tuple(filter(None, flags["table"].split(","))),
        rank=flags["rank"],
        keep=flags["keep"],
        min_images=flags["min_images"],
        max_images=flags["max_images"],
        split_by=flags["split_by"],
        test_where=flags["test_where"],
        test_fraction=flags["test_fraction"],
        val_fraction=flags["val_fraction"],
        split_seed=flags["split_seed"],
        imbalance=flags["imbalance"],
        imbalance_type=flags["imbalance_type"],
        imbalance_seed=flags["imbalance_seed"],
        download=flags["download"],
        skip_bad_images=flags["skip_bad_images"],
        max_pixels=int(flags["max_megapixels"] * 1e6),
        decoded_bytes=flags["decoded_mb"] * 1e6,
        resize=flags["resize"],
    )


def _student(flags: Mapping[str, Any]) -> Student:
    return Student(
        method=flags["method"],
        baseline=flags["baseline"],
        network=Transformer(
            model=flags["model"],
            patch_size=flags["patch_size"],
            stem=flags["stem"],
            depth=flags["depth"],
            embed_dim=flags["embed_dim"],
            num_heads=flags["num_heads"],
            drop_path=flags["drop_path"],
            mean=_numbers(flags, "mean"),
            std=_numbers(flags, "std"),
            activation=flags["activation"],
            init=flags["init"],
        ),
        backbone=Backbone(name=flags["backbone"], head_scale=flags["head_scale"], features=flags["feature_dir"]),
        adaptation=Adaptation(tune=flags["tune"], rank=flags["adapter_rank"], head_init=flags["head_init"]),
        five_crops=flags["five_crops"],
        view=View(
            image_size=flags["image_size"],
            crop=flags["crop"],
            crop_min_scale=flags["crop_min_scale"],
            padding=flags["padding"],
            flip=flags["flip"],
            randaugment=flags["randaugment"],
            erasing=flags["erasing"],
            eval_resize=flags["eval_resize"],
        ),
        batch=Batch(
            size=flags["batch_size"],
            sampling=flags["sampling"],
            accumulation=flags["accumulation"],
            repeats=flags["repeats"],
        ),
        mixing=Mixing(
            mixup=flags["mixup"],
            cutmix=flags["cutmix"],
            probability=flags["mix_prob"],
            switch_probability=flags["switch_prob"],
            smoothing=flags["smoothing"],
        ),
        schedule=StudentSchedule(
            epochs=flags["epochs"],
            lr=flags["lr"],
            lr_rule=flags["lr_rule"],
            warmup_epochs=flags["warmup_epochs"],
            warmup_lr=flags["warmup_lr"],
            min_lr=flags["min_lr"],
            weight_decay=flags["weight_decay"],
            clip_norm=flags["clip_norm"],
            ema_decay=flags["ema_decay"],
            ema_warmup=flags["ema_warmup"],
            reweight_epoch=flags["reweight_epoch"],
            beta=flags["beta"],
            mixing_off=flags["mixing_off"],
        ),
        distillation=Distillation(
            kind=flags["distillation"],
            teacher_sees=flags["teacher_sees"],
            temperature=flags["temperature"],
            alpha=flags["alpha"],
            guidance=flags["guidance"],
        ),
        logit_adjustment=flags["logit_adjustment"],
    )


def _teacher(flags: Mapping[str, Any]) -> Teacher:
    return Teacher(
        path=flags["teacher"],
        labels=flags["teacher_labels"],
        workdir=flags["teacher_workdir"],
        network=Cnn(
            model=flags["teacher_model"],
            classifier=flags["teacher_classifier"],
            mean=_numbers(flags, "teacher_mean"),
            std=_numbers(flags, "teacher_std"),
            init=flags["teacher_init"],
        ),
        view=View(
            image_size=flags["teacher_image_size"],
            crop=flags["teacher_crop"],
            crop_min_scale=flags["teacher_crop_min_scale"],
            padding=flags["teacher_padding"],
            flip=flags["teacher_flip"],
            randaugment=flags["teacher_randaugment"],
            erasing=flags["teacher_erasing"],
            eval_resize=flags["teacher_eval_resize"],
        ),
        second_view=SecondView(
            randaugment=flags["teacher_second_randaugment"],
            erasing=flags["teacher_second_erasing"],
        ),
        batch=Batch(size=flags["teacher_batch_size"], sampling=flags["teacher_sampling"]),
        schedule=TeacherSchedule(
            epochs=flags["teacher_epochs"],
            lr=flags["teacher_lr"],
            shape=flags["teacher_schedule"],
            drops=_by_epoch(flags, "teacher_drops"),
            warmup_epochs=flags["teacher_warmup_epochs"],
            momentum=flags["teacher_momentum"],
            l2=flags["teacher_l2"],
            clip_norm=flags["teacher_clip_norm"],
            reweight_epoch=flags["teacher_reweight_epoch"],
            beta=flags["teacher_beta"],
        ),
        sam=Sam(
            rho=flags["teacher_rho"],
            rho_steps=_by_epoch(flags, "teacher_rho_steps"),
            flat_below=flags["teacher_flat_below"],
        ),
        objective=TeacherObjective(
            loss=flags["teacher_loss"],
            max_margin=flags["teacher_max_margin"],
            scale=flags["teacher_scale"],
            temperature=flags["teacher_temperature"],
            queue=flags["teacher_queue"],
            dim=flags["teacher_dim"],
            alpha=flags["teacher_alpha"],
            consistency=flags["teacher_consistency"],
            label_power=flags["teacher_label_power"],
            consistency_epochs=flags["teacher_consistency_epochs"],
        ),
    )


def _federated(flags: Mapping[str, Any]) -> Federated:
    return Federated(
        method=flags["federated_method"],
        network=flags["federated_network"],
        clients=Clients(
            count=flags["federated_clients"],
            dirs=tuple(flags["federated_client_dirs"]),
            alpha=flags["federated_alpha"],
            partition_seed=flags["federated_partition_seed"],
            fraction=flags["federated_fraction"],
        ),
        rounds=Rounds(
            count=flags["federated_rounds"],
            epochs=flags["federated_epochs"],
            batch_size=flags["federated_batch_size"],
            lr=flags["federated_lr"],
            momentum=flags["federated_momentum"],
            proximal=flags["federated_proximal"],
        ),
        heads=FederatedHeads(
            fixed=flags["federated_fixed_head"],
            local=flags["federated_local_head"],
            realign=flags["federated_realign"],
            sparsity=flags["federated_sparsity"],
            norm=flags["federated_head_norm"],
            length=flags["federated_length"],
        ),
    )


def _run(flags: Mapping[str, Any]) -> Run:
    return Run(
        workdir=flags["workdir"],
        seed=flags["seed"],
        strategy=flags["strategy"],
        worker_timeout=flags["worker_timeout"],
        logical_cpus=flags["logical_cpus"],
        precision=flags["precision"],
        deterministic=flags["deterministic"],
        checkpoint_seconds=flags["checkpoint_seconds"],
        eval_every=flags["eval_every"],
        traceback=flags["traceback"],
    )


def _numbers(flags: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """The numbers of --name=1,2,3."""
    try:
        return tuple(_finite(value) for value in flags[name])
    except ValueError:
        raise ValueError(f"--{name}={','.join(flags[name])} is not a list of numbers.") from None


def _by_epoch(flags: Mapping[str, Any], name: str) -> dict[int, float]:
    """{epoch: number} of --name=epoch:number,epoch:number."""
    text = ",".join(flags[name])
    try:
        pairs = [(int(epoch), _finite(number)) for epoch, number in (entry.split(":") for entry in flags[name])]
    except ValueError:
        raise ValueError(f"--{name}={text} is not of the form epoch:number,epoch:number.") from None
    by_epoch = dict(pairs)
    if len(by_epoch) < len(pairs) or any(epoch < 0 or number < 0 for epoch, number in pairs):
        raise ValueError(f"--{name}={text}: epochs and numbers have to be at least 0, and every epoch stands once.")
    return by_epoch


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
