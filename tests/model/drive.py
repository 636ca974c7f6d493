#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Drives the core and the model through the same random calls and compares them.

    python tests/model/drive.py --steps 1000000 --seed 7

Every step's code and result are compared; every so often the whole visible state is, and the core
recounts itself. A difference ends the run: the steps are shrunk, printed as calls, and the command
that repeats the run is shown. The same is left in build/model-difference-<seed>.txt, the difference
itself before anything is shrunk. Runs take place in a child process, so that a crash of the core is
a finding like any other.
"""

from __future__ import annotations

import argparse
import faulthandler
import mmap
import os
import pickle
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import mach_numbers as m
from operations import Scene, Seeded, Step, draw_step
from tables import Table
from wire import Arrived, Letter
from worlds import ModelWorld, Refused, World

SHRINK_SECONDS = 60.0
REPORTS = Path(__file__).resolve().parents[2] / "build"


class Settings(NamedTuple):
    """What a run is made of."""

    seed: int = 1
    steps: int = 20_000
    fast_path: bool = True
    policy: str = "none"
    compare_every: int = 500
    against: str = "core"
    faults: bool = False
    trace: bool = False


class Difference(Exception):
    """The two worlds disagree, or one of them does not add up."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"step {number}: {text}")
        self.number = number


def make_scene(settings: Settings, alone: bool = False) -> Scene:
    """The model, and beside it (unless alone) what it is compared with."""
    allows = None if settings.policy == "none" else Table(settings.seed)
    if alone:
        return Scene(ModelWorld(allows))
    return Scene(ModelWorld(allows), make_other(settings, allows))


def make_other(settings: Settings, allows: Table | None) -> World:
    if settings.against == "model":
        return ModelWorld(allows)
    from core_world import CoreWorld

    return CoreWorld(allows, settings.fast_path, settings.trace)


# ---- comparing ---------------------------------------------------------------------------------


def state_of(world: World, task: Any) -> dict[int, tuple[Any, ...]]:
    """Everything a task can see of its own space."""
    state = {}
    for name, bits in world.call("mach_port_names", task):
        refs = [world.call("mach_port_get_refs", task, name, right) for right in range(5)]
        extra: Any = None
        if bits & m.TYPE_RECEIVE:
            extra = attempt(world, "mach_port_get_attributes", task, name, m.RECEIVE_STATUS)
            extra = extra, attempt(world, "mach_port_get_context", task, name)
        elif bits & m.TYPE_PORT_SET:
            extra = world.call("mach_port_get_set_status", task, name)
        state[name] = bits, refs, extra
    return state


def attempt(world: World, call: str, task: Any, *arguments: Any) -> Any:
    """The result of a call that a policy may refuse."""
    try:
        return world.call(call, task, *arguments)
    except Refused as refusal:
        return "refused", refusal.code


def compare_state(scene: Scene, number: int) -> None:
    """Raises `Difference` where the worlds' tasks see different things."""
    for key, handles in scene.tasks.items():
        states = [state_of(world, task) for world, task in zip(scene.worlds, handles, strict=True)]
        for name in sorted(set().union(*states)):
            seen = [state.get(name) for state in states]
            if any(each != seen[0] for each in seen):
                text = f"task {key}, name {name:#x}: model {seen[0]}, core {seen[1:]}"
                raise Difference(number, text)
    for world in scene.worlds:
        try:
            world.verify()
        except Exception as error:
            raise Difference(number, f"{type(world).__name__}.verify: {error!r}") from error
    counts = [world.counts() for world in scene.worlds]
    if any(each != counts[0] for each in counts):
        raise Difference(number, f"counts: model {counts[0]}, core {counts[1:]}")


def perform(scene: Scene, step: Step, fault: int = 0) -> None:
    """Does the step; raises `Difference` where the outcomes differ.

    With `fault` it is tried first with that allocation failing, and must then do all or nothing.
    """
    outcomes = scene.perform_short(step, fault) if fault else []
    if fault and not outcomes:
        compare_state(scene, step.number)
    outcomes = outcomes or scene.perform(step)
    if any(outcome != outcomes[0] for outcome in outcomes):
        text = f"{describe(scene, step)}\n  model {show(outcomes[0])}\n  core  {show(outcomes[1])}"
        raise Difference(step.number, text)


def describe(scene: Scene, step: Step) -> str:
    """The step as a call."""
    arguments = ", ".join(show(scene.resolve(argument)) for argument in step.arguments)
    return f"{step.operation}(task {step.task}, {arguments})"


