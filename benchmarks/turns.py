"""A fair comparison of two sides on a machine that is never quiet: each side is a process, and they take turns."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

Work = Callable[[], int]  # does some work; returns its number of images


class Side:
    """A process on the first `cores` cores that works on request.

    make: function of a module, (*arguments, cores=n) -> Work; it is called in the new process.
    """

    def __init__(self, make: Callable[..., Work], *arguments, cores: int):
        self.pipe, far = multiprocessing.get_context("spawn").Pipe()
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        process = multiprocessing.get_context("spawn").Process
        self.process = process(target=_serve, args=(make, arguments, far, allowed))
        self.process.start()
        far.close()  # or a process that died would leave this one waiting
        self.turn(0.0)  # compile, start workers, fill caches

    def turn(self, seconds: float) -> float:
        """Images/s over about `seconds`, after a warm-up of a third of that time."""
        self.pipe.send(seconds)
        return self.pipe.recv()

    def close(self) -> float:
        """End the process; returns the most memory that it had, MiB."""
        self.pipe.send(None)
        peak = self.pipe.recv()
        self.process.join()
        return peak


def _serve(make: Callable[..., Work], arguments: tuple, pipe: Connection, cores: list[int]) -> None:
    os.sched_setaffinity(0, cores)
    os.environ |= {"OMP_NUM_THREADS": str(len(cores)), "TF_CPP_MIN_LOG_LEVEL": "2"}
    work = make(*arguments, cores=len(cores))
    while (seconds := pipe.recv()) is not None:
        _rate(work, seconds / 3)
        pipe.send(_rate(work, seconds))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)


def _rate(work: Work, seconds: float) -> float:
    """Images/s over at least `seconds`."""
    start = time.perf_counter()
    done = work()
    while time.perf_counter() - start < seconds:
        done += work()
    return done / (time.perf_counter() - start)


def alternate(sides: dict[str, Side], *, turns: int, seconds: float) -> dict[str, list[float]]:
    """{name: images/s of each turn}. Every second turn goes through the sides in reverse order."""
    rates = {name: [] for name in sides}
    for number in range(turns):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            rates[name].append(sides[name].turn(seconds))
    return rates


def spread(values: list[float], *, digits: int = 0) -> str:
    """`median (lowest to highest)`."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def ratio(ours: list[float], theirs: list[float]) -> str:
    """`spread` of the ratios of neighbouring turns."""
    return spread([our / their for our, their in zip(ours, theirs, strict=True)], digits=2)
