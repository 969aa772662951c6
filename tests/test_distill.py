"""The student's step: the reference's losses, replicas, parts, EMA, re-weighting, what the teacher is asked."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf import distill, losses, mixing, models, optimizers
from deitlt_tf.devices.replicas import fold, step_seed
from deitlt_tf.interop import pretrained
from deitlt_tf.models import resizing
from deitlt_tf.models.weights import load_state, state_dict, torch_name
from deitlt_tf.training.student import adopt_teacher, teacher_file

COUNTS = np.array([40, 20, 10, 5])
NO_STATISTICS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}  # the golden images are already normalised


def small(name="deit_nano", **options):
    keras.utils.set_random_seed(1)
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4}
    return models.build(name, num_classes=4, image_size=8, **sizes | options)


def teacher():
    """A few random convolutions with batch statistics: what a step does with a teacher does not depend on its depth."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def batch(size=8, seed=0):
    generator = np.random.default_rng(seed)
    return (
        tf.constant(generator.integers(0, 256, (size, 8, 8, 3)), tf.uint8),
        tf.constant(generator.integers(0, 4, size), tf.int32),
    )


def compiled(distiller, lr=1e-3, *, graph=False):
    """Eager by default: one small step costs less than tracing one."""
    distiller.compile(optimizers.adamw(distiller.student, lr), run_eagerly=not graph)
    return distiller


def fit(distiller, batches):
    """Each batch is one step, through Keras' own fit; returns what the last step reported."""
    stream = tf.data.Dataset.from_tensor_slices(tuple(tf.stack(x) for x in zip(*batches, strict=True)))
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    reports = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: reports.append(dict(logs)))
    distiller.fit(stream.with_options(options), verbose=0, shuffle=False, callbacks=[log])
    return reports


def test_train_steps_equal_the_reference(golden):
    """Eight steps of the official losses and timm's AdamW: mixed targets first, then DRW on hard labels."""
    case, start = golden("train_steps"), golden("vit_forward")
    c = case.config
    student = models.build(
        "deit_nano",
        num_classes=10,
        image_size=32,
        patch_size=4,
        embed_dim=48,
        depth=3,
        num_heads=3,
        drop_path=0.0,
        **NO_STATISTICS,
    )
    load_state(student, start.under("param/"))
    flat = models.build("resnet32", num_classes=10, image_size=32, **NO_STATISTICS)
    load_state(flat, golden("resnet32_forward").under("param/"))

    exempt = {torch_name(v) for v in optimizers.without_decay(student.trainable_variables)}
    assert exempt == set(c["no_weight_decay"])

    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    np.testing.assert_allclose(losses.class_balanced_weights(counts), case["class_weights"], rtol=1e-5)
    distiller = Recorded(
        student,
        flat,
        counts,
        soft=case["soft_labels"],
        reweight_step=c["drw_from_step"],
        mixing_off_step=c["drw_from_step"],
        alpha=c["alpha"],
        ema_decay=0.0,
    )
    compiled(distiller, c["lr"], graph=True)
    images, labels = case.images("images_nchw"), case["labels"].astype(np.int32)
    reports = fit(distiller, list(zip(tf.unstack(images), tf.unstack(labels), strict=True)))
    ours = [[s["loss"], (1 - c["alpha"]) * s["cls_loss"], c["alpha"] * s["dist_loss"]] for s in reports]
    np.testing.assert_allclose(ours, case["losses"], rtol=1e-4)
    state = state_dict(student)
    for name, expected in case.under("final/").items():
        value = state[name].numpy()
        value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
        if name.endswith("qkv.bias"):
            # Softmax cancels the key's bias: its gradient is zero but for rounding, which Adam blows up to full steps.
            query, _, values = np.split(value - expected, 3)
            assert max(np.abs(query).max(), np.abs(values).max()) < 1e-3 * np.abs(expected).max(), name
        else:
            assert relative_error(value, expected) < 1e-3, name


def relative_error(ours, expected):
    return np.abs(ours - expected).max() / np.abs(expected).max()


