"""Every command-line flag, once: its meaning, its unit, where its default comes from. Only programs read flags.

A recipe is a flag file: one `--name=value` a line, whole-line comments with `#`, later lines win, and
`--flagfile=other.cfg` takes in another recipe, found beside the one that names it.
Unless a line says otherwise, defaults are the official DeiT-LT recipe's for CIFAR-LT.
"""

from absl import flags

FLAGS = flags.FLAGS

# --- the run
flags.DEFINE_string("workdir", "", "Folder of the run: everything is written here, and the same command resumes it.")
flags.DEFINE_integer("seed", 0, "Seed of initial weights, order of images, views, mixing and drop path.")
flags.DEFINE_enum(
    "strategy", "none", ["none", "mirrored", "multi_worker"],
    "Devices: one, all GPUs of this machine, or all GPUs of several processes that TF_CONFIG or SLURM names.",
)  # fmt: skip
flags.DEFINE_float(
    "worker_timeout", 600, "multi_worker: seconds that one operation waits for the other workers.", lower_bound=1
)
flags.DEFINE_integer(
    "logical_cpus", 0, "With --strategy=mirrored: so many pretended devices on the CPU, for tests.", lower_bound=0
)
flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "Of the networks; losses stay float32."
)
flags.DEFINE_bool("deterministic", True, "Operations that repeat bit by bit; off may be faster on a GPU.")
flags.DEFINE_float(
    "checkpoint_seconds", 60, "A checkpoint is written at the first step after so many seconds.", lower_bound=0
)
flags.DEFINE_integer(
    "eval_every", 0, "Epochs between evaluations on the way (validation split, else test); 0: none.", lower_bound=0
)
flags.DEFINE_bool("traceback", False, "Show Python's traceback with an error message.")

# --- the data
flags.DEFINE_string("data", "folder", "folder, list, inat, cifar10_lt, cifar100_lt, digits_lt or tfds:NAME.")
flags.DEFINE_string("data_dir", "", "Folder of the images (a path or a URL: gs://...), or of TensorFlow Datasets.")
flags.DEFINE_string("train_list", "", "list: file of `path label` lines, relative to --data_dir.")
flags.DEFINE_string("val_list", "", "The same for the validation split; may be left out.")
flags.DEFINE_string("test_list", "", "The same for the test split.")
flags.DEFINE_string("image_root", "", "Folder that the paths in lists start from; default --data_dir.")
flags.DEFINE_string("class_names_file", "", "One class name a line, in the order of the labels.")
flags.DEFINE_float("test_fraction", 0.2, "folder without train/: share of every class that becomes the test set.")
flags.DEFINE_float("val_fraction", 0.0, "Share of every class taken from the training images to choose weights by.")
flags.DEFINE_integer("split_seed", 0, "Which images those fractions take.")
flags.DEFINE_float(
    "imbalance", 1.0, "rho: the most frequent class is thinned out to so many times the rarest; 1: as it is."
)
flags.DEFINE_enum(
    "imbalance_type", "exp", ["exp", "step"], "Exponential profile, or half of the classes many, half few."
)
flags.DEFINE_integer("imbalance_seed", 0, "Which images stay; 0 is the official choice for CIFAR-LT.")
flags.DEFINE_bool("download", True, "Whether TensorFlow Datasets may download.")
flags.DEFINE_bool("skip_bad_images", False, "Leave out images that cannot be decoded, list and count them, and go on.")
flags.DEFINE_float(
    "max_megapixels", 100.0, "An image with more pixels is refused before it is decoded (image bombs).", lower_bound=0
)
flags.DEFINE_float(
    "decoded_mb", 512, "Training images of one size are decoded once and kept in memory, up to so many MB; 0: never.",
    lower_bound=0,
)  # fmt: skip

# --- one image
flags.DEFINE_integer("image_size", 224, "Side of the student's input, pixels.", lower_bound=1)
flags.DEFINE_enum(
    "crop", "resized", ["resized", "padded", "none"], "RandomResizedCrop; shift after padding; resize only."
)
flags.DEFINE_float("crop_min_scale", 0.08, "resized: smallest share of the image's area.", lower_bound=0, upper_bound=1)
flags.DEFINE_integer("padding", 4, "padded: pixels on each side, at --image_size.", lower_bound=0)
flags.DEFINE_bool("flip", True, "Mirror left and right with probability 1/2.")
flags.DEFINE_string("randaugment", "rand-m9-mstd0.5-inc1", "timm's notation; empty: none.")
flags.DEFINE_float("erasing", 0.25, "Probability of random erasing.", lower_bound=0, upper_bound=1)
flags.DEFINE_enum(
    "resize", "fast", ["fast", "exact"], "fast: area or plain bicubic; exact: antialiased bicubic (timm's)."
)
flags.DEFINE_integer(
    "eval_resize", 256, "Short side before the centre crop at test time; 0: resize without a crop.", lower_bound=0
)
flags.DEFINE_enum(
    "sampling", "instance", ["instance", "sqrt", "class_balanced"],
    "How often a class is seen: as often as it has images; by their square root; as often as any other.",
)  # fmt: skip
flags.DEFINE_integer("repeats", 3, "Repeated augmentation: views of one image in a batch; 1: none.", lower_bound=1)

