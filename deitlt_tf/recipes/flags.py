"""Every command-line flag, once: its meaning, its unit, its default. Only `command_line` and `recipe` read flags.

Unless the help of a flag says otherwise, its default is the official DeiT-LT recipe's for CIFAR-LT; the teacher's are
those of the published LDAM + DRW + SAM ResNet-32 (Saddle-LongTail).
"""

import contextlib
import math
from collections.abc import Iterator

from absl import flags

FLAGS = flags.FLAGS
GROUPS: dict[str, tuple[str, ...]] = {}  # heading -> names of its flags, in the order of their declaration


def _declared() -> list[str]:
    return [flag.name for flag in FLAGS.flags_by_module_dict().get(__name__, [])]


@contextlib.contextmanager
def _heading(text: str) -> Iterator[None]:
    """The flags that are declared inside stand under this heading."""
    before = len(_declared())
    yield
    GROUPS[text] = tuple(_declared()[before:])


class Number(flags.FloatParser):
    """A finite number; at_least and at_most are bounds that it may reach, above and below are bounds that it may not.

    `wanted` says in words which numbers are right.
    """

    def __init__(
        self,
        at_least: float | None = None,
        at_most: float | None = None,
        *,
        above: float | None = None,
        below: float | None = None,
    ):
        super().__init__(at_least, at_most)
        self.above, self.below = above, below
        bounds = {"of at least": at_least, "above": above, "of at most": at_most, "below": below}
        words = [f"{text} {bound:g}" for text, bound in bounds.items() if bound is not None]
        if at_least is not None and at_most is not None:
            words = [f"from {at_least:g} to {at_most:g}"]
        self.wanted = " ".join(["a number", " and ".join(words)]).rstrip()

    def is_outside_bounds(self, val: float) -> bool:
        return (
            not math.isfinite(val)
            or super().is_outside_bounds(val)
            or (self.above is not None and val <= self.above)
            or (self.below is not None and val >= self.below)
        )