class Recorded(distill.Distiller):
    """The reference recorded its soft targets instead of mixing; here they take the place of `mixing.mix`."""

    def __init__(self, *args, soft, **options):
        super().__init__(*args, **options)
        self.soft = tf.constant(soft)

    def lesson(self, images, labels, step, seed):
        lesson = super().lesson(images, labels, tf.constant(self.mixing_off_step, tf.int64), seed)
        recorded = tf.gather(self.soft, tf.minimum(step, len(self.soft) - 1))
        weights = lesson.weights
        if self.reweight_step:
            weights = tf.where(step >= self.reweight_step, weights, 1.0)
        targets = tf.where(step < self.mixing_off_step, recorded, lesson.cls_targets)
        return lesson._replace(cls_targets=targets, weights=weights)


def after_steps(*, replicas=1, steps=3, graph=False, stem="patch", order=range(8), **options):
    with strategy_of(replicas).scope():
        student = small(drop_path=0.0, stem=stem)
        distiller = compiled(distill.Distiller(student, teacher(), COUNTS, **options), graph=graph)
        batches = [tuple(tf.gather(x, order) for x in batch(seed=k)) for k in range(steps)]
        reports = fit(distiller, batches)
    return distiller, reports


NO_MIXING = {"mixing_off_step": 0}


def same_runs(one, two):
    """Two (distiller, reports) have the same reports and the same weights, up to the order of sums."""
    for name in one[1][-1]:
        np.testing.assert_allclose(two[1][-1][name], one[1][-1][name], rtol=1e-4, atol=1e-6, err_msg=name)
    for network in ("student", "ema"):
        for a, b in zip(getattr(one[0], network).weights, getattr(two[0], network).weights, strict=True):
            np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["deit_nano", "vit_nano"])
def test_logit_adjustment_acts_on_the_loss_of_cls_alone(name):
    images, labels = batch()
    flat = None if name == "vit_nano" else teacher()
    parts = []
    for tau in (0.0, 1.5):
        distiller = distill.Distiller(small(name, drop_path=0.0), flat, COUNTS, logit_adjustment=tau, **NO_MIXING)
        parts.append(compiled(distiller, lr=0.0).train_step((images, labels)))
        logits = distiller.student(images, training=False)
    logits = logits if flat is None else logits["cls"]
    expected = tf.reduce_mean(losses.cross_entropy(labels, logits + losses.log_prior(COUNTS, tau=1.5)))
    same, changed = ("dist_loss", "cls_loss") if flat else (None, "loss")
    assert float(parts[1][changed]) == pytest.approx(float(expected), rel=1e-4)
    assert abs(float(parts[0][changed]) - float(expected)) > 1e-3
    if same:
        assert float(parts[0][same]) == float(parts[1][same])


def test_two_replicas_equal_one():
    """Both with class weights from the second step on, clipping and accumulation."""
    options = NO_MIXING | {"steps": 2, "reweight_step": 1, "clip_norm": 0.1, "accumulation": 2}
    same_runs(after_steps(**options), after_steps(replicas=2, graph=True, **options))


@pytest.mark.slow
def test_two_replicas_equal_two_parts_with_a_clean_teacher_and_mixing():
    options = {"teacher_sees": "clean", "steps": 2, "reweight_step": 1}
    same_runs(after_steps(**options, accumulation=2), after_steps(replicas=2, graph=True, **options))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"distillation": "soft"}, {"reweight_step": 0}, {"clip_norm": 0.1}])
def test_two_replicas_equal_one_in_every_part(options):
    same_runs(after_steps(**NO_MIXING, **options), after_steps(replicas=2, graph=True, **NO_MIXING, **options))


@pytest.mark.slow
def test_two_replicas_equal_one_with_a_convolutional_stem():
    """Its BatchNorm normalises by the batch of both, and the average holds its statistics too."""
    options = NO_MIXING | {"stem": "conv", "ema_decay": 0.5}
    one, two = after_steps(**options), after_steps(replicas=2, graph=True, **options)
    same_runs(one, two)
    mean = one[0].ema.get_layer("patch_embed").halvings[0][1].moving_mean
    assert np.abs(mean).max() > 0


@pytest.mark.slow
def test_two_replicas_with_a_convolutional_stem_share_the_statistics_of_each_part():
    """The first part of both replicas is images 0, 1, 4 and 5: what one device has as its first part in this order."""
    options = NO_MIXING | {"stem": "conv", "ema_decay": 0.5, "accumulation": 2, "graph": True}
    one, two = after_steps(order=[0, 1, 4, 5, 2, 3, 6, 7], **options), after_steps(replicas=2, **options)
    same_runs(one, two)


