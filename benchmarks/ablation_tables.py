"""From the lines of ablation.jsonl to tables: accuracy with its spread over seeds, paired differences, claims.

A line is one run: row, seed, class_counts [C], total [C] test images, and right {output: [C] hexadecimal numbers}. Each
bit of a class's number is one of its test images, in order: 1 if the output is right. A line also has the cosine of CLS
and DIST by epoch, reweight_epoch, and of the probes diversity, rank {token: [L]} and distance [L] in pixels. Outputs:
cls, dist, mean, teacher; EMA and uniform (exported with --prior=uniform) are those of the mean, or of the only head.
"""

import statistics
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from deitlt_tf.evaluation import intervals, metrics

COLUMNS = ("overall", "head", "mid", "tail")
OUTPUTS = {"cls": "CLS", "dist": "DIST", "mean": "mean", "uniform": "--prior=uniform", "EMA": "EMA"}
BOOTSTRAP = {"resamples": 1000, "seed": 0, "level": 0.95}
ENOUGH = 3  # seeds that settle a claim

Runs = dict[tuple[str, int], dict]  # (row, seed) -> line
Bounds = dict[str, float]  # value; with an interval also low and high


def packed(right: np.ndarray, labels: np.ndarray, num_classes: int) -> list[str]:
    """bool [N] as one hexadecimal number for each class, one bit for each image."""
    bits = ("".join(map(str, right[labels == c].astype(int))) for c in range(num_classes))
    return [f"{int(b or '0', 2):x}" for b in bits]


def accuracy(line: dict, output: str) -> dict[str, float]:
    """{overall, head, mid, tail} in percent, in the paper's groups."""
    hits = np.array([int(bits, 16).bit_count() for bits in line["right"][output]])
    class_hits = {output: hits, "total": np.array(line["total"])}
    row = metrics.accuracies(class_hits, np.array(line["class_counts"]))["paper"][output]
    return {column: row[column] for column in COLUMNS}


def difference(one: dict, output: str, other: dict, other_output: str) -> dict[str, Bounds]:
    """{overall, head, mid, tail: value, low, high} of accuracy(one) - accuracy(other), paired on the same images."""
    pairs = [(int(a, 16), int(b, 16)) for a, b in zip(one["right"][output], other["right"][other_output], strict=True)]
    gained = np.array([(a & ~b).bit_count() for a, b in pairs])
    lost = np.array([(b & ~a).bit_count() for a, b in pairs])
    total, counts = np.array(one["total"]), np.array(one["class_counts"])
    return intervals.difference(gained, lost, total, counts, **BOOTSTRAP)["paper"]


# ---- numbers as text ----