def _number(
    name: str,
    default: float,
    text: str,
    at_least: float | None = None,
    at_most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Declare a flag that takes a `Number`. text: its help."""
    parser = Number(at_least, at_most, above=above, below=below)
    flags.DEFINE(parser, name, default, text, serializer=flags.ArgumentSerializer())


LARGEST_SEED = 2**32 - 1  # of NumPy's generator


with _heading("The data"):
    flags.DEFINE_string(
        "data",
        "folder",
        "Kind of data set: folder, list, inat, table, cifar10_lt, cifar100_lt, digits_lt or tfds:NAME.",
    )
    flags.DEFINE_string(
        "data_dir", "", "Folder of the images (a path or a URL such as gs://...), or of TensorFlow Datasets."
    )
    flags.DEFINE_string(
        "train_list", "", "With --data=list: file of `path label` lines; with inat: JSON file. Relative to --data_dir."
    )
    flags.DEFINE_string("val_list", "", "With --data=list or inat: the same for the validation split; may be left out.")
    flags.DEFINE_string("test_list", "", "With --data=list or inat: the same for the test split.")
    flags.DEFINE_string(
        "image_root", "", "With --data=list, inat or table: folder that the paths start from; default: --data_dir."
    )
    flags.DEFINE_string(
        "class_names_file", "",
        "With --data=list and with --federated_client_dirs: file of one class name a line, in label order.",
    )  # fmt: skip
    flags.DEFINE_string(
        "taxonomy_file", "",
        "CSV or TSV of the ranks above each class (genus, family, ...), for accuracy by rank; relative to the current "
        "folder, or the name of one in the package.",
    )  # fmt: skip
    flags.DEFINE_string(
        "table", "", "With --data=table: files (.parquet, .csv, .tsv), patterns or folders of them, commas between; "
        "one row an image.",
    )  # fmt: skip
    flags.DEFINE_string(
        "rank", "species", "With --data=table: rank of the classes, from species to kingdom, or a column of classes."
    )
    flags.DEFINE_string(
        "keep", "", "With --data=table: the rows that are used, such as `family == Theridiidae and year >= 2015`; "
        "empty: all.",
    )  # fmt: skip
    flags.DEFINE_integer("min_images", 1, "With --data=table: classes with fewer images are left out.", lower_bound=1)
    flags.DEFINE_integer(
        "max_images", 0, "With --data=table: images that a class keeps, one of each observation first; 0: all.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "split_by", "observation", ["observation", "camera", "place", "day", "photo"],
        "With --data=table: what lies in one split as a whole; photo: nothing, which makes tests too easy.",
    )  # fmt: skip
    flags.DEFINE_string(
        "test_where", "", "With --data=table: the rows that are the test set, such as `observed_on >= 2024-01-01` or "
        "`camera in (A7, B2)`; empty: --test_fraction.",
    )  # fmt: skip
    _number(
        "test_fraction",
        0.2,
        "Share of each class that becomes the test set where the data has neither test nor val.",
        at_least=0,
        below=1,
    )
    _number(
        "val_fraction",
        0.0,
        "Share of each class's training images that becomes the validation split.",
        at_least=0,
        below=1,
    )
    flags.DEFINE_integer(
        "split_seed", 0, "Seed of the choice of held-out images.", lower_bound=0, upper_bound=LARGEST_SEED
    )
    _number(
        "imbalance",
        1.0,
        "rho: training images are left out until the most frequent class has rho times as many as the rarest; 1: all.",
        at_least=1,
    )
    flags.DEFINE_enum(
        "imbalance_type", "exp", ["exp", "step"],
        "Profile of --imbalance: exponential, or half of the classes frequent and half rare.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "imbalance_seed", 0, "Seed of the images that --imbalance keeps; 0: official for CIFAR-LT.", lower_bound=0,
        upper_bound=LARGEST_SEED,
    )  # fmt: skip
    flags.DEFINE_bool("download", True, "Whether TensorFlow Datasets may download a data set.")
    flags.DEFINE_bool(
        "skip_bad_images", False, "Leave out images that cannot be decoded: list and count them, then go on."
    )
    _number(
        "max_megapixels", 100.0, "Images with more pixels are refused before they are decoded (image bombs).", above=0
    )
    _number(
        "decoded_mb", 512, "Training images of one size stay decoded in memory if they take at most this many MB; "
        "0: never.", at_least=0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "resize", "fast", ["fast", "exact"],
        "How views are resized. fast: area or plain bicubic; exact: antialiased bicubic, as timm does.",
    )  # fmt: skip

with _heading("The student's view of an image"):
    flags.DEFINE_integer("image_size", 224, "Side of the student's input, pixels.", lower_bound=1)
    flags.DEFINE_enum(
        "crop", "resized", ["resized", "padded", "none"],
        "resized: RandomResizedCrop; padded: shift after padding; none: resize only.",
    )  # fmt: skip
    _number("crop_min_scale", 0.08, "With --crop=resized: smallest share of the image's area.", at_least=0, at_most=1)
    flags.DEFINE_integer("padding", 4, "With --crop=padded: pixels added on each side.", lower_bound=0)
    flags.DEFINE_bool("flip", True, "Mirror images left and right with probability 1/2.")
    flags.DEFINE_string(
        "randaugment", "rand-m9-mstd0.5-inc1", "Strength of RandAugment in timm's notation; empty: none."
    )
    _number("erasing", 0.25, "Probability of random erasing.", at_least=0, at_most=1)
    flags.DEFINE_integer(
        "eval_resize", 256, "Short side before the centre crop at test time, pixels; 0: resize without a crop.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer(
        "five_crops", 0,
        "At test time also measure the mean answer to five crops, four corners and the centre, of an image whose short "
        "side is this many pixels longer than --image_size; 0: not.", lower_bound=0,
    )  # fmt: skip

with _heading("The student's network"):
    flags.DEFINE_enum(
        "method", "deit_lt", ["deit_lt", "deit", "vit", "vit_drw", "quick", "adapt"],
        "deit_lt; deit: without re-weighting; vit: plain, without a teacher; vit_drw: plain, its loss re-weighted; "
        "quick: a cosine head on a frozen pre-trained backbone; adapt: a pre-trained network, of which few weights are "
        "trained.",
    )  # fmt: skip
    flags.DEFINE_bool("baseline", False, "Also train a plain ViT with the same recipe and add its row to the tables.")
    flags.DEFINE_string("model", "deit_base", "Size of the student: deit_nano|tiny|small|base|large.")
    flags.DEFINE_integer("patch_size", 16, "Side of a patch, pixels.", lower_bound=1)
    flags.DEFINE_enum(
        "stem", "patch", ["patch", "conv"],
        "Where patches come from: one linear map of their pixels, as published (patch), or convolutions (conv), which "
        "know from the start that neighbouring pixels belong together: for students trained on few images.",
    )  # fmt: skip
    flags.DEFINE_integer("depth", 0, "Number of blocks; 0: the model's own.", lower_bound=0)
    flags.DEFINE_integer("embed_dim", 0, "Channels of a token; 0: the model's own.", lower_bound=0)
    flags.DEFINE_integer("num_heads", 0, "Attention heads; 0: the model's own.", lower_bound=0)
    _number("drop_path", 0.1, "Stochastic depth of the last block; it grows linearly from 0.", at_least=0, below=1)
    flags.DEFINE_list(
        "mean",
        ["0.485", "0.456", "0.406"],
        "Pixel mean that the first layer subtracts, for pixels in 0..1 (ImageNet's).",
    )
    flags.DEFINE_list("std", ["0.229", "0.224", "0.225"], "Pixel standard deviation that the first layer divides by.")
    flags.DEFINE_enum(
        "activation", "gelu", ["gelu", "quick_gelu"],
        "Activation of the MLPs, which no weights show: OpenAI's CLIP and what was trained from it have quick_gelu, "
        "all others gelu.",
    )  # fmt: skip
    flags.DEFINE_string(
        "init", "", "Weights to start from: FILE.keras, a PyTorch or safetensors file of CLIP, DINOv2, ViT or DeiT, or "
        "keras_hub:PRESET; positions and heads are replaced where they do not fit.",
    )  # fmt: skip

with _heading("A pre-trained network (quick, --method=adapt)"):
    flags.DEFINE_string(
        "backbone", "efficientnet_lite0",
        "Pre-trained network where --init is empty: efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2 "
        "(extra [lite]).",
    )  # fmt: skip
    _number("head_scale", 25.0, "Factor that turns the cosines of the head into logits.", above=0)
    flags.DEFINE_string(
        "feature_dir", "", "Folder where features of images are kept; runs may share one. Default: WORKDIR/features."
    )
    flags.DEFINE_enum(
        "tune", "adaptformer", ["adaptformer", "lora", "bias", "norm", "head", "all"],
        "adapt: what is trained besides the head: adapters next to each MLP, low ranks added to queries and values, "
        "all biases, all norms, nothing, or everything.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "adapter_rank", 0, "adaptformer, lora: r; 0: 2^max(0, floor(log2(classes / (2 * blocks)))).", lower_bound=0
    )
    flags.DEFINE_string(
        "head_init", "",
        "FILE.npy of a row for each class, where the head starts, with the names of the classes in FILE.txt; empty: "
        "the mean features of each class's training images.",
    )  # fmt: skip

with _heading("The student's schedule"):
    flags.DEFINE_integer(
        "epochs", 1200, "Epochs of the student: floor(N/256)*256 views each with --repeats above 1, else N. quick: 0 "
        "leaves the head where it starts.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer(
        "reweight_epoch",
        1100,
        "K: from this epoch on DIST's loss is weighted by class (DRW); -1: never.",
        lower_bound=-1,
    )
    _number("beta", 0.9999, "beta of the class-balanced weights; 0: all classes weigh the same.", at_least=0, below=1)
    flags.DEFINE_bool("mixing_off", True, "From epoch K on, no mixup, cutmix and label smoothing.")
    flags.DEFINE_integer(
        "batch_size", 1024, "Images of one optimiser step, over all devices and --accumulation.", lower_bound=1
    )
    flags.DEFINE_integer(
        "accumulation", 1, "Parts that each device computes its batch in, one after the other, to save memory.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum(
        "sampling", "instance", ["instance", "sqrt", "class_balanced"],
        "How often a class is shown: as often as it has images; by their square root; every class equally often.",
    )  # fmt: skip
    flags.DEFINE_integer("repeats", 3, "Repeated augmentation: views of one image in a batch; 1: none.", lower_bound=1)
    _number("lr", 1.25e-4, "Learning rate before --lr_rule is applied.", above=0)
    flags.DEFINE_enum(
        "lr_rule", "linear", ["linear", "official", "constant"],
        "Peak learning rate = lr * batch_size / 512 (linear), lr * batch_size / accumulation / 512 (official) or lr.",
    )  # fmt: skip
    _number("warmup_epochs", 5, "Epochs of linear warm-up.", at_least=0)
    _number("warmup_lr", 1e-6, "Learning rate at step 0.", at_least=0)
    _number("min_lr", 1e-5, "Learning rate at the end of the cosine.", at_least=0)
    _number(
        "weight_decay", 0.05, "Decay of AdamW; biases, 1-D weights, tokens and position embedding are exempt. adapt: "
        "coupled decay of SGD.",
        at_least=0,
    )  # fmt: skip
    _number("clip_norm", 0.0, "Largest global norm of the gradient; 0: not clipped.", at_least=0)
    _number(
        "ema_decay",
        0.99996,
        "Decay of the moving average of the student's weights; 0: no average.",
        at_least=0,
        below=1,
    )
    flags.DEFINE_bool(
        "ema_warmup", True,
        "The moving average begins near the current weights: its decay after t steps is at most (1 + t) / (10 + t).",
    )  # fmt: skip

with _heading("The student's loss"):
    _number("alpha", 0.5, "Share of the distillation loss in the total loss.", at_least=0, at_most=1)
    flags.DEFINE_enum(
        "distillation", "hard", ["hard", "soft"], "DIST learns the teacher's class (hard) or its distribution (soft)."
    )
    _number("temperature", 3.0, "Temperature tau of soft distillation.", at_least=1e-3)
    flags.DEFINE_enum(
        "teacher_sees", "mixed", ["mixed", "clean"],
        "mixed: the teacher sees the student's view; clean: the same crop and mirror image before mixing, RandAugment "
        "and erasing; DIST then learns the teacher's two classes of a mixed view by their shares. clean needs "
        "--distillation=hard.",
    )  # fmt: skip
    _number(
        "guidance", 0.0,
        "Weight of locality guidance: for a while the student's patches learn to look like the teacher's feature maps. "
        "It falls to 0 at --reweight_epoch, or the last epoch; 2.5 shortens training, 0: none.",
        at_least=0,
    )  # fmt: skip
    _number("logit_adjustment", 0.0, "tau: the loss of CLS sees logits + tau log(class share); 1: balanced softmax.")
    _number("mixup", 0.8, "Alpha of mixup; 0: off.", at_least=0)
    _number("cutmix", 1.0, "Alpha of cutmix; 0: off.", at_least=0)
    _number("mix_prob", 1.0, "Probability that a batch is mixed.", at_least=0, at_most=1)
    _number("switch_prob", 0.5, "Probability of cutmix where mixup and cutmix are both on.", at_least=0, at_most=1)
    _number("smoothing", 0.1, "Label smoothing of the targets of CLS.", at_least=0, at_most=1)

with _heading("The teacher"):
    flags.DEFINE_string("teacher", "", "A teacher.keras, or the workdir of one; empty: the teacher is trained first.")
    flags.DEFINE_string(
        "teacher_model", "resnet32",
        "Teacher's network: resnet8|20|32 and resnet18|34_cifar (small images), resnet50|101|152, resnext50; "
        "efficientnet_lite0|1|2; mdcs_resnet8|32|50 for --teacher_loss=mdcs.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "teacher_classifier", "auto", ["auto", "linear", "cosine"],
        "Teacher's classifier; auto: what --teacher_loss needs, cosine for ldam and mdcs, linear for the other losses.",
    )  # fmt: skip
    flags.DEFINE_list("teacher_mean", ["0.4914", "0.4822", "0.4465"], "Teacher's pixel mean, as --mean (CIFAR's).")
    flags.DEFINE_list("teacher_std", ["0.2023", "0.1994", "0.2010"], "Teacher's pixel standard deviation, as --std.")
    flags.DEFINE_string(
        "teacher_init", "", "Weights to start the teacher from: FILE.keras of another CNN, or pretrained:NAME for a "
        "NAME that --backbone takes.",
    )  # fmt: skip
    flags.DEFINE_string("teacher_workdir", "", "Folder of the teacher's own run; default: WORKDIR/teacher.")
    flags.DEFINE_string(
        "teacher_labels", "",
        "File of the teacher's classes of all views: the first student writes it, the next ones read it.",
    )  # fmt: skip

with _heading("The teacher's view of an image"):
    flags.DEFINE_integer(
        "teacher_image_size", 32, "Side of the teacher's input, pixels; the student's views are resized to it.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum("teacher_crop", "padded", ["resized", "padded", "none"], "Teacher's crop, as --crop.")
    _number("teacher_crop_min_scale", 0.08, "Teacher's smallest crop, as --crop_min_scale.", at_least=0, at_most=1)
    flags.DEFINE_integer("teacher_padding", 4, "Teacher's padding, as --padding.", lower_bound=0)
    flags.DEFINE_bool("teacher_flip", True, "Mirror images for the teacher, as --flip.")
    flags.DEFINE_string("teacher_randaugment", "", "Teacher's RandAugment, as --randaugment.")
    _number("teacher_erasing", 0.0, "Teacher's random erasing, as --erasing.", at_least=0, at_most=1)
    flags.DEFINE_integer("teacher_eval_resize", 0, "Teacher's view at test time, as --eval_resize.", lower_bound=0)
    flags.DEFINE_string("teacher_second_randaugment", "", "paco, mdcs, glmc: RandAugment of the teacher's second view.")
    _number(
        "teacher_second_erasing", 0.0, "paco, mdcs, glmc: random erasing of the teacher's second view.", at_least=0,
        at_most=1,
    )  # fmt: skip

with _heading("The teacher's schedule"):
    flags.DEFINE_integer("teacher_epochs", 200, "Epochs of the teacher, of N images each.", lower_bound=1)
    flags.DEFINE_integer(
        "teacher_batch_size", 128, "Images of one optimiser step of the teacher, over all devices.", lower_bound=1
    )
    flags.DEFINE_enum(
        "teacher_sampling", "instance", ["instance", "sqrt", "class_balanced"],
        "How often the teacher is shown a class, as --sampling.",
    )  # fmt: skip
    _number("teacher_lr", 0.1, "Teacher's peak learning rate.", above=0)
    flags.DEFINE_enum(
        "teacher_schedule", "drops", ["drops", "cosine"], "How the teacher's learning rate falls: by drops or a cosine."
    )
    flags.DEFINE_list(
        "teacher_drops", ["160:0.01", "180:0.0001"], "With --teacher_schedule=drops: epoch:factor of the peak."
    )
    _number("teacher_warmup_epochs", 5, "Epochs of the teacher's linear warm-up.", at_least=0)
    _number("teacher_momentum", 0.9, "Momentum of the teacher's SGD.", at_least=0, below=1)
    _number("teacher_l2", 2e-4, "Coupled weight decay of the teacher's SGD.", at_least=0)
    _number("teacher_clip_norm", 0.0, "Teacher's largest gradient norm, as --clip_norm.", at_least=0)
    flags.DEFINE_integer(
        "teacher_reweight_epoch",
        160,
        "From this epoch on the teacher's loss is weighted by class (DRW); -1: never.",
        lower_bound=-1,
    )
    _number("teacher_beta", 0.9999, "beta of the teacher's class-balanced weights, as --beta.", at_least=0, below=1)

with _heading("The teacher's loss"):
    flags.DEFINE_enum(
        "teacher_loss", "ldam", ["ce", "ldam", "balanced_softmax", "paco", "mdcs", "glmc"],
        "What the teacher is trained towards; recipes teacher_*.cfg set what belongs to each.",
    )  # fmt: skip
    _number("teacher_rho", 0.8, "Radius of SAM; 0: plain SGD.", at_least=0)
    flags.DEFINE_list("teacher_rho_steps", [], "epoch:radius of SAM from that epoch on, after --teacher_rho.")
    flags.DEFINE_integer(
        "teacher_flat_below", 0,
        "ImbSAM: SAM acts only on classes with fewer training images than this; 0: on all classes.", lower_bound=0,
    )  # fmt: skip
    _number("teacher_max_margin", 0.5, "LDAM: largest margin, given to the rarest class.", at_least=0)
    _number("teacher_scale", 30.0, "Cosine classifier: factor that turns cosines into logits, for every loss.", above=0)
    _number("teacher_temperature", 0.05, "PaCo: temperature of the similarities between images.", at_least=1e-3)
    flags.DEFINE_integer("teacher_queue", 1024, "PaCo: number of keys in the queue.", lower_bound=1)
    flags.DEFINE_integer("teacher_dim", 32, "PaCo: dimensions of the projected features.", lower_bound=1)
    _number("teacher_alpha", 0.02, "PaCo: weight of another image of the same class.", at_least=0)
    _number(
        "teacher_consistency", 0.6,
        "MDCS, GLMC: weight of the agreement of two views: 0.6 in MDCS, 1 (with SAM) to 10 in GLMC.", at_least=0,
    )  # fmt: skip
    flags.DEFINE_integer(
        "teacher_consistency_epochs", 20, "MDCS: epochs until the agreement has its full weight.", lower_bound=1
    )
    _number("teacher_label_power", 1.2, "GLMC: labels are weighted by n^-power; 1 for ImageNet-LT.", at_least=0)

with _heading("Federated training"):
    flags.DEFINE_enum(
        "federated_method", "fedloge",
        ["fedavg", "fedavg_rescaled", "fedavg_prior", "fedprox", "fedloge", "local", "central"],
        "fedavg; fedavg_rescaled: class vectors at one length afterwards; fedavg_prior: + log(client's / global class "
        "share); fedprox; fedloge; local: each client alone; central: all images in one place.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "federated_network", "cnn", ["cnn", "vit"],
        "The network that clients share: cnn, that of --teacher_model and its views, or vit, that of --model.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "federated_clients", 40, "Number of clients that the training images are divided among.", lower_bound=1
    )
    flags.DEFINE_list(
        "federated_client_dirs", [],
        "Folders of images, one of each client, in place of --data_dir divided by chance; a client has its folder's "
        "name.",
    )  # fmt: skip
    _number(
        "federated_alpha", 0.5,
        "Concentration of the Dirichlet distribution that divides each class among clients: the smaller, the more they "
        "differ.", above=0,
    )  # fmt: skip
    flags.DEFINE_integer(
        "federated_partition_seed", 3407, "Seed of the division among clients.", lower_bound=0,
        upper_bound=LARGEST_SEED,
    )  # fmt: skip
    _number("federated_fraction", 1.0, "Share of the clients that take part in a round.", above=0, at_most=1)
    flags.DEFINE_integer("federated_rounds", 500, "Rounds: clients train, the server averages.", lower_bound=1)
    flags.DEFINE_integer("federated_epochs", 5, "Epochs of a client in a round, over its own images.", lower_bound=1)
    flags.DEFINE_integer("federated_batch_size", 8, "Images of a client's optimiser step.", lower_bound=1)
    _number("federated_lr", 0.03, "Learning rate of the clients' SGD, the same in all rounds.", above=0)
    _number(
        "federated_momentum", 0.5, "Momentum of the clients' SGD; it starts at 0 in each round.", at_least=0, below=1
    )  # fmt: skip
    _number(
        "federated_proximal", 0.01, "fedprox: mu of mu / 2 |w - w_start|^2, the distance from the round's start.",
        at_least=0,
    )  # fmt: skip
    flags.DEFINE_bool(
        "federated_fixed_head", True, "fedloge: the fixed head SSE-C trains the features; off: the averaged head does."
    )
    flags.DEFINE_bool(
        "federated_local_head", True, "fedloge: each client has a head of its own, which never leaves it."
    )
    flags.DEFINE_bool("federated_realign", True, "fedloge: realign heads by their lengths after training (GLA-FR).")
    _number("federated_sparsity", 0.6, "fedloge: share of zeros in the fixed head.", at_least=0, below=1)
    _number(
        "federated_head_norm", 0.1,
        "fedloge: length of a class vector of the fixed head; up to 8 for runs of less than some hundred rounds.",
        above=0,
    )  # fmt: skip
    _number("federated_length", 1.7, "fedloge: length of the class vectors of the realigned generic model.", above=0)

with _heading("The run"):
    flags.DEFINE_string(
        "workdir", "", "Folder of the run: everything is written here, and the same command resumes it."
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of initial weights, order of images, views, mixing and drop path.", lower_bound=0,
        upper_bound=LARGEST_SEED,
    )  # fmt: skip
    flags.DEFINE_enum(
        "strategy", "none", ["none", "mirrored", "multi_worker"],
        "Devices: one; all GPUs of this machine; all GPUs of several processes that TF_CONFIG or SLURM names.",
    )  # fmt: skip
    _number(
        "worker_timeout", 600, "With --strategy=multi_worker: seconds that one operation waits for other workers.",
        at_least=1,
    )  # fmt: skip
    flags.DEFINE_integer(
        "logical_cpus", 0, "With --strategy=mirrored: number of logical devices on the CPU, for tests.", lower_bound=0
    )
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"],
        "Precision that the networks compute in; weights, logits and losses stay float32.",
    )  # fmt: skip
    flags.DEFINE_bool("deterministic", True, "Use operations that repeat bit by bit; off may be faster on a GPU.")
    _number("checkpoint_seconds", 60, "Seconds between two checkpoints.", at_least=0)
    flags.DEFINE_integer(
        "eval_every", 0, "Epochs between evaluations while training (validation split, else test); 0: none.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_bool("traceback", False, "Show Python's traceback with an error message.")

RECIPE = tuple(_declared())

with _heading("Single commands"):
    flags.DEFINE_string(
        "out",
        "",
        "Exports: file or folder to write, default: next to the model in --workdir. to_tfds: FOLDER/NAME. "
        "tabulate: FILE.parquet.",
    )
    flags.DEFINE_enum(
        "weights", "student", ["student", "ema", "best", "teacher"],
        "Exports, demo: the network to use: the student, its moving average, its best weights on the validation split, "
        "or the teacher.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "heads", "all", ["all", "mean", "cls", "dist"],
        "Exports: the logits to return; probabilities are those of the mean, or of the one head.",
    )  # fmt: skip
    flags.DEFINE_string(
        "prior", "", "Exports: adjust logits to these class shares: uniform, training, or a file of counts."
    )
    _number(
        "sure", 0.95,
        "evaluate, report: share of the answers at a rank that should be right; the threshold is chosen so on the "
        "validation split.", above=0, below=1,
    )  # fmt: skip
    flags.DEFINE_string(
        "threshold", "",
        "Exports, demo: also answer at the finest rank of the taxonomy whose probability reaches this number; auto: "
        "the one that evaluate has chosen.",
    )  # fmt: skip
    flags.DEFINE_enum("quantize", "none", ["none", "int8"], "Exports: also write a file with 8-bit weights.")
    flags.DEFINE_bool("fp16", False, "to_onnx: also write a file in half precision.")
    flags.DEFINE_enum(
        "input_type", "uint8", ["uint8", "float32"], "to_onnx, to_litert: type of the input, pixels 0..255."
    )
    flags.DEFINE_integer(
        "top_k", 5, "to_saved_model: number of likeliest classes named for an encoded image.", lower_bound=1
    )
    _number(
        "request_megapixels",
        50.0,
        "Limit of megapixels; to_saved_model: of all images of a request together, demo: of an image.",
        above=0,
    )
    flags.DEFINE_integer(
        "request_images", 64, "to_saved_model: encoded images of a request; more are refused.", lower_bound=1
    )
    flags.DEFINE_integer(
        "check_images", -1,
        "to_onnx, to_litert: test images to compare with Keras; -1: all; 0: none, random pixels instead.",
        lower_bound=-1,
    )  # fmt: skip
    flags.DEFINE_bool("decode", False, "inspect_data: decode every image as training will, not only its header.")
    _number("rate", 10.0, "fetch: requests a second to one server, at most.", above=0)
    flags.DEFINE_integer("connections", 8, "fetch: requests that wait for an answer at a time.", lower_bound=1)
    flags.DEFINE_integer(
        "tries", 5, "fetch: how often an image is asked for before it waits for the next call.", lower_bound=1
    )
    _number("max_mb", 20.0, "fetch: larger images are refused, MB.", above=0)
    flags.DEFINE_bool("again", False, "fetch: also ask for images that an earlier call has given up.")
    flags.DEFINE_string(
        "input",
        "",
        "tabulate: a Darwin Core archive, a Camtrap DP (folder or .zip), or JSON files of iNaturalist or COCO.",
    )
    flags.DEFINE_enum(
        "several", "refuse", ["refuse", "drop"],
        "tabulate: what becomes of images with several species: an error that names one, or they are left out.",
    )  # fmt: skip
    flags.DEFINE_string("checkpoint", "", "import_torch: file to import (.pth, .pt, .bin, .pth.tar, .safetensors).")
    flags.DEFINE_string(
        "class_order", "",
        "import_torch: order of the units of the head: official (sorted by frequency), as_is, or a file whose line c "
        "holds the unit of class c; empty: what the checkpoint says.",
    )  # fmt: skip
    flags.DEFINE_string(
        "to_torch", "", "import_torch: write the student of --workdir as a timm state dict to this file."
    )
    flags.DEFINE_list(
        "compare", [], "report: workdirs to compare; without --workdir, the first of them is the reference."
    )
    flags.DEFINE_integer(
        "probe_images", 512, "report: test images and mixed views, drawn at random, that the probes look at.",
        lower_bound=2,
    )  # fmt: skip
    flags.DEFINE_string(
        "host", "127.0.0.1", "demo: address to listen at; the default is reachable from this machine only."
    )
    flags.DEFINE_integer("port", 8000, "demo: port to listen at; 0: any free one.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_bool("open", False, "demo: also open the page in the default browser.")

OURS = tuple(_declared())
COMMANDS_OWN = OURS[len(RECIPE) :]  # each is taken by the commands that name it
DEFAULTS = {name: FLAGS[name].default for name in RECIPE}
# What a flags.cfg of an earlier version means that has no line for a flag, where that is not today's default.
EARLIER = {"ema_warmup": False}

# The flags that most people change first; `--help` shows them, `--helpfull` all.
FIRST = (
    *("data", "data_dir", "imbalance", "val_fraction", "skip_bad_images"),
    *("image_size", "model", "patch_size", "epochs", "reweight_epoch", "batch_size", "accumulation", "lr"),
    *("method", "baseline", "teacher", "teacher_model", "teacher_epochs"),
    *("workdir", "precision"),
)

# Flags that take a path, or several. `~` in them is the home folder; in flags.cfg, relative ones count from the folder
# that the run was started in.
PATHS = (
    *("data_dir", "train_list", "val_list", "test_list", "image_root", "class_names_file", "taxonomy_file", "init"),
    *("feature_dir", "head_init", "teacher", "teacher_init", "teacher_workdir", "teacher_labels", "workdir"),
    "federated_client_dirs",
    "table",
    *("out", "input", "prior", "checkpoint", "class_order", "to_torch", "compare"),
)

# Starts of values of --init and --teacher_init that name something other than a path.
NO_PATHS = ("keras_hub:", "pretrained:")

# What may change between two runs of the same recipe without changing its weights.
FREE = {
    *("workdir", "teacher_workdir", "teacher_labels", "checkpoint_seconds", "worker_timeout", "traceback"),
    *("feature_dir", "download", "data_dir", "image_root", "taxonomy_file", "table", "baseline", "decoded_mb"),
    "federated_client_dirs",
    *COMMANDS_OWN,
}

# What decides the weights of a teacher that is trained here: `train` and `train_teacher` share it.
TEACHER = (
    *GROUPS["The data"],
    *(name for heading in GROUPS if heading.startswith("The teacher") for name in GROUPS[heading] if name != "teacher"),
    *("seed", "precision", "deterministic"),
)