@pytest.mark.slow
def test_a_convolutional_stem_learns_from_a_batch_in_parts():
    """Each part is normalised by its own statistics, so the weights differ from those of a whole batch, a little."""
    whole, parts = (after_steps(graph=True, accumulation=n, stem="conv", **NO_MIXING)[0].student for n in (1, 2))
    pairs = zip(whole.trainable_weights, parts.trainable_weights, strict=True)
    distances = [np.abs(a.numpy() - b.numpy()).max() for a, b in pairs]
    assert 0 < max(distances) < 0.01


def test_replicas_draw_different_mixes():
    """The same images on two replicas are mixed differently: draws come from (seed, step, replica)."""
    strategy = strategy_of(2)
    images, labels = batch()

    def on_replica():
        seed = step_seed(3, tf.constant(5))
        return mixing.mix(tf.cast(images, tf.float32), labels, seed, num_classes=4)[0]

    a, b = strategy.experimental_local_results(strategy.run(on_replica))
    assert np.abs(a - b).max() > 1


def test_accumulation_is_only_a_matter_of_memory():
    """Also where the mean is weighted by class: from the second step on."""
    options = NO_MIXING | {"reweight_step": 1, "steps": 2}
    same_runs(after_steps(**options), after_steps(**options, accumulation=4))


@pytest.mark.slow
def test_the_total_of_a_loop_is_no_part_of_a_larger_sum():
    """TensorFlow may give a sum of three a temporary variable; with a loop's total in it, the next step finds it there.

    Whether it does depends on the machine's memory, so that the graph is looked at as it is run.
    """
    from tensorflow.python.eager import context  # where run graphs are to be had, as nothing public gives them

    step = tf.function(compiled(distill.Distiller(small(), teacher(), COUNTS, accumulation=4), graph=True).train_step)
    context.enable_run_metadata()
    try:
        step(batch())
        run = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    nodes = [node for function in run.function_graphs for node in function.post_optimization_graph.node]
    assert any(node.op == "LoopCond" for node in nodes)
    sums = [node for node in nodes if node.op == "AddN"]
    assert [node.name for node in sums if any("_switch" in name for name in node.input)] == []


@pytest.mark.slow
def test_graph_and_eager_steps_are_the_same():
    options = {"accumulation": 2, "reweight_step": 2, "mixing_off_step": 2}
    same_runs(after_steps(**options), after_steps(graph=True, **options))


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="8 images does not split into 3"):
        after_steps(steps=1, accumulation=3)


def test_teacher_is_untouched_and_in_inference_mode():
    flat = teacher()
    before = flat.get_weights()
    distiller = compiled(distill.Distiller(small(), flat, COUNTS))
    fit(distiller, [batch()])
    for x, y in zip(before, flat.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)
    assert not {id(v) for v in flat.variables} & {id(v) for v in distiller.variables}


def test_steps_are_a_function_of_seed_and_step_number():
    runs = [compiled(distill.Distiller(small(drop_path=0.5), teacher(), COUNTS, seed=seed)) for seed in (3, 3, 4)]
    for run in runs:
        fit(run, [batch(), batch(seed=1)])
    weights = [np.concatenate([w.ravel() for w in run.student.get_weights()]) for run in runs]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-5


def test_ema_follows_the_student():
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS, ema_decay=0.75))
    before = distiller.student.get_weights()
    fit(distiller, [batch()])
    for old, new, ema in zip(before, distiller.student.get_weights(), distiller.ema.get_weights(), strict=True):
        np.testing.assert_allclose(ema, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-7)


def test_with_a_warmup_the_average_begins_near_the_current_weights():
    """min(d, (1 + t) / (10 + t)) after t steps: 2 / 11 and 3 / 12, then 0.27 where d is 0.27."""
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS, ema_decay=0.27, ema_warmup=True))
    expected = distiller.ema.get_weights()
    for step, d in enumerate((2 / 11, 3 / 12, 0.27)):
        fit(distiller, [batch(seed=step)])
        expected = [d * e + (1 - d) * w for e, w in zip(expected, distiller.student.get_weights(), strict=True)]
        for ema, value in zip(distiller.ema.get_weights(), expected, strict=True):
            np.testing.assert_allclose(ema, value, rtol=1e-5, atol=1e-6)