def spread(values: list[float]) -> str:
    """Mean over seeds; of several seeds also the standard deviation."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def gain(bounds: list[Bounds]) -> str:
    """Mean over seeds of a difference, with the hull of their intervals if all of them have one."""
    mean = statistics.mean(b["value"] for b in bounds)
    if not all("low" in b for b in bounds):
        return f"{mean:+.2f}"
    return f"{mean:+.1f} [{min(b['low'] for b in bounds):+.1f}, {max(b['high'] for b in bounds):+.1f}]"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [header, ["---"] * len(header), *rows])


# ---- tables ----


def students(runs: Runs, titles: dict[str, str], *, reference: str = "vit") -> str:
    """Every output of every row, with its differences from the same output of the reference with the same seed."""
    table = []
    for row, title in titles.items():
        lines = {seed: line for (name, seed), line in runs.items() if name == row}
        if not lines:
            continue
        first = [title, str(len(lines))]  # in the line of the first output only
        for output in (name for name in OUTPUTS if all(name in line["right"] for line in lines.values())):
            scores = [accuracy(line, output) for line in lines.values()]
            other = output if output in ("EMA", "uniform") else "cls"
            pairs = [
                difference(line, output, runs[reference, seed], other)
                for seed, line in lines.items()
                if row != reference and (reference, seed) in runs
            ]
            gains = [gain([b[column] for b in pairs]) if pairs else "" for column in ("overall", "tail")]
            table.append([*first, OUTPUTS[output], *(spread([s[c] for s in scores]) for c in COLUMNS), *gains])
            first = ["", ""]
    return markdown(["row", "seeds", "output", *COLUMNS, "overall - ViT", "tail - ViT"], table)


def against(runs: Runs, titles: dict[str, str], *, reference: str = "deit_lt_1", output: str = "mean") -> str:
    """Accuracy of the mean of CLS and DIST in every row, minus that of the reference with the same seed.

    An empty text if no row can be compared.
    """
    table = []
    for row, title in titles.items():
        pairs = [
            difference(line, output, runs[reference, seed], output)
            for (name, seed), line in runs.items()
            if name == row != reference and output in line["right"] and (reference, seed) in runs
        ]
        if pairs:
            table.append([title, str(len(pairs)), *(gain([b[column] for b in pairs]) for column in COLUMNS)])
    if not table:
        return ""
    return markdown([f"{output} - that of {titles.get(reference, reference)}", "seeds", *COLUMNS], table)


def teachers_table(runs: Runs, teachers: dict[str, str | None]) -> str:
    """Accuracy of every teacher that a run has."""
    scores: dict[str | None, dict[str, float]] = {}
    for (row, _), line in runs.items():
        if "teacher" in line["right"]:
            scores.setdefault(teachers[row], accuracy(line, "teacher"))
    return markdown(["teacher", *COLUMNS], [[name, *(f"{x[c]:.1f}" for c in COLUMNS)] for name, x in scores.items()])


class Claim(NamedTuple):
    """text: the claim. parts: {what is compared: {seed: bounds}}; a value above 0 agrees with the claim."""

    text: str
    parts: dict[str, dict[int, Bounds]]


def verdict(claim: Claim) -> str:
    """ "holds": every part is above 0 on every seed. "does not hold": one part is below 0 on every seed.

    A seed counts if its interval leaves out 0, or its number if it has no interval. An interval says how far other test
    images would move the number, and nothing about another seed, so both verdicts need ENOUGH seeds. All other cases
    are "not settled".
    """
    signs = []
    for bounds in claim.parts.values():
        low = [b.get("low", b["value"]) for b in bounds.values()]
        high = [b.get("high", b["value"]) for b in bounds.values()]
        enough = len(bounds) >= ENOUGH
        signs.append(1 if enough and min(low) > 0 else -1 if enough and max(high) < 0 else 0)
    return "does not hold" if -1 in signs else "not settled" if 0 in signs else "holds"


def claims(runs: Runs) -> list[Claim]:
    """The paper's claims at this scale. Students of one seed are compared: they see the same images in one order."""

    def seeds(*rows: str) -> list[int]:
        return [seed for row, seed in runs if row == rows[0] and all((other, seed) in runs for other in rows)]

    def pairs(one: tuple[str, str], other: tuple[str, str], column: str) -> dict[int, Bounds]:
        """(row, output) - (row, output)."""
        return {
            seed: difference(runs[one[0], seed], one[1], runs[other[0], seed], other[1])[column]
            for seed in seeds(one[0], other[0])
        }

    def above(text: str, one: tuple[str, str], other: tuple[str, str]) -> Claim:
        return Claim(text, {column: pairs(one, other, column) for column in ("overall", "tail")})

    def probed(number: Callable[[dict], float], larger: str, smaller: str) -> dict[int, Bounds]:
        return {s: {"value": number(runs[larger, s]) - number(runs[smaller, s])} for s in seeds(larger, smaller)}

    def rise(line: dict) -> float:
        """1 - cosine in the last epoch, minus 1 - cosine in the last epoch before K."""
        return line["cosine"][line["reweight_epoch"] - 1] - line["cosine"][-1]

    def rank(line: dict) -> float:
        return line["rank"]["DIST"][-1]

    def below(line: dict) -> float:
        return line["rank"]["CLS"][-1] - line["rank"]["DIST"][-1]

    def first_block(line: dict) -> float:
        return line["distance"][0]

    ours = "deit_lt_1"
    mean, cls, dist = (ours, "mean"), (ours, "cls"), (ours, "dist")
    short, short_uniform, slow = ("minutes", "mean"), ("minutes", "uniform"), ("slow_minutes", "mean")
    night_uniform = ("night", "uniform")
    return [
        Claim(
            "Out-of-distribution views gain on the tail",
            {"mixed - clean, tail": pairs(("mixed", "mean"), ("deit", "mean"), "tail")},
        ),
        Claim(
            "They do so with a teacher that knows the tail, LDAM + SAM",
            {"mixed - clean, tail": pairs(mean, ("clean", "mean"), "tail")},
        ),
        Claim(
            "Re-weighting DIST gains on the tail (the teacher changes from CE to LDAM with it)",
            {"DRW - none, tail": pairs(("drw", "mean"), ("mixed", "mean"), "tail")},
        ),
        Claim(
            "A flat teacher makes a better student",
            {"LDAM + SAM - LDAM, overall": pairs(mean, ("drw", "mean"), "overall")},
        ),
        Claim(
            "CLS is the expert on the head, DIST on the tail",
            {"CLS - DIST, head": pairs(cls, dist, "head"), "DIST - CLS, tail": pairs(dist, cls, "tail")},
        ),
        Claim(
            "The mean is above both",
            {"mean - CLS, overall": pairs(mean, cls, "overall"), "mean - DIST, overall": pairs(mean, dist, "overall")},
        ),
        above("DeiT-LT (1) is above the plain ViT", mean, ("vit", "cls")),
        above("It is so when both are exported with --prior=uniform", (ours, "uniform"), ("vit", "uniform")),
        above("It is above the plain ViT with patches of 4, too", ("fine", "mean"), ("vit_fine", "cls")),
        above("And so are both exported with --prior=uniform", ("fine", "uniform"), ("vit_fine", "uniform")),
        above("DeiT-LT (1) is above its own teacher", mean, (ours, "teacher")),
        above("It is so with patches of 4", ("fine", "mean"), ("fine", "teacher")),
        above("And exported with --prior=uniform", ("fine", "uniform"), ("fine", "teacher")),
        Claim(
            "With stem and guidance it is above its own teacher",
            {column: pairs(("stem", "mean"), ("stem", "teacher"), column) for column in ("overall", "head", "mid")},
        ),
        above("And exported with --prior=uniform", ("stem", "uniform"), ("stem", "teacher")),
        above("It is above the plain ViT with the same stem", ("stem", "mean"), ("stem_vit", "cls")),
        above("And so are both exported with --prior=uniform", ("stem", "uniform"), ("stem_vit", "uniform")),
        above("In ten minutes, with stem and guidance, it is above its own teacher", short, ("minutes", "teacher")),
        above("And exported with --prior=uniform", short_uniform, ("minutes", "teacher")),
        above("In ten minutes, both exported so, it is above the plain ViT", short_uniform, ("minutes_vit", "uniform")),
        above("At a rate of 3e-3 it is above DeiT, too", ("slow_minutes", "uniform"), ("slow_minutes_deit", "uniform")),
        Claim(
            "After a night, with stem and guidance, it is above its own teacher",
            {column: pairs(("night", "mean"), ("night", "teacher"), column) for column in ("overall", "head", "mid")},
        ),
        above("And exported with --prior=uniform", night_uniform, ("night", "teacher")),
        above("After a night, both exported so, it is above the plain ViT", night_uniform, ("night_vit", "uniform")),
        above("At 3e-3 a flat teacher makes a better student", slow, ("slow_minutes_sharp", "mean")),
        above("At 3e-3 re-weighting DIST gains", slow, ("slow_minutes_no_drw", "mean")),
        above("In ten minutes a rate of 1.2e-2 makes a better student than 3e-3", short, slow),
        above("At 3e-3 a fine-tuned ImageNet teacher makes a better student", ("slow_minutes_tuned", "mean"), slow),
        above("So does quick, frozen ImageNet features", ("slow_minutes_quick", "mean"), slow),
        Claim(
            "Hard distillation is better than soft",
            {"hard - soft, overall": pairs(mean, ("soft", "mean"), "overall")},
        ),
        Claim(
            "Diversity of the tokens, 1 - cosine, rises after re-weighting",
            {
                "from K to the end": {s: {"value": rise(runs[ours, s])} for s in seeds(ours)},
                "more than without re-weighting (DeiT)": probed(rise, ours, "deit"),
            },
        ),
        Claim(
            "With stem and guidance it rises from K to the end",
            {row: {s: {"value": rise(runs[row, s])} for s in seeds(row)} for row in ("stem", "minutes")},
        ),
        Claim("The rank of DIST is lower with a flat teacher", {"LDAM - LDAM + SAM": probed(rank, "drw", ours)}),
        Claim("The rank of DIST is lower than DeiT's", {"DeiT - DeiT-LT (1)": probed(rank, "deit", ours)}),
        Claim(
            "The rank of DIST is lower than that of CLS",
            {row: {s: {"value": below(runs[row, s])} for s in seeds(row)} for row in (ours, "stem", "minutes")},
        ),
        Claim(
            "Early blocks look more locally (block 1, pixels)",
            {
                "ViT - DeiT-LT (1)": probed(first_block, "vit", ours),
                "DeiT - DeiT-LT (1)": probed(first_block, "deit", ours),
            },
        ),
        Claim(
            "With stem and guidance they do (ViT with the stem - DeiT-LT (1))",
            {row: probed(first_block, f"{row}_vit", row) for row in ("stem", "minutes")},
        ),
    ]


