"""The student's run: distil it (or train the plain ViT), measure it, save it."""

from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import DEFAULTS, FREE


def claim_run(flags: SimpleNamespace, folder: Path, splits) -> None:
    from deitlt_tf.devices.strategy import is_chief
    from deitlt_tf.runs.folder import claim

    text, names = command_line.as_flagfile(vars(flags)), splits.train.class_names
    if is_chief():
        claim(folder, vars(flags), text=text, class_names=names, free=FREE, defaults=DEFAULTS)


def find_teacher(path: str) -> Path:
    """--teacher as a file: a .keras model, or the teacher.keras of a workdir."""
    found = Path(path) / "teacher.keras" if Path(path).is_dir() else Path(path)
    if not found.is_file():
        raise FileNotFoundError(f"--teacher={path}: there is no {found}.")
    return found


def keep_teacher(path: Path, kept: Path, *, class_names: tuple[str, ...]):
    """The teacher model from `path`, checked against the data's classes, and a copy of its file in the workdir."""
    from deitlt_tf.devices.strategy import is_chief
    from deitlt_tf.runs.files import replacing
    from deitlt_tf.runs.models import load_model, same_classes

    teacher, names = load_model(path)
    same_classes(names, class_names, path=path, num_outputs=teacher.output_shape[-1])
    if is_chief() and not (kept.is_file() and kept.samefile(path)):
        with replacing(kept) as temporary:
            temporary.write_bytes(path.read_bytes())
    return teacher