def test_reweighting_and_mixing_switch_at_their_step():
    distiller = distill.Distiller(small(), teacher(), COUNTS, reweight_step=5, mixing_off_step=5)
    images, labels = batch()
    seed = tf.constant([0, 1])
    early, late = (distiller.lesson(images, labels, tf.constant(step, tf.int64), seed) for step in (4, 5))
    assert tf.reduce_all(early.weights == 1) and not tf.reduce_all(late.weights == 1)
    np.testing.assert_array_equal(late.images, tf.cast(images, tf.float32))
    np.testing.assert_array_equal(late.cls_targets, tf.one_hot(labels, 4))
    assert not np.array_equal(early.images, late.images)
    expected = losses.class_balanced_weights(COUNTS)[late.dist_targets]
    np.testing.assert_allclose(late.weights, expected)


def test_teacher_sees_the_mixed_view_at_its_own_size():
    shapes = []

    def spy(images):
        shapes.append(images.shape.as_list())
        return images[:, 0, 0, :1] * tf.ones([1, 4])

    distiller = compiled(distill.Distiller(small(), spy, COUNTS, teacher_size=16))
    fit(distiller, [batch()])
    assert shapes[0] == [8, 16, 16, 3]


def test_a_clean_teacher_is_asked_before_mixing_and_its_classes_are_mixed_as_the_labels_are():
    questions = []
    distiller = distill.Distiller(
        small(), lambda x: questions.append(x) or tf.eye(8)[:, :4], COUNTS, teacher_sees="clean", reweight_step=0
    )
    (images, labels), other = batch(), batch(seed=1)[0]
    for seed in ([0, 1], [0, 2], [5, 3]):  # mixup and cutmix
        where = (tf.constant(7, tf.int64), tf.constant(seed))
        lesson = distiller.lesson(images, labels, *where)
        np.testing.assert_array_equal(questions[-1], tf.cast(images, tf.float32))
        distiller.lesson((images, other), labels, *where)
        np.testing.assert_array_equal(questions[-1], tf.cast(other, tf.float32))
        mixed = mixing.mix(tf.cast(images, tf.float32), labels, where[1], num_classes=4, smoothing=0.0)
        np.testing.assert_array_equal(lesson.images, mixed[0])
        moved = distiller.lesson(images, labels, *where, known=tf.cast((labels + 1) % 4, tf.int64))
        np.testing.assert_array_equal(moved.dist_targets, np.roll(mixed[1], 1, axis=-1))
        expected = moved.dist_targets.numpy() @ losses.class_balanced_weights(COUNTS)
        np.testing.assert_allclose(moved.weights, expected, rtol=1e-5)
    assert np.ptp(mixed[1], axis=-1).min() < 1


def test_without_mixing_a_clean_teacher_teaches_what_one_of_mixed_views_does():
    options = NO_MIXING | {"reweight_step": 1, "steps": 2}
    same_runs(after_steps(**options), after_steps(**options, teacher_sees="clean", accumulation=2))


def test_soft_distillation_learns_from_cosines_times_their_scale():
    """One scale moves no class, but what the softmax of bare cosines says is nearly even."""
    network = models.build("resnet8", num_classes=4, image_size=8, classifier="cosine")
    images, labels = batch()
    cosines = network(tf.cast(images, tf.float32))
    for _ in range(2):  # done once
        pretrained.scale_cosines(network, ldam=30.0)
        np.testing.assert_allclose(network(tf.cast(images, tf.float32)), 30 * cosines, rtol=1e-5)
    distiller = distill.Distiller(
        small(drop_path=0.0), network, COUNTS, distillation="soft", temperature=2.0, **NO_MIXING
    )
    dist_loss = compiled(distiller, lr=0.0).train_step((images, labels))["dist_loss"]
    outputs = distiller.student(images, training=False)["dist"]
    expected = losses.soft_distillation(outputs, 30 * cosines, temperature=2.0)
    np.testing.assert_allclose(dist_loss, np.mean(expected), rtol=1e-5)


def test_a_clean_teacher_cannot_be_distilled_softly():
    with pytest.raises(ValueError, match="needs distillation=hard"):
        distill.Distiller(small(), teacher(), COUNTS, teacher_sees="clean", distillation="soft")
    with pytest.raises(ValueError, match="teacher_sees=dirty is unknown: choose mixed or clean"):
        distill.Distiller(small(), teacher(), COUNTS, teacher_sees="dirty")