# --- the student
flags.DEFINE_enum(
    "method", "deit_lt", ["deit_lt", "deit", "vit", "vit_drw"],
    "deit: without re-weighting; vit: plain, no teacher; vit_drw: plain, its loss weighted by class from epoch K on.",
)  # fmt: skip
flags.DEFINE_bool("baseline", False, "Also train a plain ViT with the same recipe, and put its row beside.")
flags.DEFINE_string("model", "deit_base", "deit_nano, deit_tiny, deit_small or deit_base.")
flags.DEFINE_string(
    "init", "", "Start from weights: FILE.keras, a PyTorch file of timm or facebookresearch/deit, or keras_hub:PRESET; "
    "positions and heads are replaced as needed.",
)  # fmt: skip
flags.DEFINE_integer("patch_size", 16, "Side of a patch, pixels.", lower_bound=1)
flags.DEFINE_integer("depth", 0, "Number of blocks; 0: the model's own.", lower_bound=0)
flags.DEFINE_integer("embed_dim", 0, "Width; 0: the model's own.", lower_bound=0)
flags.DEFINE_integer("num_heads", 0, "Attention heads; 0: the model's own.", lower_bound=0)
flags.DEFINE_float("drop_path", 0.1, "Stochastic depth of the last block, linear from 0.")
flags.DEFINE_list(
    "mean", ["0.485", "0.456", "0.406"], "Pixel mean of the first layer, for pixels in 0..1 (ImageNet's)."
)
flags.DEFINE_list("std", ["0.229", "0.224", "0.225"], "Pixel standard deviation of the first layer.")
flags.DEFINE_integer(
    "epochs", 1200, "An epoch is floor(N/256)*256 views with repeated augmentation, else N.", lower_bound=1
)
flags.DEFINE_integer(
    "batch_size", 1024, "Images of one optimiser step, over all devices and --accumulation.", lower_bound=1
)
flags.DEFINE_integer("accumulation", 1, "Parts that each device splits its batch into, to save memory.", lower_bound=1)
flags.DEFINE_float("lr", 1.25e-4, "Peak learning rate before --lr_rule.")
flags.DEFINE_enum(
    "lr_rule", "linear", ["linear", "official", "constant"],
    "Peak = lr * batch_size / 512; official: lr * batch_size / accumulation / 512; constant: lr itself.",
)  # fmt: skip
flags.DEFINE_float("warmup_epochs", 5, "Linear warm-up.", lower_bound=0)
flags.DEFINE_float("warmup_lr", 1e-6, "Learning rate at step 0.")
flags.DEFINE_float("min_lr", 1e-5, "Learning rate at the end of the cosine.")
flags.DEFINE_float(
    "weight_decay", 0.05, "AdamW; biases, 1-D weights, tokens and position embedding are exempt.", lower_bound=0
)
flags.DEFINE_float("clip_norm", 0.0, "Cut of the global gradient norm; 0: none.", lower_bound=0)
flags.DEFINE_float("ema_decay", 0.99996, "Of the second student that averages the weights; 0: none.", lower_bound=0)
flags.DEFINE_float("mixup", 0.8, "Alpha of mixup; 0: off.", lower_bound=0)
flags.DEFINE_float("cutmix", 1.0, "Alpha of cutmix; 0: off.", lower_bound=0)
flags.DEFINE_float("mix_prob", 1.0, "Probability that a batch is mixed.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("switch_prob", 0.5, "Probability of cutmix where both are on.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("smoothing", 0.1, "Label smoothing of the targets of CLS.", lower_bound=0, upper_bound=1)
flags.DEFINE_float("alpha", 0.5, "Share of the distillation loss.", lower_bound=0, upper_bound=1)
flags.DEFINE_enum("distillation", "hard", ["hard", "soft"], "The teacher's class, or its distribution.")
flags.DEFINE_enum(
    "teacher_sees", "mixed", ["mixed", "clean"],
    "mixed: the student's view of a step; clean: before mixing, RandAugment and erasing, but after the same crop and "
    "mirror image; then DIST learns the two classes of a mixed view in its shares. clean needs --distillation=hard.",
)  # fmt: skip
flags.DEFINE_float("temperature", 3.0, "tau of soft distillation.", lower_bound=1e-3)
flags.DEFINE_float(
    "logit_adjustment", 0.0, "tau: the loss of CLS sees logits + tau log(class share); 1: balanced softmax."
)
flags.DEFINE_integer("reweight_epoch", 1100, "K: from this epoch on DIST is weighted by class (DRW); -1: never.")
flags.DEFINE_float("beta", 0.9999, "Of the class-balanced weights; 0: all alike.", lower_bound=0, upper_bound=1)
flags.DEFINE_bool("mixing_off", True, "No mixup, cutmix and smoothing from epoch K on.")

# --- the teacher; defaults are the published LDAM + DRW + SAM ResNet-32's (Saddle-LongTail)
flags.DEFINE_string("teacher", "", "A teacher.keras or the workdir of one; empty: train it first.")
flags.DEFINE_string(
    "teacher_labels", "",
    "File of the teacher's classes of all views: made by the first student, read instead of asking by the next ones.",
)  # fmt: skip
flags.DEFINE_string("teacher_workdir", "", "Folder of the teacher's own run; default WORKDIR/teacher.")
flags.DEFINE_string(
    "teacher_model", "resnet32",
    "resnet8|20|32 and resnet18|34_cifar (small images), resnet50|101|152, resnext50; mdcs_resnet8|32|50 for mdcs.",
)  # fmt: skip
flags.DEFINE_enum("teacher_classifier", "cosine", ["cosine", "linear"], "Cosine goes with --teacher_loss=ldam.")
flags.DEFINE_list("teacher_mean", ["0.4914", "0.4822", "0.4465"], "As --mean (CIFAR's).")
flags.DEFINE_list("teacher_std", ["0.2023", "0.1994", "0.2010"], "As --std.")
flags.DEFINE_integer(
    "teacher_image_size", 32, "Side of the teacher's input; the student's views are resized to it.", lower_bound=1
)
flags.DEFINE_enum("teacher_crop", "padded", ["resized", "padded", "none"], "As --crop.")
flags.DEFINE_float("teacher_crop_min_scale", 0.08, "As --crop_min_scale.", lower_bound=0, upper_bound=1)
flags.DEFINE_integer("teacher_padding", 4, "As --padding.", lower_bound=0)
flags.DEFINE_bool("teacher_flip", True, "As --flip.")
flags.DEFINE_string("teacher_randaugment", "", "As --randaugment.")
flags.DEFINE_float("teacher_erasing", 0.0, "As --erasing.", lower_bound=0, upper_bound=1)
flags.DEFINE_integer("teacher_eval_resize", 0, "As --eval_resize.", lower_bound=0)
flags.DEFINE_string("teacher_second_randaugment", "", "paco, mdcs, glmc: --randaugment of the second view.")
flags.DEFINE_float(
    "teacher_second_erasing", 0.0, "paco, mdcs, glmc: --erasing of the second view.", lower_bound=0, upper_bound=1
)
flags.DEFINE_enum("teacher_sampling", "instance", ["instance", "sqrt", "class_balanced"], "As --sampling.")
flags.DEFINE_enum(
    "teacher_loss", "ldam", ["ce", "ldam", "balanced_softmax", "paco", "mdcs", "glmc"], "Objective of the teacher."
)
flags.DEFINE_float("teacher_rho", 0.8, "Radius of SAM; 0: plain SGD.", lower_bound=0)
flags.DEFINE_list("teacher_rho_steps", [], "epoch:radius from that epoch on, after --teacher_rho.")
flags.DEFINE_integer(
    "teacher_flat_below", 0, "ImbSAM: SAM only for classes with fewer training images than this; 0: for all.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_integer("teacher_epochs", 200, "An epoch is N images.", lower_bound=1)
flags.DEFINE_integer("teacher_batch_size", 128, "Images of one optimiser step, over all devices.", lower_bound=1)
flags.DEFINE_float("teacher_lr", 0.1, "Peak learning rate.")
flags.DEFINE_enum("teacher_schedule", "drops", ["drops", "cosine"], "How the learning rate falls.")
flags.DEFINE_list("teacher_drops", ["160:0.01", "180:0.0001"], "epoch:factor of the peak.")
flags.DEFINE_float("teacher_warmup_epochs", 5, "Linear warm-up.", lower_bound=0)
flags.DEFINE_float("teacher_momentum", 0.9, "Of SGD.")
flags.DEFINE_float("teacher_l2", 2e-4, "Coupled weight decay of SGD.", lower_bound=0)
flags.DEFINE_float("teacher_clip_norm", 0.0, "As --clip_norm.", lower_bound=0)
flags.DEFINE_integer("teacher_reweight_epoch", 160, "DRW of the teacher; -1: never.")
flags.DEFINE_float("teacher_beta", 0.9999, "As --beta.")
flags.DEFINE_float("teacher_max_margin", 0.5, "Of LDAM.")
flags.DEFINE_float("teacher_scale", 30.0, "Of LDAM.")
flags.DEFINE_float("teacher_temperature", 0.05, "Of PaCo's similarities.", lower_bound=1e-3)
flags.DEFINE_integer("teacher_queue", 1024, "Of PaCo: keys kept.", lower_bound=1)
flags.DEFINE_integer("teacher_dim", 32, "Of PaCo's projections.", lower_bound=1)
flags.DEFINE_float("teacher_alpha", 0.02, "Of PaCo: weight of an image of the same class.", lower_bound=0)
flags.DEFINE_float(
    "teacher_consistency", 0.6, "Weight of the agreement of two views: 0.6 in mdcs, 1 (with SAM) to 10 in glmc.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_float("teacher_label_power", 1.2, "Of glmc: label weights n^-power; 1 for ImageNet-LT.", lower_bound=0)
flags.DEFINE_integer("teacher_consistency_epochs", 20, "Of mdcs: until the weight is reached.", lower_bound=1)
flags.DEFINE_string("teacher_init", "", "Start from the weights of another CNN (FILE.keras).")

# --- of single programs; not part of a recipe: export, inspect_data, to_tfds, import_torch, report, demo
flags.DEFINE_string(
    "out", "", "Exported file, or folder of versions; default beside the model in --workdir. to_tfds: the new set."
)
flags.DEFINE_enum(
    "weights",
    "student",
    ["student", "ema", "teacher"],
    "Network to export or show: student, its moving average, teacher.",
)
flags.DEFINE_enum("heads", "all", ["all", "mean", "cls", "dist"], "Logits to answer; probabilities: of the mean.")
flags.DEFINE_string("prior", "", "Adjust logits to a test distribution: uniform, training or a file of counts.")
flags.DEFINE_enum("quantize", "none", ["none", "int8"], "Also write a file with 8-bit weights.")
flags.DEFINE_bool("fp16", False, "ONNX: also write a file in half precision.")
flags.DEFINE_enum("input_type", "uint8", ["uint8", "float32"], "ONNX, LiteRT: type of the pixels 0..255.")
flags.DEFINE_integer("top_k", 5, "SavedModel: likeliest classes named for an encoded image.", lower_bound=1)
flags.DEFINE_float(
    "request_megapixels", 50.0, "SavedModel, demo: an image with more pixels is refused; strangers send it.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_integer(
    "check_images", -1, "Test images to check an export on; -1: all of them; 0: none, random pixels instead.",
    lower_bound=-1,
)  # fmt: skip
flags.DEFINE_bool("decode", False, "inspect_data: decode every image as training will, not only its header.")
flags.DEFINE_string("checkpoint", "", "PyTorch file to import (.pth, .pth.tar).")
flags.DEFINE_string(
    "class_order", "",
    "Units of its head: official (sorted by frequency), as_is, or a file: line c holds the unit of class c; "
    "empty: what the checkpoint says.",
)  # fmt: skip
flags.DEFINE_string("to_torch", "", "Write the student of --workdir as a timm state dict to this file.")
flags.DEFINE_list("compare", [], "report: workdirs to put side by side; alone, the first one is --workdir.")
flags.DEFINE_integer(
    "probe_images", 512, "report: test images and mixed views that probes look at, drawn at random.", lower_bound=2
)
flags.DEFINE_string("host", "127.0.0.1", "demo: address to listen at; the default is seen from this machine alone.")
flags.DEFINE_integer("port", 8000, "demo: port to listen at; 0: any free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_bool("open", False, "demo: also open the page in the default browser.")


# What may change between two runs of the same recipe without changing its weights.
FREE = {
    "workdir", "teacher_workdir", "teacher_labels", "checkpoint_seconds", "worker_timeout", "traceback",
    "download", "data_dir", "image_root", "baseline", "decoded_mb",
}  # fmt: skip
OURS = [flag.name for flag in FLAGS.flags_by_module_dict()[__name__]]
OWN = OURS[OURS.index("out") :]  # each taken by the programs that name it
RECIPE = OURS[: OURS.index("out")]
FREE |= set(OWN)
DEFAULTS = {name: FLAGS[name].default for name in RECIPE}
DATA = OURS[OURS.index("data") : OURS.index("image_size")]
# What decides the weights of a teacher that is trained here: `train` and `train_teacher` share it.
TEACHER = [*DATA, *(name for name in RECIPE if name.startswith("teacher_") and name != "teacher_sees")]
TEACHER += ["resize", "seed", "precision", "deterministic"]
