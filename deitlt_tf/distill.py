"""6 STEP. From one mixed batch the student learns the labels through CLS, and the flat CNN teacher through DIST."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import guidance as locality
from deitlt_tf import losses
from deitlt_tf.devices import replicas
from deitlt_tf.devices.accumulation import in_parts
from deitlt_tf.losses import NEVER
from deitlt_tf.mixing import mix
from deitlt_tf.models import interface, resizing, vit
from deitlt_tf.models.convolutions import batch_norms
from deitlt_tf.models.weights import is_frozen
from deitlt_tf.step import TrainingStep, checked

MIXING, DROP_PATH = 0, 1  # folded into the seed of a step, so that the two draw independently

LOSSES = ("loss", "cls_loss", "dist_loss", "agreement", "cosine")  # what a step with a teacher reports
PROBABILITIES = (
    "distillation=soft needs the teacher's logits, and this teacher returns probabilities (it ends in softmax): their "
    "softmax is nearly even. Cut the softmax off, as with classifier_activation=None in keras.applications, or choose "
    "distillation=hard."
)


class Lesson(NamedTuple):
    """What the student learns from a batch, or from a part of a batch.

    images: float32 [B, S, S, 3], mixed.
    labels: int [B], of the images before they are mixed.
    cls_targets: float32 [B, C], what CLS learns.
    dist_targets: what DIST learns: the teacher's classes int64 [B]; the shares of these classes float32 [B, C] where
      the teacher sees clean images; the teacher's logits float32 [B, C] in soft distillation.
    teacher_classes: int64 [B], argmax of the teacher's logits.
    weights: float32 [B], weights of the DIST losses: `cls_weights`, from `reweight_step` on times those by class.
    cls_weights: float32 [B], weights of the CLS losses: sample weights s, mixed as the images are; 1 without any.
    maps: the teacher's feature maps [B, h, w, C] that guide the student's patches; () without guidance.

    A plain ViT has the labels in place of what the teacher says, and `weights` are those of its only loss.
    """

    images: tf.Tensor
    labels: tf.Tensor
    cls_targets: tf.Tensor
    dist_targets: tf.Tensor
    teacher_classes: tf.Tensor
    weights: tf.Tensor
    cls_weights: tf.Tensor
    maps: tuple[tf.Tensor, ...] = ()


class Distiller(TrainingStep):
    """L = (1 - alpha) CE(f_c(x), y) + alpha w(y_t) CE(f_d(x), y_t), with y_t = argmax teacher(x).

    `compile(optimizer)` and `fit(batches)` train `student` in place. Batches are (images [B, H, W, 3], labels [B]),
    pixels 0..255, and may have sample weights s [B], by which the loss of each label is multiplied. For an image mixed
    of i and j, CLS has the loss lambda s_i CE(f_c(x), y_i) + (1 - lambda) s_j CE(f_c(x), y_j), and DIST has the loss
    s w(y_t) CE(f_d(x), y_t) with s = lambda s_i + (1 - lambda) s_j. Their sums over the global batch are divided by
    sum s and by sum s w.
    Without a teacher the student has one head and L = w(y) CE(f(x), y): the plain ViT.
    Every step is a function of (weights, batch, seed, step number): there is no random state.

    Args:
      student: keras.Model of `models.build`: images -> {"cls", "dist"} logits, or [B, C] without a teacher.
      teacher: keras.Model or function, images in pixels -> logits [B, C]; it runs in inference mode and is not tracked.
        Soft distillation needs logits and not probabilities. The logits of saved LDAM teachers are cosines times LDAM's
        scale. Cosines without a scale are too even for soft distillation.
      class_counts: training images of each class, [C].
      alpha: float. Share of the distillation loss. Defaults to 0.5.
      distillation: "hard" (the teacher's argmax) or "soft" (its distribution at `temperature`). Defaults to "hard".
      teacher_sees: "mixed", the student's own view, or "clean", the images before they are mixed. Where batches have a
        pair of images, (the student's, the teacher's), "clean" is the second of them. With "clean" the classes that
        the teacher chooses are mixed as the labels are, and so are their class weights. Hard distillation only.
        Defaults to "mixed".
      guidance: float. W of locality guidance, `deitlt_tf.guidance`, which adds to the loss W (1 - t / T) times the
        distance of the student's patches from the teacher's feature maps, t: steps. The optimiser has to train
        `trained`. It needs a keras.Model as the teacher, which sees the mixed view. Defaults to 0, none.
      guidance_steps: int. T, the step at which guidance ends. Defaults to 0; guidance needs it.
      temperature: float. tau of soft distillation. Defaults to 3.
      logit_adjustment: float. tau in the loss of CLS, whose logits become z_c + tau log(n_c / n); 1 = balanced softmax.
        Defaults to 0.
      reweight_step: int. From this step on the losses of DIST, or of the plain ViT, are weighted by class (DRW).
        Defaults to never.
      beta: float. beta of the class-balanced weights. Defaults to 0.9999.
      mixing: dict. Keywords of `mixing.mix`. Defaults to {}, the defaults of `mix`.
      mixing_off_step: int. From this step on there is no mixing and no smoothing. Defaults to never.
      accumulation: int. Number of equal parts in which a batch is computed, one after the other, to save memory. Images
        are mixed within a part, and each part draws its own numbers: two replicas draw the same as one replica with two
        parts. A last, smaller batch has parts that differ by one image. Defaults to 1.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      ema_decay: float. d of the moving average `ema`, a second student: e <- d e + (1 - d) w; 0 = no `ema`. It starts
        from the student's weights at the optimiser's first step. Frozen weights (`trainable` is False) are the
        student's. Defaults to 0.99996.
      ema_warmup: bool. Whether d is at most (1 + t) / (10 + t) after t steps. Without it the average of a short run is
        mostly the initial weights, whose share is d^t. Defaults to False.
      teacher_size: int. Side of the teacher's input. Defaults to that of a keras.Model with a fixed one, or else to the
        images' size.
      seed: int. Seed of mixing and drop path. Defaults to 0.

    Raises ValueError for an unknown `distillation` or `teacher_sees`, for arguments that contradict each other, for a
    teacher that does not take images or does not give logits of these classes, and for a class without images.
    Source: DeiT-LT (CVPR 2024) section 3; official engine.py, losses.py.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Callable[[tf.Tensor], tf.Tensor] | None,
        class_counts: losses.ClassCounts,
        *,
        alpha: float = 0.5,
        distillation: str = "hard",
        teacher_sees: str = "mixed",
        guidance: float = 0.0,
        guidance_steps: int = 0,
        temperature: float = 3.0,
        logit_adjustment: float = 0.0,
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        mixing: dict[str, Any] | None = None,
        mixing_off_step: int = NEVER,
        accumulation: int = 1,
        clip_norm: float = 0.0,
        ema_decay: float = 0.99996,
        ema_warmup: bool = False,
        teacher_size: int | None = None,
        seed: int = 0,
    ):
        if distillation not in ("hard", "soft"):
            raise ValueError(f"distillation={distillation} is unknown: choose hard or soft.")
        if teacher_sees not in ("mixed", "clean"):
            raise ValueError(f"teacher_sees={teacher_sees} is unknown: choose mixed or clean.")
        if teacher_sees == "clean" and distillation == "soft":
            raise ValueError("teacher_sees=clean mixes the classes that the teacher chose: it needs distillation=hard.")
        if guidance and (teacher_sees == "clean" or not isinstance(teacher, keras.Model) or guidance_steps < 1):
            raise ValueError(
                f"guidance={guidance:g} compares the student's patches with a teacher's maps of the same images: it "
                "needs a keras.Model as the teacher, teacher_sees=mixed, and guidance_steps above 0, where it ends."
            )
        if isinstance(student.output, dict) == (teacher is None):
            raise ValueError("a student with CLS and DIST (deit_*) needs a teacher; a plain one (vit_*) takes none.")
        super().__init__(
            student,
            class_counts,
            reweight_step=reweight_step,
            beta=beta,
            clip_norm=clip_norm,
            seed=seed,
            loss_names=("loss",) if teacher is None else LOSSES + (("guidance",) if guidance else ()),
        )
        self.ema = keras.models.clone_model(student) if ema_decay else None
        if self.ema:
            self.ema.set_weights(student.get_weights())
            self.ema.trainable = False
            pairs = zip(self.ema.weights, student.weights, strict=True)
            self.averaged = [(e, w) for e, w in pairs if not is_frozen(w)]
        self.alpha, self.distillation, self.temperature = alpha, distillation, temperature
        self.teacher_sees, self.accumulation = teacher_sees, accumulation
        self.ema_decay, self.ema_warmup = ema_decay, ema_warmup
        self.prior = tf.constant(losses.log_prior(class_counts, tau=logit_adjustment))
        self.mixing = {"num_classes": self.num_classes} | (mixing or {})
        self.mixing_off_step = mixing_off_step
        self.ask_teacher: Callable[[tf.Tensor], tf.Tensor] | None
        if isinstance(teacher, keras.Model):
            self.teacher_size, self.ask_teacher = input_side(teacher, teacher_size), in_inference(teacher)
            shape = known_shape(teacher, "output_shape")
            if shape is not None:
                check_output(shape, self.num_classes)
            if distillation == "soft":
                self.refuse_probabilities(self.teacher_size or student.input_shape[1])
        else:
            self.teacher_size, self.ask_teacher = teacher_size, teacher
        self.asks_model = isinstance(teacher, keras.Model)
        self.guidance, self.guidance_steps = guidance, guidance_steps
        self.guide = locality.Guide(student, teacher, seed=seed) if guidance and self.asks_model else None
        if self.guide:
            self.ask_with_maps = locality.with_maps(teacher, self.guide.maps)
        self.with_tokens = None
        if teacher is not None:
            self.with_tokens = vit.with_tokens(student, blocks=self.guide.blocks if self.guide else ())

    @property
    def student(self) -> keras.Model:
        return self.network

    @property
    def trained(self) -> list[keras.Variable]:
        return self.student.trainable_variables + (self.guide.variables if self.guide else [])

    @property
    def state(self) -> list[keras.Variable]:
        return [*(self.guide.variables if self.guide else []), *super().state]

    @property
    def draws_gamma(self) -> bool:
        mixing = self.mixing
        alphas = (mixing.get("mixup_alpha", 1), mixing.get("cutmix_alpha", 1))
        return mixing.get("probability", 1) > 0 and max(alphas) > 0

    def step(
        self, batch: tuple, *, sample_weight: tf.Tensor | None = None, teacher_classes: tf.Tensor | None = None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One step: its named losses, and the teacher's classes int64 [B] for the images of this replica.

        batch: (images, labels int [B]). sample_weight: float32 [B]. Defaults to None, all 1.
        teacher_classes: int64 [B], the classes that the teacher chooses for the images as this step mixes them. Hard
          distillation then does not run the teacher. Defaults to None.
        """
        step = tf.cast(self.optimizer.iterations, tf.int64)
        extras = {"sample_weight": sample_weight, "known": teacher_classes}
        extras = {name: values for name, values in extras.items() if values is not None}
        lesson = self.prepare(batch, step, extras)  # mix the images, ask the teacher, weigh the examples
        gradients, values = self.gradients(lesson, step)  # of the losses of CLS and DIST
        average = self.average_before(step)
        self.apply(gradients, self.trained)
        self.update_ema(average)
        return replicas.all_sum(values), lesson.teacher_classes

    def prepare(self, batch: tuple, step: tf.Tensor, extras: dict[str, tf.Tensor]) -> Lesson:
        """The lesson of the whole batch, computed in parts. extras: keywords of `lesson`, [B] each.

        It is complete before the first gradient, because losses are divided by the weights' sum over the global batch.
        """

        def lesson_of(k: int | tf.Tensor, part: tuple) -> Lesson:
            images, labels, extras = part
            return self.lesson(images, labels, step, self.part_seed(step, k, use=MIXING), **extras)

        return in_parts(self.accumulation, lesson_of, (*batch, extras))

    def gradients(self, lesson: Lesson, step: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """The gradient of the loss and the named losses of this replica, both summed over the parts of its batch."""
        variables = self.trained
        cls_share = self.share(lesson.cls_weights)  # [B]
        dist_share = self.share(lesson.weights)  # [B]

        def gradients_of(k: int | tf.Tensor, part: tuple) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
            seed = self.part_seed(step, k, use=DROP_PATH)
            with vit.drawing_from(seed), tf.GradientTape() as tape:
                values = self.losses_of(*part, step=step)
                loss = self.scaled(values["loss"])
            return tape.gradient(loss, variables), values

        shares = (lesson, cls_share, dist_share)
        # A BatchNorm takes its statistics from all replicas.
        unrolled = replicas.replica()[1] > 1 and bool(batch_norms(self.student))
        return in_parts(self.accumulation, gradients_of, shares, add_up=True, unrolled=unrolled)

    def part_seed(self, step: tf.Tensor, part: int | tf.Tensor, *, use: int) -> tf.Tensor:
        """The seed int [2] of one part of this replica's batch, for one use: MIXING or DROP_PATH."""
        return replicas.fold(replicas.step_seed(self.seed, step, part=part, parts=self.accumulation), use)

    def lesson(
        self,
        images: tf.Tensor | tuple[tf.Tensor, tf.Tensor],
        labels: tf.Tensor,
        step: tf.Tensor,
        seed: tf.Tensor,
        known: tf.Tensor | None = None,
        sample_weight: tf.Tensor | None = None,
    ) -> Lesson:
        """The lesson of one part: mix the images, ask the teacher, weigh the examples.

        images: [B, H, W, 3], or a pair of such tensors, (the student's, the teacher's). labels: int [B].
        step: int64, number of the step. seed: int [2], of mixing.
        known: int64 [B], the teacher's classes where they are known already. Defaults to None.
        sample_weight: float32 [B], weights of the images before they are mixed. Defaults to None, all 1.
        """
        student_images, teacher_images = images if isinstance(images, tuple) else (images, images)
        maps: tuple[tf.Tensor, ...] = ()
        clean = tf.cast(student_images, tf.float32)
        mixed, cls_targets = self.mix(clean, labels, step, seed, weights=sample_weight)
        ones = cls_weights = tf.ones(tf.shape(labels))
        if sample_weight is not None:
            cls_weights = tf.reduce_sum(cls_targets, axis=-1)  # [B]
            cls_targets = tf.math.divide_no_nan(cls_targets, cls_weights[:, None])

        def shares(classes: tf.Tensor) -> tf.Tensor:
            """Classes [B] of the clean images -> their shares of the mixed images, [B, C]."""
            targets = self.mix(clean, classes, step, seed, smoothing=0.0, weights=sample_weight)[1]
            return targets if sample_weight is None else tf.math.divide_no_nan(targets, cls_weights[:, None])

        if self.ask_teacher is None:
            teacher_classes, dist_targets = tf.cast(labels, tf.int64), labels
            # With NEVER all weights are 1, so the labels need not be mixed a second time.
            never = self.reweight_step == NEVER
            by_class = ones if never else tf.linalg.matvec(shares(labels), self.class_weights)
        elif self.teacher_sees == "clean":
            teacher_classes, _, _ = self.ask(tf.cast(teacher_images, tf.float32), known)
            dist_targets = shares(teacher_classes)
            by_class = tf.linalg.matvec(dist_targets, self.class_weights)
        else:
            teacher_classes, logits, maps = self.ask(mixed, known)
            dist_targets = teacher_classes if self.distillation == "hard" else logits
            by_class = tf.gather(self.class_weights, teacher_classes)
        weights = self.reweighted(by_class, step)
        if sample_weight is not None:
            weights *= cls_weights
        return Lesson(mixed, labels, cls_targets, dist_targets, teacher_classes, weights, cls_weights, maps)

    def mix(
        self,
        images: tf.Tensor,
        classes: tf.Tensor,
        step: tf.Tensor,
        seed: tf.Tensor,
        *,
        weights: tf.Tensor | None = None,
        **options: Any,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixed images and mixed targets of `classes`; from `mixing_off_step` on clean images and one-hot targets.

        weights: float32 [B], by which the targets are multiplied before they are mixed. Defaults to None, all 1.
        """

        def unmixed() -> tuple[tf.Tensor, tf.Tensor]:
            targets = tf.one_hot(classes, self.num_classes)
            return images, targets if weights is None else targets * weights[:, None]

        return tf.cond(
            step < self.mixing_off_step,
            lambda: mix(images, classes, seed, **self.mixing | options | {"weights": weights}),
            unmixed,
        )

    def ask(
        self, images: tf.Tensor, known: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor | None, tuple[tf.Tensor, ...]]:
        """The teacher's classes int64 [B], logits [B, C] and, for guidance, feature maps for float32 images in pixels.

        known: the classes, if they are known already. Hard distillation then skips the teacher, and logits are None.
        Raises ValueError for known classes with guidance, which needs the maps.
        """
        if known is not None and self.distillation == "hard":
            if self.guide:
                raise ValueError("guidance needs the teacher's feature maps: leave `teacher_classes` out.")
            return known, None, ()
        assert self.ask_teacher is not None, "a plain ViT has no teacher"
        images = resizing.resize(images, self.teacher_size or images.shape[1])
        logits, maps = self.ask_with_maps(images) if self.guide else (self.ask_teacher(images), [])
        check_output(logits, self.num_classes)
        logits = tf.stop_gradient(tf.cast(logits, tf.float32))
        if self.distillation == "soft" and not self.asks_model:  # a model was tried when this object was constructed
            logits = checked(logits, ~interface.are_probabilities(logits), PROBABILITIES)
        return tf.argmax(logits, -1), logits, tuple(tf.stop_gradient(x) for x in maps)

    def refuse_probabilities(self, size: int) -> None:
        """Raises ValueError if the teacher answers two images of noise, of this side, with probabilities."""
        assert self.ask_teacher is not None, "a plain ViT has no teacher"
        noise = 255 * np.random.default_rng(0).random((2, size, size, 3), np.float32)
        logits = self.ask_teacher(tf.constant(noise))
        check_output(logits, self.num_classes)
        if interface.are_probabilities(tf.cast(logits, tf.float32)):
            raise ValueError(PROBABILITIES)

    def losses_of(
        self, lesson: Lesson, cls_share: tf.Tensor, dist_share: tf.Tensor, *, step: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Named losses of one part. Summed over parts and replicas they are means over the global batch.

        cls_share, dist_share: [B], the weight of each example in the loss of CLS and of DIST. step: int64.
        """
        if self.with_tokens is None:
            outputs = self.student(lesson.images, training=True)
            each = losses.cross_entropy(lesson.cls_targets, outputs + self.prior)
            return {"loss": tf.reduce_sum(dist_share * each)}
        outputs, tokens, *hidden = self.with_tokens(lesson.images, training=True)
        cls_loss = tf.reduce_sum(cls_share * losses.cross_entropy(lesson.cls_targets, outputs["cls"] + self.prior))
        dist_loss = tf.reduce_sum(dist_share * self.distillation_losses(outputs["dist"], lesson.dist_targets))
        agree = lesson.teacher_classes == tf.cast(lesson.labels, tf.int64)
        tokens = tf.math.l2_normalize(tf.cast(tokens, tf.float32), axis=-1)  # [B, 2, D]
        cosine = tf.reduce_sum(tokens[:, 0] * tokens[:, 1], axis=-1)
        loss, guidance = (1 - self.alpha) * cls_loss + self.alpha * dist_loss, {}
        if self.guide:
            distance = tf.reduce_sum(cls_share * self.guide.losses(hidden, lesson.maps))
            loss, guidance = loss + self.guidance_weight(step) * distance, {"guidance": distance}
        return {
            "loss": loss,
            "cls_loss": cls_loss,
            "dist_loss": dist_loss,
            "agreement": tf.reduce_sum(cls_share * tf.cast(agree, tf.float32)),
            "cosine": tf.reduce_sum(cls_share * cosine),
            **guidance,
        }

    def guidance_weight(self, step: tf.Tensor) -> tf.Tensor:
        """W (1 - t / T) at step t, 0 from T on: a float32 scalar."""
        left = 1 - tf.cast(step, tf.float32) / self.guidance_steps
        return self.guidance * tf.maximum(left, 0.0)

    def distillation_losses(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """The loss of DIST for each image, [B], of its logits [B, C] and its targets, `Lesson.dist_targets`."""
        if self.distillation == "soft":
            return losses.soft_distillation(logits, targets, temperature=self.temperature)
        if self.teacher_sees == "clean":
            return losses.cross_entropy(targets, logits)
        return losses.hard_distillation(logits, targets)

    def average_before(self, step: tf.Tensor) -> list[tf.Tensor]:
        """The moving average before a step: `ema`, or in the optimiser's first step the student.

        The student's weights may have been loaded after `ema` was copied from them.
        """
        if self.ema is None:
            return []
        old, start = zip(*self.averaged, strict=True)
        return tf.cond(
            step == 0,
            lambda: [tf.identity(w) for w in start],
            lambda: [tf.identity(e) for e in old],
        )

    def update_ema(self, average: list[tf.Tensor]) -> None:
        """ema <- d average + (1 - d) student, after the optimiser's step. average: the one before the step.

        Source of the warm-up: TensorFlow, tf.train.ExponentialMovingAverage with num_updates.
        """
        if self.ema is None:
            return
        d = self.ema_decay
        if self.ema_warmup:
            steps = tf.cast(self.optimizer.iterations, tf.float32)
            d = tf.minimum(d, (1 + steps) / (10 + steps))
        with tf.name_scope("ema"):
            averaged, current = zip(*self.averaged, strict=True)
            new = [d * e + (1 - d) * w for e, w in zip(average, current, strict=True)]
            replicas.assign(list(averaged), new)


def in_inference(teacher: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The teacher as a function in inference mode.

    A Distiller keeps this function and not the model, because Keras would track, train and save the model as its part.
    """
    return lambda images: teacher(images, training=False)


def input_side(teacher: keras.Model, size: int | None) -> int | None:
    """Side of the teacher's input: its own where that is fixed, else `size`.

    Raises ValueError for a teacher that does not take [B, S, S, 3], or another S than `size`.
    """
    shape = known_shape(teacher, "input_shape")
    if shape is None:
        return size
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (3, None):
        raise ValueError(f"the teacher takes {shape}: it has to take images [B, S, S, 3].")
    if shape[1] and size and shape[1] != size:
        raise ValueError(f"teacher_size={size}, but the teacher takes images of {shape[1]} pixels: leave it out.")
    return shape[1] or size


def known_shape(model: keras.Model, name: str) -> Any:
    """A model's `input_shape` or `output_shape`; None for a subclass of keras.Model that has not been called."""
    try:
        return getattr(model, name)
    except (AttributeError, ValueError):
        return None


def check_output(output: Any, num_classes: int) -> None:
    """Raises ValueError unless a teacher's output is one tensor [B, C]. output: what it returns, or its shape."""
    is_shape = isinstance(output, tuple) and all(side is None or isinstance(side, int) for side in output)
    if isinstance(output, (dict, list, tuple)) and not is_shape:
        names = f" with {', '.join(output)}" if isinstance(output, dict) else ""
        raise ValueError(
            f"the teacher returns a {type(output).__name__}{names}, and a teacher has one output, logits "
            f"[B, {num_classes}]: choose one of them, as with keras.Model(teacher.input, teacher.output[...])."
        )
    shape = tf.TensorShape(output if is_shape else output.shape)
    if not shape.is_compatible_with([None, num_classes]):
        raise ValueError(
            f"the teacher's output has the shape {shape}, and class_counts has {num_classes} classes: it has to be "
            f"logits [B, {num_classes}]."
        )