def test_a_plain_vit_can_be_reweighted_too():
    """From its step on the loss is sum(w l) / sum(w), w = class weights in the shares of a mixed image's labels."""
    images, labels = batch()
    distiller = distill.Distiller(small("vit_nano", drop_path=0.0), None, COUNTS, reweight_step=1)
    compiled(distiller, lr=0.0)
    for step in (0, 1):
        seed = fold(step_seed(0, tf.constant(step, tf.int64)), 0)
        mixed, shares = mixing.mix(tf.cast(images, tf.float32), labels, seed, num_classes=4, smoothing=0.0)
        each = losses.cross_entropy(0.9 * shares + 0.1 / 4, distiller.student(mixed, training=False))
        weight = shares.numpy() @ losses.class_balanced_weights(COUNTS) if step else np.ones(len(labels))
        parts = distiller.train_step((images, labels))
        assert float(parts["loss"]) == pytest.approx(float((weight * each).numpy().sum() / weight.sum()), rel=1e-4)


def test_losses_stay_float32_in_bfloat16():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        distiller = compiled(distill.Distiller(small(), teacher(), COUNTS))
        parts = distiller.train_step(batch())
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(value.dtype == tf.float32 and np.isfinite(value) for value in parts.values())
    assert all(weight.dtype == "float32" for weight in distiller.student.weights)


def test_plain_vit_needs_no_teacher_and_the_other_way_round():
    plain = compiled(distill.Distiller(small("vit_nano"), None, COUNTS))
    assert set(fit(plain, [batch()])[0]) == {"loss"}
    assert set(plain.evaluate(tf.data.Dataset.from_tensors(batch()), verbose=0, return_dict=True)) == {"cls"}
    with pytest.raises(ValueError, match="needs a teacher"):
        distill.Distiller(small(), None, COUNTS)
    with pytest.raises(ValueError, match="takes none"):
        distill.Distiller(small("vit_nano"), teacher(), COUNTS)


@pytest.mark.parametrize("kind", ["mixed", "clean", "vit"])
@pytest.mark.parametrize("off", [False, True])
def test_weights_of_samples_multiply_the_loss_of_each_label(kind, off):
    """lambda s_i CE(t_i) + (1 - lambda) s_j CE(t_j), times the image's weight by class; and DIST of a mixed image."""
    images, labels = batch()
    samples = np.array([0, 1, 2, 3, 5, 8, 13, 0], np.int64)
    vit = kind == "vit"
    options = {"reweight_step": 0} | (NO_MIXING if off else {}) | ({} if vit else {"teacher_sees": kind})
    network = small("vit_nano" if vit else "deit_nano", drop_path=0.0)
    distiller = compiled(distill.Distiller(network, None if vit else teacher(), COUNTS, **options), lr=0.0)
    where = (tf.constant(0, tf.int64), fold(step_seed(0, tf.constant(0, tf.int64)), distill.MIXING))
    lesson = distiller.lesson(images, labels, *where)
    share = np.eye(8)  # of which image a mixed one has how much
    if not off:
        images_only = tf.cast(images, tf.float32)
        share = mixing.mix(images_only, tf.range(8), where[1], num_classes=8, smoothing=0.0)[1].numpy()
        assert 0 < np.diag(share).max() < 1

    def by_hand(logits, classes, *, weight, smoothing):
        """Losses of labels (columns) in mixed images (rows) with the samples' weights; times the image's by class."""
        targets = mixing.smooth_one_hot(classes, num_classes=4, smoothing=smoothing)
        each = np.stack([losses.cross_entropy(tf.repeat(target[None], 8, 0), logits) for target in targets], axis=1)
        rows = share * samples
        image_weights = (rows * weight).sum(1) / np.maximum(rows.sum(1), 1e-9)
        return (image_weights * (rows * each).sum(1)).sum() / (rows * weight).sum()

    logits = distiller.student(lesson.images, training=False)
    smoothing, by_class = 0.0 if off else 0.1, losses.class_balanced_weights(COUNTS)
    parts = distiller.train_step((images, labels, samples))
    if vit:
        expected = by_hand(logits, labels, weight=by_class[labels.numpy()], smoothing=smoothing)
        assert float(parts["loss"]) == pytest.approx(expected, rel=1e-4)
        return
    assert float(parts["cls_loss"]) == pytest.approx(
        by_hand(logits["cls"], labels, weight=1, smoothing=smoothing), rel=1e-4
    )
    chosen = lesson.teacher_classes.numpy()
    if kind == "clean":  # the classes that it chose are mixed as labels are
        expected = by_hand(logits["dist"], chosen, weight=by_class[chosen], smoothing=0.0)
    else:
        weights = share @ samples * by_class[chosen]
        expected = (
            weights * losses.hard_distillation(logits["dist"], tf.constant(chosen))
        ).numpy().sum() / weights.sum()
    assert float(parts["dist_loss"]) == pytest.approx(expected, rel=1e-4)