def claims_table(every: list[Claim]) -> str:
    rows = []
    for claim in every:
        parts = [f"{what}: {gain(list(part.values())) if part else 'not run'}" for what, part in claim.parts.items()]
        seeds = sorted({len(part) for part in claim.parts.values()})
        rows.append([claim.text, "; ".join(parts), " or ".join(map(str, seeds)), verdict(claim)])
    return markdown(["claim", "differences, positive as claimed", "seeds", "verdict"], rows)


def page(lines: list[dict], *, titles: dict[str, str], teachers: dict[str, str | None]) -> str:
    """All tables in Markdown. titles: {row: its title}, in order. teachers: {row: name of its teacher}."""
    runs = {(line["row"], line["seed"]): line for line in sorted(lines, key=lambda line: line["seed"])}
    return "\n".join(
        [
            "Top-1 accuracy on the test images, %; groups as in the paper; of several seeds mean ± standard deviation.",
            "Differences: on the same test images in pairs with the plain ViT of the same seed (EMA with EMA,",
            "--prior=uniform, which moves the main output's logits to a balanced test set, with the same), mean over",
            "seeds [hull of the seeds' 95 % bootstrap intervals].",
            "",
            students(runs, titles),
            against(runs, titles),
            *(
                against({run: line for run, line in runs.items() if run[0].startswith(name)}, titles, reference=name)
                for name in ("minutes", "slow_minutes")
            ),
            teachers_table(runs, teachers),
            f"A claim holds (does not hold) where it has {ENOUGH} seeds or more and the intervals of all of them leave",
            "out 0 on the claimed (the other) side, or the numbers themselves where they have no interval. With",
            "fewer seeds it is not settled, however clear one seed is. Accuracies in points, of the mean of CLS and",
            "DIST unless another output is named.",
            "",
            claims_table(claims(runs)),
        ]
    )
