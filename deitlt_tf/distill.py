"""6 STEP. The student learns labels through CLS and a flat CNN teacher through DIST, from one mixed batch."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import replicas
from deitlt_tf.devices.accumulation import in_parts
from deitlt_tf.losses import NEVER
from deitlt_tf.mixing import mix
from deitlt_tf.models import resizing, vit
from deitlt_tf.step import TrainingStep


class Lesson(NamedTuple):
    """What both tokens learn from a batch, or from a part of it.

    images: float32 [B, S, S, 3], mixed. labels: int [B]. targets: float32 [B, C], what CLS learns.
    taught: what DIST learns: the teacher's classes int64 [B]; their shares float32 [B, C] where the teacher sees clean
      images; its logits float32 [B, C] in soft distillation. A plain ViT has the labels here.
    chosen: int64 [B], the teacher's classes. weights: float32 [B], by class from K on, 1 before.
    """

    images: tf.Tensor
    labels: tf.Tensor
    targets: tf.Tensor
    taught: tf.Tensor
    chosen: tf.Tensor
    weights: tf.Tensor


class Distiller(TrainingStep):
    """L = (1 - alpha) CE(f_c(x), y) + alpha w(y_t) CE(f_d(x), y_t), with y_t = argmax teacher(x).

    `compile(optimizer)` and `fit(batches)` train `student` in place; batches are (images [B, H, W, 3], labels [B]),
    pixels 0..255; a third element, classes [B], is what the teacher would choose for the images as this step mixes
    them, and then the teacher is not asked.
    Without a teacher the student has one head and L = w(y) CE(f(x), y): the plain ViT.
    Every step is a function of (weights, batch, seed, step number): there is no random state.

    Args:
      student: keras.Model of `models.build`: images -> {"cls", "dist"} logits, or [B, C] without a teacher.
      teacher: keras.Model or function, images in pixels -> logits [B, C]; run in inference mode, never tracked.
        Files of LDAM teachers answer cosines times LDAM's scale; bare cosines are too even for soft distillation.
      class_counts: training images of each class, [C].
      alpha: float. Share of the distillation loss. Defaults to 0.5.
      distillation: "hard" (the teacher's argmax) or "soft" (its distribution at `temperature`). Defaults to "hard".
      teacher_sees: "mixed", the student's own view, or "clean", the images before they are mixed, or the second ones
        where batches have a pair of images, (the student's, the teacher's); then DIST's targets, and their class
        weights, are the chosen classes mixed as the labels are. Hard distillation only. Defaults to "mixed".
      temperature: float. tau of soft distillation. Defaults to 3.
      logit_adjustment: float. tau: CLS's loss sees z_c + tau log(n_c / n); 1 = balanced softmax. Defaults to 0.
      reweight_step: int. From this step on DIST losses, or the plain ViT's, are weighted by class (DRW). Defaults to
        never.
      beta: float. Of the class-balanced weights. Defaults to 0.9999.
      mixing: dict. Keywords of `mixing.mix`. Defaults to {}, its defaults.
      mixing_off_step: int. From this step on there is no mixing and no smoothing. Defaults to never.
      accumulation: int. Equal parts that the batch is computed in, one after the other, to save memory. Images are
        mixed within a part, and what is drawn depends on the part: two replicas draw what one with two parts does.
      clip_norm: float. Largest global norm of the gradient, 0 = not clipped. Defaults to 0.
      ema_decay: float. `ema`, a second student, follows: e <- d e + (1 - d) w; 0 = none. Defaults to 0.99996.
      teacher_size: int. Side of the teacher's input; a Keras teacher tells its own. Defaults to the images' size.
      seed: int. Of mixing and drop path. Defaults to 0.

    Source: DeiT-LT (CVPR 2024) section 3; official engine.py, losses.py.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model | Callable[[tf.Tensor], tf.Tensor] | None,
        class_counts,
        *,
        alpha: float = 0.5,
        distillation: str = "hard",
        teacher_sees: str = "mixed",
        temperature: float = 3.0,
        logit_adjustment: float = 0.0,
        reweight_step: int = NEVER,
        beta: float = 0.9999,
        mixing: dict | None = None,
        mixing_off_step: int = NEVER,
        accumulation: int = 1,
        clip_norm: float = 0.0,
        ema_decay: float = 0.99996,
        teacher_size: int | None = None,
        seed: int = 0,
    ):
        if distillation not in ("hard", "soft"):
            raise ValueError(f"distillation {distillation!r} is unknown: choose hard or soft.")
        if teacher_sees not in ("mixed", "clean"):
            raise ValueError(f"teacher_sees {teacher_sees!r} is unknown: choose mixed or clean.")
        if teacher_sees == "clean" and distillation == "soft":
            raise ValueError("a teacher that sees clean images is distilled by its classes: distillation must be hard.")
        if isinstance(student.output, dict) == (teacher is None):
            raise ValueError("a student with CLS and DIST (deit_*) needs a teacher; a plain one (vit_*) takes none.")
        shared = {"reweight_step": reweight_step, "beta": beta, "clip_norm": clip_norm, "seed": seed}
        super().__init__(student, class_counts, **shared)
        self.ema = keras.models.clone_model(student) if ema_decay else None
        if self.ema:
            self.ema.set_weights(student.get_weights())
            self.ema.trainable = False
        self.alpha, self.distillation, self.temperature = alpha, distillation, temperature
        self.teacher_sees, self.accumulation, self.ema_decay = teacher_sees, accumulation, ema_decay
        self.prior = tf.constant(losses.log_prior(class_counts, tau=logit_adjustment))
        self.mixing = {"num_classes": self.num_classes} | (mixing or {})
        self.mixing_off_step = mixing_off_step
        teacher_is_model = isinstance(teacher, keras.Model)
        self.teacher_size = teacher.input_shape[1] if teacher_is_model else teacher_size
        # A function, not a layer: Keras would track, train and save it as a part of this model.
        self.ask_teacher = (lambda images: teacher(images, training=False)) if teacher_is_model else teacher
        self.with_tokens = vit.with_tokens(student)

    @property
    def student(self) -> keras.Model:
        return self.network

    def train_step(self, batch):
        return self.step(batch)[0]

    def step(self, batch) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One step: its named losses, and the classes int64 [B] that the teacher chose for this replica's images."""
        step = tf.cast(self.optimizer.iterations, tf.int64)
        variables = self.student.trainable_variables

        def seed(k):
            return replicas.step_seed(self.seed, step, part=k, parts=self.accumulation)

        def lesson_of(k, part):
            return self.lesson(*part[:2], step, replicas.fold(seed(k), 0), *part[2:])

        # For the whole batch first, because losses are divided by the global sum of the weights.
        lesson = in_parts(self.accumulation, lesson_of, tuple(batch[:3]))
        ones = tf.ones_like(lesson.weights)
        share = ones / replicas.global_sum(ones)  # [B], of CLS
        weighted_share = lesson.weights / replicas.global_sum(lesson.weights)  # [B], of DIST

        def gradients(k, part):
            with vit.drawing_from(replicas.fold(seed(k), 1)), tf.GradientTape() as tape:
                parts = self.losses_of(*part)
                loss = self.scaled(parts["loss"])
            return tape.gradient(loss, variables), parts

        slopes, parts = in_parts(self.accumulation, gradients, (lesson, share, weighted_share), add_up=True)
        self.apply(slopes, variables)
        self.follow()
        return replicas.all_sum(parts), lesson.chosen

    def lesson(self, images, labels, step, seed, known=None) -> Lesson:
        """Mix, ask the teacher, weigh: one part of a batch.

        images: [B, H, W, 3], or a pair of them, (the student's, the teacher's). known: the teacher's classes, if they
        are known already; soft distillation asks the teacher all the same.
        """
        images, clean = images if isinstance(images, tuple) else (images, images)
        plain = tf.cast(images, tf.float32)
        mixed, targets = self.mix(plain, labels, step, seed)
        if self.ask_teacher is None:
            chosen, taught = tf.cast(labels, tf.int64), labels
            if self.reweight_step == NEVER:  # so nothing has to be mixed a second time
                return Lesson(mixed, labels, targets, taught, chosen, tf.ones(tf.shape(labels)))
            shares = self.mix(plain, labels, step, seed, smoothing=0.0)[1]
            by_class = tf.linalg.matvec(shares, self.class_weights)
        else:
            seen = tf.cast(clean, tf.float32) if self.teacher_sees == "clean" else mixed
            chosen, logits = self.ask(seen, known)
            if self.teacher_sees == "clean":
                taught = self.mix(plain, chosen, step, seed, smoothing=0.0)[1]
                by_class = tf.linalg.matvec(taught, self.class_weights)
            else:
                taught = chosen if self.distillation == "hard" else logits
                by_class = tf.gather(self.class_weights, chosen)
        return Lesson(mixed, labels, targets, taught, chosen, self.reweighted(by_class, step))

    def mix(self, images, classes, step, seed, **options):
        """Mixed images and targets of `classes`; from `mixing_off_step` on unmixed images and one-hot targets."""
        return tf.cond(
            step < self.mixing_off_step,
            lambda: mix(images, classes, seed, **self.mixing | options),
            lambda: (images, tf.one_hot(classes, self.num_classes)),
        )

    def ask(self, images, known=None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """The teacher's classes int64 [B] and its logits [B, C]; of known classes no logits, if they are not needed."""
        if known is not None and self.distillation == "hard":
            return known, None
        logits = self.ask_teacher(resizing.resize(images, self.teacher_size or images.shape[1]))
        logits = tf.stop_gradient(tf.cast(logits, tf.float32))
        return tf.argmax(logits, -1), logits

    def losses_of(self, lesson: Lesson, share, weighted_share) -> dict[str, tf.Tensor]:
        """Named sums over a part of a batch; added up over parts and replicas they are means over the global batch."""
        outputs, tokens = self.with_tokens(lesson.images, training=True)
        if self.ask_teacher is None:
            each = losses.cross_entropy(lesson.targets, outputs + self.prior)
            return {"loss": tf.reduce_sum(weighted_share * each)}
        cls_loss = tf.reduce_sum(share * losses.cross_entropy(lesson.targets, outputs["cls"] + self.prior))
        dist_loss = tf.reduce_sum(weighted_share * self.distillation_losses(outputs["dist"], lesson.taught))
        agree = lesson.chosen == tf.cast(lesson.labels, tf.int64)
        tokens = tf.math.l2_normalize(tf.cast(tokens, tf.float32), axis=-1)  # [B, 2, D]
        cosine = tf.reduce_sum(tokens[:, 0] * tokens[:, 1], axis=-1)
        return {
            "loss": (1 - self.alpha) * cls_loss + self.alpha * dist_loss,
            "cls_loss": cls_loss,
            "dist_loss": dist_loss,
            "agreement": tf.reduce_sum(share * tf.cast(agree, tf.float32)),
            "cosine": tf.reduce_sum(share * cosine),
        }

    def distillation_losses(self, logits, taught) -> tf.Tensor:
        """The loss of DIST for each image, [B]."""
        if self.distillation == "soft":
            return losses.soft_distillation(logits, taught, temperature=self.temperature)
        if self.teacher_sees == "clean":
            return losses.cross_entropy(taught, logits)
        return losses.hard_distillation(logits, taught)

    def follow(self):
        """ema <- d ema + (1 - d) student, after the optimiser's step."""
        if self.ema is None:
            return
        old, new = self.ema.weights, self.student.weights
        d = self.ema_decay
        with tf.name_scope("ema"):
            replicas.assign(old, [d * e + (1 - d) * w for e, w in zip(old, new, strict=True)])