def test_a_sample_without_weight_teaches_its_label_to_no_mixed_image():
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS, mixing={"smoothing": 0.0}))
    where = (tf.constant(0, tf.int64), tf.constant([0, 1]))
    images, labels = batch()[0], tf.constant([0, 1, 1, 2, 2, 1, 1, 2])
    samples = tf.constant([0.0, 1, 2, 1, 1, 2, 1, 1])
    lesson = distiller.lesson(images, labels, *where, sample_weight=samples)
    np.testing.assert_array_equal(lesson.cls_targets[:, 0], np.zeros(8))
    np.testing.assert_allclose(tf.reduce_sum(lesson.cls_targets, 1), np.ones(8), rtol=1e-6)
    nothing = distiller.lesson(images, labels, *where, sample_weight=tf.zeros(8))
    np.testing.assert_array_equal(nothing.weights, np.zeros(8))
    assert np.isfinite(nothing.cls_targets).all()


@pytest.mark.parametrize("weights", [np.ones(8, np.int64), np.ones((8, 1), np.float32), np.ones(8, bool)])
def test_weights_of_samples_of_one_change_nothing(weights):
    """Integers are weights, too, and not the teacher's classes."""
    runs = [compiled(distill.Distiller(small(), teacher(), COUNTS, reweight_step=0)) for _ in range(2)]
    plain, weighted = (run.train_step((*batch(), *extra)) for run, extra in zip(runs, ((), (weights,)), strict=True))
    same_runs((runs[0], [plain]), (runs[1], [weighted]))


def test_weights_of_samples_are_split_with_the_batch():
    """Two replicas, or parts, equal one."""
    images, labels = batch()
    samples = np.arange(8.0)
    ends = []
    for options in ({}, {"accumulation": 4}):
        distiller = compiled(distill.Distiller(small(drop_path=0.0), teacher(), COUNTS, **NO_MIXING, **options))
        ends.append((distiller, [distiller.train_step((images, labels, samples))]))
    same_runs(*ends)


def test_class_weight_and_labels_as_keras_users_pass_them():
    """class_weight is a weight of each sample; columns and one-hot rows are labels."""
    images, labels = (x.numpy() for x in batch())
    by_class = {0: 3.0, 1: 1.0, 2: 0.5, 3: 2.0}
    ends = []
    for labels_of, options in [
        (labels, {"sample_weight": np.array([by_class[label] for label in labels])}),
        (labels, {"class_weight": by_class}),
        (labels[:, None].astype(np.uint8), {"class_weight": by_class}),
        (np.eye(4)[labels], {"class_weight": by_class}),
    ]:
        distiller = compiled(distill.Distiller(small(), teacher(), COUNTS))
        history = distiller.fit(images, labels_of, batch_size=4, shuffle=False, verbose=0, **options).history
        ends.append((distiller, [{name: values[0] for name, values in history.items()}]))
    for other in ends[1:]:
        same_runs(ends[0], other)


def test_classes_that_are_known_take_the_place_of_the_teacher():
    images, labels = batch()
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS))
    known = tf.cast((labels + 1) % 4, tf.int64)
    values, classes = distiller.step((images, labels), teacher_classes=known)
    np.testing.assert_array_equal(classes, known)
    assert float(values["agreement"]) == 0


@pytest.mark.slow
def test_a_last_smaller_batch_is_trained_in_parts():
    """As `fit` has it without drop_remainder: sizes are known in the run, and the last one does not split."""
    images, labels = batch(size=11)
    ends = []
    for options in ({}, {"accumulation": 4}):
        distiller = compiled(
            distill.Distiller(small(drop_path=0.0), teacher(), COUNTS, **NO_MIXING, **options), graph=True
        )
        history = distiller.fit(images, labels, batch_size=8, shuffle=False, verbose=0).history  # 8, then 3 images
        ends.append((distiller, [{name: values[0] for name, values in history.items()}]))
    same_runs(*ends)