def show(value: Any) -> str:
    """Numbers that are names or codes are easier to read in hexadecimal."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 99:
        return f"{value:#x}"
    if isinstance(value, (Letter, Arrived)):
        shown = (f"{key}={show(each)}" for key, each in value._asdict().items() if each)
        return f"{type(value).__name__}({', '.join(shown)})"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(show(each) for each in value)})"
    return repr(value)


# ---- running ---------------------------------------------------------------------------------


def random_steps(scene: Scene, settings: Settings) -> Iterator[Step]:
    """The steps of a seed. Drawn one by one, because they look at the model."""
    draw = Seeded(settings.seed)
    for number in range(settings.steps):
        yield draw_step(scene, draw, number)


def fault_of(settings: Settings, step: Step) -> int:
    """Which allocation fails in this step: none, or one of the first three."""
    draw = Seeded(f"{settings.seed}/fault/{step.number}")
    return 1 + draw.below(3) if settings.faults and draw.below(2) else 0


def run(
    scene: Scene, settings: Settings, steps: Iterable[Step], every: int, mark: Callable[[int], None]
) -> None:
    """Performs the steps, compares after each and, every so often, the whole state."""
    number = -1
    for number, step in enumerate(steps):
        mark(number)
        perform(scene, step, fault_of(settings, step))
        if (number + 1) % every == 0:
            compare_state(scene, step.number)
    compare_state(scene, number)
    for key in list(scene.tasks):
        number += 1
        perform(scene, Step(number, "terminate", key, (key,)))
        compare_state(scene, number)
    events = [world.events() for world in scene.worlds]
    if settings.trace and any(each != events[0] for each in events):
        raise Difference(number, f"ipctrace: model {events[0]}, core {events[1:]}")
    left = [world.ports() for world in scene.worlds]
    if any(left):
        raise Difference(number, f"without tasks there are still ports: {left}")
    for world in scene.worlds:
        world.close()


class Finding(NamedTuple):
    """How a run ended: the place of the last step begun, and what was wrong ("" for nothing)."""

    place: int
    text: str


def told_by(job: Callable[[Callable[[int], None]], None], mark: Callable[[int], None]) -> str:
    """What was wrong, in words; an error that is no `Difference` comes with its traceback."""
    try:
        job(mark)
    except Difference as difference:
        return str(difference)
    except BaseException:
        return f"raised\n{traceback.format_exc()}"
    return ""


def death(status: int, stack: bytes) -> str:
    """How a process ended that told nothing. One killed from outside is not the core's fault."""
    code = os.waitstatus_to_exitcode(status)
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    return f"the process {how}\n{stack.decode(errors='replace')}"


def in_child(job: Callable[[Callable[[int], None]], None]) -> Finding:
    """Runs the job in a child process, which may crash. `mark` says how far it is."""
    shared = mmap.mmap(-1, 8)
    reader, writer = os.pipe()
    sys.stdout.flush()
    with tempfile.TemporaryFile() as stack:
        child = os.fork()
        if child == 0:
            os.close(reader)
            faulthandler.enable(stack)
            text = told_by(job, lambda place: struct.pack_into("<q", shared, 0, place))
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(text, pipe)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        stack.seek(0)
        text = pickle.loads(told) if told else death(status, stack.read())  # noqa: S301
    return Finding(struct.unpack_from("<q", shared)[0], text)


def steps_of(settings: Settings, count: int) -> list[Step]:
    """The first steps of a seed; the model alone decides them."""
    scene = make_scene(settings, alone=True)
    steps = []
    for step in random_steps(scene, settings._replace(steps=count)):
        steps.append(step)
        scene.perform(step)
    return steps


def of_recent_tasks(steps: list[Step]) -> list[Step]:
    """The steps of those tasks alone that did something lately, and of their parents."""
    tasks = {step.task for step in steps[-100:]}
    for step in reversed(steps):
        if step.operation == "create_task" and step.number in tasks:
            tasks.add(step.task)
    return [step for step in steps if step.task in tasks]


