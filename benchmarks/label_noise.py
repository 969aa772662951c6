"""How well review.csv finds wrong labels: some labels of a folder are made wrong, and it is counted which are listed.

    python benchmarks/label_noise.py --data_dir=cifar10_lt --workdir=runs/noise [--feature_dir=runs/quick/features]

The images of --data_dir should have right labels. A share of the training labels, drawn at random with --seed, gets
another class. Prints, for several limits of the label's probability, how many images are listed, which share of them is
wrong (precision), and which share of the wrong ones is listed (recall); also for the rarer half of the classes alone.
WORKDIR gets the features, nothing else.
"""

import dataclasses

import numpy as np

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

SHARE = 0.05  # of wrong labels
LIMITS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)


def main(recipe: Recipe) -> None:
    from deitlt_tf.data import sources
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.evaluation import review
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.training.quick import QuickRun

    prepare(**recipe.run.numerics())
    splits = load_splits(**recipe.data.loading(), folder=recipe.run.folder)
    train, classes = splits.train, len(splits.train.class_names)
    random = np.random.default_rng(recipe.run.seed)
    wrong = random.random(len(train)) < SHARE
    moved = (train.labels + random.integers(1, classes, len(train))) % classes
    labels = np.where(wrong, moved, train.labels).astype(np.int32)
    run = QuickRun(recipe, sources.Splits(dataclasses.replace(train, labels=labels), splits.val, splits.test))
    judged = review.out_of_fold(labels, fit=run.classifier_of, seed=recipe.run.seed)
    counts = sources.class_counts(train.labels, classes)
    rare = np.isin(labels, np.argsort(counts)[: classes // 2])[judged.indices]
    wrong, doubtful = wrong[judged.indices], judged.guess != labels[judged.indices]
    print(f"{wrong.sum()} of {len(wrong)} labels are wrong, {wrong[rare].sum()} of them name a rare class")
    print("limit   listed  precision  recall   of rare classes: listed  precision  recall")
    for limit in LIMITS:
        listed = doubtful & (judged.label_probability <= limit)
        numbers = []
        for part in (np.ones(len(wrong), bool), rare):
            hits = (listed & wrong & part).sum()
            numbers += [
                (listed & part).sum(),
                hits / max((listed & part).sum(), 1),
                hits / max((wrong & part).sum(), 1),
            ]
        print("{:<7g} {:>6} {:>10.2f} {:>7.2f} {:>24} {:>10.2f} {:>7.2f}".format(limit, *numbers))


if __name__ == "__main__":
    command_line.program(main, __doc__, base="quick.cfg")