@pytest.mark.parametrize("graph", [False, True])
def test_ema_starts_from_weights_that_were_loaded_later(graph):
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS, ema_decay=0.75), graph=graph)
    distiller.student.set_weights([w + 1 for w in distiller.student.get_weights()])
    average = distiller.student.get_weights()
    step = tf.function(distiller.step) if graph else distiller.step
    for seed in range(2):
        step(batch(seed=seed))
        average = [0.75 * e + 0.25 * w for e, w in zip(average, distiller.student.get_weights(), strict=True)]
    for expected, ema in zip(average, distiller.ema.get_weights(), strict=True):
        np.testing.assert_allclose(ema, expected, rtol=1e-5, atol=1e-6)


def test_ema_goes_on_after_the_first_step():
    """As in a run that goes on: the optimiser knows its step."""
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS, ema_decay=0.75))
    distiller.optimizer.iterations.assign(5)
    distiller.ema.set_weights([w + 1 for w in distiller.student.get_weights()])
    before = distiller.ema.get_weights()
    distiller.train_step(batch())
    for old, new, ema in zip(before, distiller.student.get_weights(), distiller.ema.get_weights(), strict=True):
        np.testing.assert_allclose(ema, 0.75 * old + 0.25 * new, rtol=1e-5, atol=1e-6)


def test_xla_is_for_steps_that_do_not_mix():
    distiller = distill.Distiller(small(), teacher(), COUNTS)
    with pytest.raises(ValueError, match="jit_compile=True: mixing draws from Gamma"):
        distiller.compile(optimizers.adamw(distiller.student, 1e-3), jit_compile=True)
    for options in ({"mixup_alpha": 0.0, "cutmix_alpha": 0.0}, {"probability": 0.0}):
        assert not distill.Distiller(small(), teacher(), COUNTS, mixing=options).draws_gamma


# ---- teachers that users bring ---------------------------------------------------------------------------------------


def classifier(*last, inputs=(8, 8, 3)):
    """A linear classifier of pixels with these last layers."""
    layers = keras.layers
    last = last or [layers.Dense(4)]
    return keras.Sequential([keras.Input(inputs), layers.Rescaling(1 / 255), layers.Flatten(), *last])


def ending_in_softmax():
    """Teachers that return probabilities, by the way in which they come to them."""
    layers = keras.layers
    x = keras.Input((8, 8, 3))
    logits = [layers.Dense(4)(layers.Flatten()(layers.Rescaling(1 / 255)(x))) for _ in range(2)]
    inner = classifier(layers.Dense(4, activation="softmax"))
    return {
        "activation": inner,
        "layer": classifier(layers.Dense(4), layers.Softmax()),
        "float32": classifier(layers.Dense(4), layers.Activation("softmax", dtype="float32")),
        "operation": keras.Model(x, keras.ops.softmax(logits[0])),
        "nested": keras.Model(x, layers.Activation("linear")(inner(x))),
        "ensemble": keras.Model(x, layers.Average()([layers.Softmax()(z) for z in logits])),
    }


@pytest.mark.parametrize("kind", ["activation", "layer", "float32", "operation", "nested", "ensemble"])
def test_probabilities_are_no_logits_for_soft_distillation(kind):
    probabilities = ending_in_softmax()[kind]
    with pytest.raises(ValueError, match=r"probabilities \(it ends in softmax\).*distillation=hard"):
        distill.Distiller(small(), probabilities, COUNTS, distillation="soft")
    distill.Distiller(small(), probabilities, COUNTS)  # their largest is that of the logits


def test_probabilities_of_a_function_are_refused_in_its_first_step():
    distiller = compiled(distill.Distiller(small(), lambda x: tf.fill([8, 4], 0.25), COUNTS, distillation="soft"))
    with pytest.raises(ValueError, match="this teacher returns probabilities"):
        distiller.train_step(batch())
    distiller = compiled(distill.Distiller(small(), lambda x: tf.fill([8, 4], -1.4), COUNTS, distillation="soft"))
    assert np.isfinite(distiller.train_step(batch())["dist_loss"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: classifier(keras.layers.Dense(7)), r"the shape \(None, 7\), and class_counts has 4 classes"),
        (lambda x: keras.Model(x, {"cls": x, "dist": x}), "a teacher has one output"),
        (lambda x: keras.Model(x, [x, x]), "a teacher has one output"),
        (lambda x: keras.Model(x, keras.layers.Conv2D(4, 8)(x)), r"the shape \(None, 1, 1, 4\)"),
        (lambda x: classifier(inputs=(8, 12, 3)), r"takes \(None, 8, 12, 3\): it has to take images \[B, S, S, 3\]"),
        (lambda x: classifier(inputs=(8, 8, 1)), r"takes \(None, 8, 8, 1\)"),
        (lambda x: keras.Model([x, keras.Input((8, 8, 3))], x), "it has to take images"),
    ],
)
def test_a_teacher_of_other_classes_outputs_or_inputs_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        distill.Distiller(small(), make(keras.Input((8, 8, 3))), COUNTS)