def shrink(
    settings: Settings, steps: list[Step], seconds: float = SHRINK_SECONDS
) -> tuple[list[Step], Finding]:
    """Takes steps away, in ever smaller runs, as long as the rest still fails and there is time."""

    def trial(chosen: list[Step]) -> Finding:
        every = 1 if len(chosen) < 400 else settings.compare_every
        return in_child(lambda mark: run(make_scene(settings), settings, chosen, every, mark))

    end = time.monotonic() + seconds
    finding, recent = trial(steps), of_recent_tasks(steps)
    if (found := trial(recent)).text:
        steps, finding = recent, found
    size = max(1, len(steps) // 2)
    while finding.text and time.monotonic() < end:
        steps = steps[: finding.place + 1]
        place, before = 0, len(steps)
        while place < len(steps) and time.monotonic() < end:
            fewer = steps[:place] + steps[place + size :]
            found = trial(fewer)
            if found.text:
                steps, finding = fewer[: found.place + 1], found
            else:
                place += size
        if size == 1 and len(steps) == before:
            break
        size = max(1, size // 2)
    return steps, finding


def script(settings: Settings, steps: list[Step]) -> str:
    """The steps as calls, with the names they come to."""
    scene = make_scene(settings, alone=True)
    lines = []
    for step in steps:
        line = describe(scene, step)
        outcomes = scene.perform(step)
        lines.append(f"  {step.number}: {line}" + (f" -> {show(outcomes[0])}" if outcomes else ""))
    return "\n".join(lines)


# ---- the command -----------------------------------------------------------------------------


def progress(steps: Iterable[Step], total: int, out: Any) -> Iterator[Step]:
    """Passes the steps on; on a terminal, says how many are done."""
    started = time.monotonic()
    for number, step in enumerate(steps):
        if out.isatty() and number % 2000 == 0:
            rate = number / max(time.monotonic() - started, 0.001)
            out.write(f"\r{number:>10,} of {total:,} steps, {rate:,.0f}/s ")
            out.flush()
        yield step
    if out.isatty():
        out.write("\r" + " " * 60 + "\r")


def explore(settings: Settings) -> Finding:
    """One random run in a child process."""

    def job(mark: Callable[[int], None]) -> None:
        scene = make_scene(settings)
        steps = progress(random_steps(scene, settings), settings.steps, sys.stderr)
        run(scene, settings, steps, settings.compare_every, mark)

    return in_child(job)


def core_of(settings: Settings) -> str:
    """Which core is tested, and when it was built.

    Loads it, so that children inherit this one even if another is built meanwhile.
    """
    if settings.against == "model":
        return "none"
    import pympi._core as compiled

    path = Path(compiled.__file__)
    built = time.strftime("%F %T", time.localtime(path.stat().st_mtime)) if path.exists() else "?"
    return f"{path} of {built}"


def command(settings: Settings) -> str:
    """The command that repeats the run."""
    again = f"python tests/model/drive.py --seed {settings.seed} --steps {settings.steps}"
    again += "" if settings.fast_path else " --no-fastpath"
    again += " --trace" if settings.trace else ""
    again += " --faults" if settings.faults else ""
    again += " --against model" if settings.against == "model" else ""
    return f"{again} --policy {settings.policy} --every {settings.compare_every}"


def report(settings: Settings, finding: Finding, core: str) -> str:
    """A failure with its shrunk steps, its surroundings and the command that repeats it."""
    steps, last = shrink(settings, steps_of(settings, finding.place + 1))
    now = core_of(settings)
    lines = [finding.text, "", f"shrunk to {len(steps)} steps:", script(settings, steps)]
    lines += [last.text or "(does not fail when repeated)", ""]
    lines += [f"core: {core}" + ("" if now == core else f", now {now}")]
    lines += [f"Python: {sys.version}, PYTHONHASHSEED={os.environ.get('PYTHONHASHSEED', '')}"]
    return "\n".join([*lines, f"again: {command(settings)}"])


def show_difference(settings: Settings, finding: Finding, core: str, directory: Path) -> None:
    """Prints the report, and leaves it in a file: at once what is known, then the whole."""
    path = directory / f"model-difference-{settings.seed}.txt"
    print(f"seed {settings.seed}: a difference, to be read in {path}", file=sys.stderr, flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"seed {settings.seed}: {finding.text}\n\nagain: {command(settings)}\n")
    text = f"seed {settings.seed}: {report(settings, finding, core)}"
    print(text)
    path.write_text(f"{text}\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Settings()
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument(
        "--every",
        type=int,
        default=default.compare_every,
        metavar="STEPS",
        help="compare the whole state this often",
    )
    parser.add_argument("--no-fastpath", action="store_true", help="only the defining path")
    parser.add_argument("--trace", action="store_true", help="compare what ipctrace counts, too")
    parser.add_argument("--faults", action="store_true", help="make allocations fail now and then")
    parser.add_argument("--policy", choices=("none", "random"), default="none")
    parser.add_argument(
        "--against",
        choices=("core", "model"),
        default="core",
        help="the model against itself tests the driver",
    )
    parser.add_argument(
        "--reports",
        type=Path,
        default=REPORTS,
        metavar="DIRECTORY",
        help="where the report of a difference is left",
    )
    given = parser.parse_args(arguments)
    settings = Settings(
        seed=given.seed,
        steps=given.steps,
        fast_path=not given.no_fastpath,
        policy=given.policy,
        compare_every=given.every,
        against=given.against,
        faults=given.faults,
        trace=given.trace,
    )
    core = core_of(settings)
    started = time.monotonic()
    finding = explore(settings)
    seconds = time.monotonic() - started
    if finding.text:
        show_difference(settings, finding, core, given.reports)
        return 1
    rate = settings.steps / max(seconds, 1e-9)
    print(f"seed {settings.seed}: {settings.steps:,} steps without a difference, {rate:,.0f}/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
