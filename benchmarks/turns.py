"""Two sides measured fairly on a machine that is never quiet: each a process of its own, taking turns."""

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

Work = Callable[[], int]  # does some, and says how many images that were


class Side:
    """A process on some of the cores that works when told to.

    make: a function of a module, (*arguments, cores=n) -> Work; called there.
    """

    def __init__(self, make: Callable[..., Work], *arguments, cores: int):
        self.pipe, far = multiprocessing.get_context("spawn").Pipe()
        allowed = sorted(os.sched_getaffinity(0))[:cores]
        process = multiprocessing.get_context("spawn").Process
        self.process = process(target=_serve, args=(make, arguments, far, allowed))
        self.process.start()
        far.close()  # so that a process that died ends the waiting here
        self.turn(0.0)  # compiles, starts workers, fills caches

    def turn(self, seconds: float) -> float:
        """Images/s over about `seconds`, after a third of that for warming up."""
        self.pipe.send(seconds)
        return self.pipe.recv()

    def close(self) -> float:
        """Ends the process; MiB of memory that it had at most."""
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
    start = time.perf_counter()
    done = work()
    while time.perf_counter() - start < seconds:
        done += work()
    return done / (time.perf_counter() - start)


def alternate(sides: dict[str, Side], *, turns: int, seconds: float) -> dict[str, list[float]]:
    """{name: images/s of each turn}; the order is reversed from turn to turn."""
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
    """Of neighbouring turns."""
    return spread([our / their for our, their in zip(ours, theirs, strict=True)], digits=2)