def test_a_function_of_other_classes_or_outputs_is_refused_in_its_first_step():
    for output, message in [
        (tf.zeros([8, 7]), "class_counts has 4 classes"),
        ({"cls": tf.zeros([8, 4])}, "returns a dict with cls"),
    ]:
        distiller = compiled(distill.Distiller(small(), lambda x, output=output: output, COUNTS))
        with pytest.raises(ValueError, match=message):
            distiller.train_step(batch())


def test_the_size_of_a_teacher_without_a_fixed_one():
    layers = keras.layers
    free = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(4)]
    )
    images, labels = batch()
    for size in (None, 12):
        distiller = compiled(distill.Distiller(small(), free, COUNTS, teacher_size=size, **NO_MIXING))
        _, classes = distiller.step((images, labels))
        inputs = resizing.resize(tf.cast(images, tf.float32), size or 8)
        np.testing.assert_array_equal(classes, tf.argmax(free(inputs), -1))
    with pytest.raises(ValueError, match="teacher_size=12, but the teacher takes images of 8 pixels"):
        distill.Distiller(small(), teacher(), COUNTS, teacher_size=12)


def test_evaluate_masks_the_padding():
    distiller = compiled(distill.Distiller(small(), teacher(), COUNTS))
    images, labels = batch()
    mask = tf.constant([1.0] * 5 + [0.0] * 3)
    padded = distiller.evaluate(tf.data.Dataset.from_tensors((images, labels, mask)), verbose=0, return_dict=True)
    cut = distiller.evaluate(tf.data.Dataset.from_tensors((images[:5], labels[:5])), verbose=0, return_dict=True)
    assert padded == pytest.approx(cut)


def test_learns_a_separable_toy_problem():
    """Ten steps on four flat colours: the loss falls and CLS tells them apart."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    labels = np.tile(np.arange(4, dtype=np.int32), 4)
    images = np.broadcast_to(colours[labels][:, None, None], (16, 8, 8, 3)).copy()
    oracle = lambda x: 10 * tf.one_hot(tf.constant(labels), 4)  # noqa: E731
    distiller = compiled(distill.Distiller(small(), oracle, COUNTS, mixing_off_step=0), lr=1e-2)
    reports = fit(distiller, [(images, labels)] * 10)
    assert reports[-1]["loss"] < 0.5 * reports[0]["loss"] and reports[-1]["agreement"] == 1
    assert distiller.evaluate(tf.data.Dataset.from_tensors((images, labels)), verbose=0, return_dict=True)["mean"] == 1


@pytest.mark.slow
def test_a_network_of_keras_applications_is_a_teacher(tmp_path):
    """The adapter of the README, saved, loaded as --teacher=PATH does it, and distilled from."""
    network = keras.applications.MobileNetV3Small(
        (32, 32, 3), alpha=0.35, minimalistic=True, weights=None, classes=4, classifier_activation=None
    )
    images = keras.Input((32, 32, 3), dtype="float32")
    logits = keras.layers.Activation("linear", dtype="float32")(network(images))
    keras.Model(images, logits).save(tmp_path / "teacher.keras")

    path = teacher_file(str(tmp_path))
    teacher = adopt_teacher(path, tmp_path / "run" / "teacher.keras", class_names=tuple("abcd"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    larger = resizing.resize(tf.cast(pixels, tf.float32), 32)
    np.testing.assert_array_equal(teacher(larger), network(larger))
    student = models.build("deit_nano", num_classes=4, image_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2)
    distiller = distill.Distiller(student, teacher, [5, 4, 3, 2])
    distiller.compile(optimizers.adamw(student, 1e-3), run_eagerly=True)
    assert np.isfinite(distiller.train_step((tf.constant(pixels), tf.range(4)))["dist_loss"])
    with pytest.raises(ValueError, match="has 4 classes, the data 3"):
        adopt_teacher(path, tmp_path / "other" / "teacher.keras", class_names=tuple("abc"))
