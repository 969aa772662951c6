"""6 STEP. The student learns labels through CLS and a flat CNN teacher through DIST, from one mixed batch."""

from collections.abc import Callable

import keras
import tensorflow as tf

from deitlt_tf import losses
from deitlt_tf.devices import loss_scale, replicas
from deitlt_tf.devices.accumulation import in_parts
from deitlt_tf.mixing import mix
from deitlt_tf.models import interface, resizing, vit


class Distiller(keras.Model):
    """L = (1 - alpha) CE(f_c(x), y) + alpha w(y_t) CE(f_d(x), y_t), with y_t = argmax teacher(x).

    `compile(optimizer)` and `fit(batches)` train `student` in place; batches are (images [B, H, W, 3], labels [B]),
    pixels 0..255; a third element, classes [B], is what the teacher would choose for the images as this step mixes
    them, and then it is not asked. Without a teacher the student has one head and L = w(y) CE(f(x), y): the plain ViT.
    Every step is a function of (weights, batch, seed, step number): no random state is kept anywhere.

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
      accumulation: int. The batch is worked off in so many equal parts, to save memory; mixing stays within a part.
        Which parts there are decides what is drawn: two replicas draw what one with two parts does.
      clip_norm: float. Cut of the global gradient norm, 0 = none. Defaults to 0.
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
        reweight_step: int = losses.NEVER,
        beta: float = 0.9999,
        mixing: dict | None = None,
        mixing_off_step: int = losses.NEVER,
        accumulation: int = 1,
        clip_norm: float = 0.0,
        ema_decay: float = 0.99996,
        teacher_size: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if distillation not in ("hard", "soft"):
            raise ValueError(f"distillation {distillation!r} is unknown: choose hard or soft.")
        if teacher_sees not in ("mixed", "clean"):
            raise ValueError(f"teacher_sees {teacher_sees!r} is unknown: choose mixed or clean.")
        if teacher_sees == "clean" and distillation == "soft":
            raise ValueError("a teacher that sees clean images is distilled by its classes: distillation must be hard.")
        teacher_is_model = isinstance(teacher, keras.Model)
        if teacher_is_model:
            teacher_size = teacher.input_shape[1]
        if isinstance(student.output, dict) == (teacher is None):
            raise ValueError("a student with CLS and DIST (deit_*) needs a teacher; a plain one (vit_*) takes none.")
        self.student = student
        self.ema = keras.models.clone_model(student) if ema_decay else None
        if self.ema:
            self.ema.set_weights(student.get_weights())
            self.ema.trainable = False
        self.num_classes = len(class_counts)
        self.class_weights = tf.constant(losses.class_balanced_weights(class_counts, beta))
        self.alpha, self.distillation, self.temperature = alpha, distillation, temperature
        self.teacher_sees = teacher_sees
        self.prior = tf.constant(losses.log_prior(class_counts, tau=logit_adjustment))
        self.reweight_step, self.mixing_off_step = reweight_step, mixing_off_step
        self.mixing = {"num_classes": self.num_classes} | (mixing or {})
        self.accumulation, self.clip_norm, self.ema_decay, self.seed = accumulation, clip_norm, ema_decay, seed
        self.teacher_size = teacher_size
        self.scaling = loss_scale.of(student)
        self.state = self.scaling.variables if self.scaling else []  # for a checkpoint, beside weights and optimiser
        # A function, not a layer: Keras would track, train and save it as a part of this model.
        self.ask_teacher = (lambda images: teacher(images, training=False)) if teacher_is_model else teacher
        self.with_tokens = vit.with_tokens(student)
        self.accuracy = {
            name: keras.metrics.SparseCategoricalAccuracy(name=name) for name in interface.heads(student.output)
        }
        self.built = True

    def compile(self, optimizer, *, jit_compile=False, **options):
        """As Keras', but not through XLA unless asked: mixing draws from Gamma, for which XLA has no kernel.

        float16's losses are scaled here; Keras would wrap the optimiser, and divide the gradients a second time.
        """
        super().compile(optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options)

    def call(self, images, training=False):
        return self.student(images, training=training)

    def train_step(self, batch):
        return self.step(batch)[0]

    def step(self, batch) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """One step: its named losses, and the classes int64 [B] that the teacher chose for this replica's images."""
        step = tf.cast(self.optimizer.iterations, tf.int64)
        variables = self.student.trainable_variables

        def seed(k):
            return replicas.step_seed(self.seed, step, part=k, parts=self.accumulation)

        def view(k, part):
            return self.view(*part[:2], step, replicas.fold(seed(k), 0), *part[2:])

        # What student and teacher are asked, for the whole batch: only then the global sum of weights is known.
        views = in_parts(self.accumulation, view, tuple(batch[:3]))
        share = tf.ones_like(views["weight"]) / replicas.global_sum(tf.ones_like(views["weight"]))
        weighted_share = views["weight"] / replicas.global_sum(views["weight"])

        def gradients(k, part):
            with vit.drawing_from(replicas.fold(seed(k), 1)), tf.GradientTape() as tape:
                parts = self.losses_of(**part)
                loss = parts["loss"] * self.scaling.scale if self.scaling else parts["loss"]
            return tape.gradient(loss, variables), parts

        slopes, parts = in_parts(
            self.accumulation, gradients, views | {"share": share, "weighted_share": weighted_share}, add_up=True
        )
        replicas.apply_summed(self.optimizer, slopes, variables, clip_norm=self.clip_norm, scaling=self.scaling)
        self.follow()
        return replicas.all_sum(parts), views.get("chosen")

    def view(self, images, labels, step, seed, chosen=None):
        """A part of a batch as both networks see it: mixed images, targets, what the teacher says, weights by class.

        images: [B, H, W, 3], or a pair of them. chosen: the teacher's classes, if known; soft distillation asks all the
        same. "teacher", what DIST learns: classes [B]; of clean images targets [B, C]; of soft distillation logits.
        """
        images, clean = images if isinstance(images, tuple) else (images, images)
        plain = tf.cast(images, tf.float32)

        def mixed(classes, **options):
            return tf.cond(
                step < self.mixing_off_step,
                lambda: mix(plain, classes, seed, **self.mixing | options),
                lambda: (plain, tf.one_hot(classes, self.num_classes)),
            )

        def shares(classes):
            return mixed(classes, smoothing=0.0)[1]

        def weights(by_class):
            return tf.where(step >= self.reweight_step, by_class, tf.ones_like(by_class))

        images, targets = mixed(labels)
        view = {"images": images, "labels": labels, "targets": targets}
        if self.ask_teacher is None and self.reweight_step == losses.NEVER:  # mixes nothing a second time
            return view | {"weight": tf.ones(tf.shape(labels))}
        if self.ask_teacher is None:
            return view | {"weight": weights(tf.linalg.matvec(shares(labels), self.class_weights))}
        if chosen is None or self.distillation == "soft":
            seen = tf.cast(clean, tf.float32) if self.teacher_sees == "clean" else images
            answer = self.ask_teacher(resizing.resize(seen, self.teacher_size or seen.shape[1]))
            answer = tf.stop_gradient(tf.cast(answer, tf.float32))
            chosen = tf.argmax(answer, -1)
        view |= {"chosen": chosen}
        if self.teacher_sees == "clean":
            learnt = shares(chosen)
            return view | {"teacher": learnt, "weight": weights(tf.linalg.matvec(learnt, self.class_weights))}
        learnt = chosen if self.distillation == "hard" else answer
        return view | {"teacher": learnt, "weight": weights(tf.gather(self.class_weights, chosen))}

    def losses_of(self, images, labels, targets, share, weighted_share, weight, teacher=None, chosen=None):
        """Named sums over a part of a batch; added up over parts and replicas they are means over the global batch."""
        outputs, tokens = self.with_tokens(images, training=True)
        if teacher is None:
            loss = tf.reduce_sum(weighted_share * losses.cross_entropy(targets, outputs + self.prior))
            return {"loss": loss}
        cls_loss = tf.reduce_sum(share * losses.cross_entropy(targets, outputs["cls"] + self.prior))
        if self.distillation == "soft":
            each = losses.soft_distillation(outputs["dist"], teacher, temperature=self.temperature)
        elif self.teacher_sees == "clean":
            each = losses.cross_entropy(teacher, outputs["dist"])
        else:
            each = losses.hard_distillation(outputs["dist"], teacher)
        dist_loss = tf.reduce_sum(weighted_share * each)
        agree = chosen == tf.cast(labels, tf.int64)
        tokens = tf.math.l2_normalize(tf.cast(tokens, tf.float32), axis=-1)  # [B, 2, D]
        cosine = tf.reduce_sum(tokens[:, 0] * tokens[:, 1], axis=-1)
        return {
            "loss": (1 - self.alpha) * cls_loss + self.alpha * dist_loss,
            "cls_loss": cls_loss,
            "dist_loss": dist_loss,
            "agreement": tf.reduce_sum(share * tf.cast(agree, tf.float32)),
            "cosine": tf.reduce_sum(share * cosine),
        }

    def follow(self):
        """ema <- d ema + (1 - d) student, after the optimiser's step."""
        if self.ema is None:
            return
        old, new = self.ema.weights, self.student.weights
        d = self.ema_decay
        with tf.name_scope("ema"):
            replicas.assign(old, [d * e + (1 - d) * w for e, w in zip(old, new, strict=True)])

    def test_step(self, batch):
        """Accuracy of cls, dist and their mean; a third element of the batch marks images (1) and padding (0)."""
        images, labels, mask = (*batch, None)[:3]
        for name, logits in interface.heads(self.student(images, training=False)).items():
            self.accuracy[name].update_state(labels, logits, sample_weight=mask)
        return {name: metric.result() for name, metric in self.accuracy.items()}

    def get_config(self):
        raise NotImplementedError("a Distiller is not saved: save `distiller.student`, which is a plain Keras model.")
