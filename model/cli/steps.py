"""Shows where a long command is: a spinner or bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

# Shortest time between two lines about the same thing where the output is no terminal.
LINE_S = 15.0
# Time after which a step is worth a line there.
SLOW_S = 2.0


@contextmanager
def steps(console: Console, first: str, slow_s: float = SLOW_S) -> Iterator[Callable[[str], None]]:
    """Yields the function that names the next step.

    Args:
        console: Where the steps are shown.
        first: The first step.
        slow_s: Where there is no terminal, only steps that take longer are named.
    """
    if console.is_terminal:
        with console.status(first) as status:
            yield status.update
        return
    timer: threading.Timer | None = None

    def say(text: str) -> None:
        nonlocal timer
        if timer is not None:
            timer.cancel()
        line = functools.partial(console.print, f"{text} …", highlight=False, markup=False, soft_wrap=True)
        timer = threading.Timer(slow_s, line)
        timer.daemon = True
        timer.start()

    say(first)
    try:
        yield say
    finally:
        if timer is not None:
            timer.cancel()


@contextmanager
def counts(console: Console, names: Iterable[str]) -> Iterator[Callable[[str, int, int], None]]:
    """Yields the function that reports how much of something is done: its name, how many are done, how many there are.

    Args:
        console: Where it is shown.
        names: Everything that is counted.
    """
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            tasks = {name: bar.add_task(name, total=None) for name in names}
            yield lambda name, done, total: bar.update(tasks[name], completed=done, total=total)
        return
    latest: dict[str, float] = {}

    def show(name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done >= total or now - latest.setdefault(name, now) >= LINE_S:
            latest[name] = now
            console.print(f"{name}: {done:,} of {total:,}", highlight=False, markup=False, soft_wrap=True)

    yield show
