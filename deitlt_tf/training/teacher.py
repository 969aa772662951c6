"""The teacher's run: train the flat CNN, measure it, save it."""

from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import DEFAULTS, FREE, TEACHER


def folder_of(flags: SimpleNamespace) -> Path:
    """Where the teacher's run lives. Raises ValueError without --workdir."""
    if flags.teacher_workdir:
        return Path(flags.teacher_workdir)
    if not flags.workdir:
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    return Path(flags.workdir) / "teacher"


def train_teacher(flags: SimpleNamespace, splits) -> Path:
    """Train (or go on training, or reuse) the teacher of this recipe on `splits`; returns its .keras file."""
    from deitlt_tf.data import decode, pipeline, sources
    from deitlt_tf.devices.strategy import from_chief, is_chief, wait_for_all
    from deitlt_tf.evaluation import metrics, tables
    from deitlt_tf.interop import pretrained
    from deitlt_tf.recipes.recipe import max_pixels_of
    from deitlt_tf.runs.files import write_json
    from deitlt_tf.runs.folder import claim
    from deitlt_tf.runs.models import save_model
    from deitlt_tf.training import loop
    from deitlt_tf.training.views import check_batch, measure_model, train_view, training_images

    check_batch(flags.teacher_batch_size, flag="teacher_batch_size")
    folder, finished = folder_of(flags), folder_of(flags) / "teacher.keras"
    recipe = {name: getattr(flags, name) for name in TEACHER}
    class_names, text = splits.train.class_names, command_line.as_flagfile(recipe)
    if is_chief():
        claim(folder, recipe, text=text, class_names=class_names, free=FREE, defaults=DEFAULTS)
    if from_chief(finished.is_file()):
        print(f"teacher: {finished} is there, from the same recipe")
        return finished

    counts = sources.class_counts(splits.train.labels, len(class_names))
    batch = flags.teacher_batch_size
    per_epoch = pipeline.steps_per_epoch(len(splits.train), batch=batch)
    steps = flags.teacher_epochs * per_epoch
    teacher = make(flags, counts, steps_per_epoch=per_epoch)
    network, aim, optimizer = teacher.network, teacher.objective, teacher.optimizer

    def batches(first_step, **share):
        return pipeline.train(
            training_images(splits.train, flags),
            view=train_view(flags, teacher=True, views=aim.views),
            batch=batch,
            steps=steps,
            steps_per_epoch=per_epoch,
            first_step=first_step,
            seed=flags.seed,
            sampling=flags.teacher_sampling,
            max_pixels=max_pixels_of(flags),
            **share,
        )

    def measure(split, title):
        return measure_model(network, split, flags, class_counts=counts, teacher=True, title=title)

    def evaluate(step, memory):
        epoch = step // per_epoch
        if not flags.eval_every or epoch % flags.eval_every or step == steps:
            return {}
        return metrics.flatten(measure(splits.val or splits.test, "teacher, evaluation"), prefix="teacher")

    def run():
        loop.fit(
            teacher,
            batches=batches,
            variables=loop.total_variables(network.weights, aim.trainable, teacher.state, optimizer.variables),
            folder=folder,
            title="teacher",
            batch=batch,
            steps=steps,
            steps_per_epoch=per_epoch,
            checkpoint_seconds=flags.checkpoint_seconds,
            evaluate=evaluate,
        )
        return measure(splits.test, "teacher, test")

    measured = decode.naming_bad_images(run, splits, max_pixels=max_pixels_of(flags))
    if is_chief():
        write_json(folder / "results.json", {"teacher": measured})
        if flags.teacher_loss == "ldam":  # other objectives are trained on the cosines as they are
            pretrained.scale_cosines(network, ldam=flags.teacher_scale)
        save_model(network, finished, class_names=class_names)
    wait_for_all()  # the others are about to read it
    tables.print_tables(tables.rows_of("teacher", measured), counts)
    return finished