def train_student(flags: SimpleNamespace, splits, *, folder: Path, teacher) -> dict:
    """Train (or go on training) the student, evaluate, save; returns what results.json holds."""
    from deitlt_tf import distill, losses, optimizers
    from deitlt_tf.data import decode, pipeline, sources
    from deitlt_tf.devices.strategy import is_chief, wait_for_all
    from deitlt_tf.evaluation import metrics, tables
    from deitlt_tf.recipes.recipe import max_pixels_of, mixing_of, reweight_epoch_of
    from deitlt_tf.runs.files import write_json
    from deitlt_tf.runs.models import load_weights, save_model, save_weights
    from deitlt_tf.training import loop
    from deitlt_tf.training.networks import student_network
    from deitlt_tf.training.views import check_batch, measure_model, train_view, training_images, with_clean_view

    check_batch(flags.batch_size, parts=flags.accumulation, flag="batch_size")
    class_names = splits.train.class_names
    counts = sources.class_counts(splits.train.labels, len(class_names))
    per_epoch = pipeline.steps_per_epoch(len(splits.train), batch=flags.batch_size, repeats=flags.repeats)
    steps = flags.epochs * per_epoch
    reweight_epoch = reweight_epoch_of(flags)
    late = reweight_epoch * per_epoch if reweight_epoch >= 0 else losses.NEVER
    title = "ViT" if teacher is None else "student"
    clean = teacher is not None and flags.teacher_sees == "clean"

    student = student_network(flags, num_classes=len(class_names))
    distiller = distill.Distiller(
        student,
        teacher,
        counts,
        alpha=flags.alpha,
        distillation=flags.distillation,
        teacher_sees=flags.teacher_sees,
        temperature=flags.temperature,
        logit_adjustment=flags.logit_adjustment,
        reweight_step=late,
        beta=flags.beta,
        mixing=mixing_of(flags),
        mixing_off_step=late if flags.mixing_off else losses.NEVER,
        accumulation=flags.accumulation,
        clip_norm=flags.clip_norm,
        ema_decay=flags.ema_decay,
        seed=flags.seed,
    )
    schedule = optimizers.WarmupCosine(
        peak=peak_lr(flags),
        epochs=flags.epochs,
        steps_per_epoch=per_epoch,
        warmup_epochs=flags.warmup_epochs,
        warmup_lr=flags.warmup_lr,
        min_lr=flags.min_lr,
    )
    optimizer = optimizers.adamw(student, schedule, weight_decay=flags.weight_decay)
    distiller.compile(optimizer)
    contenders = {"raw": student} | ({"ema": distiller.ema} if distiller.ema else {})

    labels = None
    if flags.teacher_labels:
        labels = labels_of_teacher(
            flags, splits.train, folder / "teacher.keras", unmixed_from=distiller.mixing_off_step
        )

    def batches(first_step, **share):
        return pipeline.train(
            training_images(splits.train, flags),
            view=with_clean_view(flags) if clean else train_view(flags),
            batch=flags.batch_size,
            steps=steps,
            steps_per_epoch=per_epoch,
            first_step=first_step,
            repeats=flags.repeats,
            seed=flags.seed,
            sampling=flags.sampling,
            max_pixels=max_pixels_of(flags),
            **share,
        )

    def measure(model, split, what):
        return measure_model(model, split, flags, class_counts=counts, title=f"{title}, {what}")

    def evaluate(step, memory):
        """Journal numbers every --eval_every epochs; with a validation split, also keep the best weights so far."""
        last = step == steps
        if not (flags.eval_every and step // per_epoch % flags.eval_every == 0) and not (last and splits.val):
            return {}
        split, what = (splits.val, "val") if splits.val else (splits.test, "test")
        line = {}
        for name, model in contenders.items():
            measured = measure(model, split, what)
            line |= metrics.flatten(measured, prefix=f"{what}/{name}")
            score = list(measured["paper"].values())[-1]["overall"]  # of the mean, or of the only head
            if splits.val and score > memory.get("best", {"score": -1.0})["score"]:
                memory["best"] = {"score": score, "step": step, "weights": name}
                if is_chief():
                    save_weights(model, folder / "best.npz")
        return line

    def run():
        memory = loop.fit(
            distiller,
            batches=batches,
            variables=loop.total_variables(
                *(model.weights for model in contenders.values()), optimizer.variables, distiller.state
            ),
            folder=folder,
            title=title,
            batch=flags.batch_size,
            steps=steps,
            steps_per_epoch=per_epoch,
            checkpoint_seconds=flags.checkpoint_seconds,
            evaluate=evaluate,
            teacher_labels=labels,
        )
        return memory, {name: measure(model, splits.test, "test") for name, model in contenders.items()}

    memory, results = decode.naming_bad_images(run, splits, max_pixels=max_pixels_of(flags))
    chosen = "the last weights"
    if "best" in memory:
        best = memory["best"]
        wait_for_all()
        load_weights(student, folder / "best.npz")
        results["best"] = measure(student, splits.test, "test")
        chosen = (
            f"{best['weights']} weights of step {best['step']}, best on the validation split ({best['score']:.2f} %)"
        )
    if teacher is not None:
        results["teacher"] = measure_model(
            teacher, splits.test, flags, class_counts=counts, teacher=True, title="teacher, test"
        )
    results |= {
        "groups": {convention: tables.describe_groups(counts, convention) for convention in ("shots", "paper")},
        "class_counts": counts.tolist(),
        "student.keras": chosen,
        "steps": steps,
    }
    if is_chief():
        write_json(folder / "results.json", results)
        save_model(student, folder / "student.keras", class_names=class_names)
        if distiller.ema:
            save_model(distiller.ema, folder / "student_ema.keras", class_names=class_names)
    return results


# What decides a view and what the teacher says of it, beside the data, the teacher and how a batch is cut in parts.
VIEWS = [
    "seed", "epochs", "batch_size", "sampling", "repeats", "image_size", "crop", "crop_min_scale", "padding", "flip",
    "randaugment", "erasing", "resize", "mixup", "cutmix", "mix_prob", "switch_prob", "teacher_sees",
]  # fmt: skip


def labels_of_teacher(flags: SimpleNamespace, source, teacher: Path, *, unmixed_from: int):
    """The `TeacherLabels` of --teacher_labels. Raises ValueError for a recipe that does not ask for classes."""
    import tensorflow as tf

    from deitlt_tf.data import augment
    from deitlt_tf.devices.strategy import is_chief, wait_for_all
    from deitlt_tf.training.teacher_labels import TeacherLabels, digest, fingerprint

    if flags.method.startswith("vit") or flags.distillation != "hard":
        raise ValueError("--teacher_labels holds a teacher's classes: it needs one, and --distillation=hard.")
    wait_for_all()  # the chief has written the teacher's file
    key = {f"--{name}": str(getattr(flags, name)) for name in VIEWS}
    key["step without mixing (--mixing_off, --reweight_epoch)"] = str(unmixed_from)
    key["devices times --accumulation"] = str(tf.distribute.get_strategy().num_replicas_in_sync * flags.accumulation)
    key["training data, SHA-256"] = fingerprint(source)
    key["teacher's file, SHA-256"] = digest(teacher)
    key["version of the views"] = str(augment.VERSION)
    key["TensorFlow"] = tf.__version__
    given = {"batch": flags.batch_size, "num_classes": len(source.class_names)}
    if is_chief():
        labels = TeacherLabels(Path(flags.teacher_labels), key, **given)
    wait_for_all()
    if not is_chief():
        labels = TeacherLabels(Path(flags.teacher_labels), key, **given, writes=False)
    return labels


def peak_lr(flags: SimpleNamespace) -> float:
    """The peak learning rate of --lr, --lr_rule and --batch_size."""
    if flags.lr_rule == "linear":
        return flags.lr * flags.batch_size / 512
    if flags.lr_rule == "official":
        return flags.lr * flags.batch_size / flags.accumulation / 512
    return flags.lr