def make(flags: SimpleNamespace, class_counts, *, steps_per_epoch: int):
    """A new, compiled `teacher.Teacher` of these flags: network, objective, SAM, SGD with its schedule."""
    from deitlt_tf import losses, optimizers
    from deitlt_tf.teacher import Teacher
    from deitlt_tf.training.networks import teacher_network

    network = teacher_network(flags, num_classes=len(class_counts))
    aim = build_objective(flags, network, class_counts, steps_per_epoch=steps_per_epoch)
    teacher = Teacher(
        network,
        class_counts,
        aim,
        rho=flags.teacher_rho,
        rho_steps={epoch * steps_per_epoch: rho for epoch, rho in by_epoch(flags, "teacher_rho_steps").items()},
        flat_below=flags.teacher_flat_below,
        reweight_step=flags.teacher_reweight_epoch * steps_per_epoch
        if flags.teacher_reweight_epoch >= 0
        else losses.NEVER,
        beta=flags.teacher_beta,
        clip_norm=flags.teacher_clip_norm,
        seed=flags.seed,
    )
    optimizer = optimizers.SGD(schedule(flags, steps_per_epoch), momentum=flags.teacher_momentum, l2=flags.teacher_l2)
    optimizer.build(aim.trainable)
    teacher.compile(optimizer)
    return teacher


def build_objective(flags: SimpleNamespace, network, class_counts, *, steps_per_epoch: int):
    """What --teacher_loss names, for this network. Raises ValueError for flags that contradict it."""
    from deitlt_tf.objectives import glmc, mdcs, paco
    from deitlt_tf.objectives.labels import FromLabels

    if flags.teacher_loss in ("mdcs", "glmc") and 0 <= flags.teacher_reweight_epoch < flags.teacher_epochs:
        raise ValueError(
            f"--teacher_reweight_epoch={flags.teacher_reweight_epoch} does not go with --teacher_loss="
            f"{flags.teacher_loss}, which weighs the classes itself: leave it out with --teacher_reweight_epoch=-1."
        )
    if flags.teacher_loss == "ldam" and flags.teacher_model.startswith("mdcs_"):
        raise ValueError(
            f"--teacher_model={flags.teacher_model} scales its cosines itself, and so does --teacher_loss=ldam: "
            "take --teacher_loss=mdcs, ce or balanced_softmax."
        )
    if flags.teacher_loss == "paco":
        return paco.Paco(
            network,
            class_counts,
            temperature=flags.teacher_temperature,
            queue=flags.teacher_queue,
            dim=flags.teacher_dim,
            alpha=flags.teacher_alpha,
        )
    if flags.teacher_loss == "mdcs":
        return mdcs.Mdcs(
            network,
            class_counts,
            weight=flags.teacher_consistency,
            ramp_steps=flags.teacher_consistency_epochs * steps_per_epoch,
        )
    if flags.teacher_loss == "glmc":
        return glmc.Glmc(
            network,
            class_counts,
            epochs=flags.teacher_epochs,
            steps_per_epoch=steps_per_epoch,
            consistency=flags.teacher_consistency,
            power=flags.teacher_label_power,
        )
    return FromLabels(
        network,
        class_counts,
        loss=flags.teacher_loss,
        max_margin=flags.teacher_max_margin,
        scale=flags.teacher_scale,
    )


def schedule(flags: SimpleNamespace, steps_per_epoch: int):
    """The teacher's learning rate: warm-up, then drops by epoch or a cosine to 0."""
    from deitlt_tf import optimizers

    if flags.teacher_schedule == "cosine":
        return optimizers.WarmupCosine(
            peak=flags.teacher_lr,
            epochs=flags.teacher_epochs,
            steps_per_epoch=steps_per_epoch,
            warmup_epochs=flags.teacher_warmup_epochs,
            warmup_lr=0.0,
            min_lr=0.0,
        )
    return optimizers.WarmupDrops(
        peak=flags.teacher_lr,
        steps_per_epoch=steps_per_epoch,
        drops=by_epoch(flags, "teacher_drops"),
        warmup_epochs=flags.teacher_warmup_epochs,
    )


def by_epoch(flags: SimpleNamespace, name: str) -> dict[int, float]:
    """The entries of --name=epoch:number,epoch:number."""
    entries = getattr(flags, name)
    try:
        return {int(epoch): float(number) for epoch, number in (entry.split(":") for entry in entries)}
    except ValueError:
        raise ValueError(f"--{name}={','.join(entries)} is not of the form epoch:number,epoch:number.") from None
