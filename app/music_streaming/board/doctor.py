"""Walk the links of a board in the order of the flow, name the first broken one, and mend what is safe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import psycopg2
import tenacity

from music_streaming import broker
from music_streaming.board import breakages as names
from music_streaming.board import machine, network, parts
from music_streaming.board.breakages import Broken, Doubtful, Unseen
from music_streaming.board.machine import NEEDS_ROOT, Board
from music_streaming.board.mending import mend
from music_streaming.board.systemd import NotAllowedError, SystemdError, journal
from music_streaming.board.trace import BrokenLinkError, trace
from music_streaming.error import MusicError, database_error
from music_streaming.settings import Role

Answer = TypeVar("Answer")

OK, NOTE, BROKEN, UNSEEN = "ok", "note", "broken", "not looked at"
# Seconds: how long a link may take before it counts as broken, and how long after mending it is waited for.
LIMIT, FLOW_LIMIT, MENDED_LIMIT = 60.0, 150.0, 300.0
FLOW_SECONDS = 60.0
# Kinds whose mending shows at once.
AT_ONCE = ("disk-full",)
JOURNAL_LINES = 20


@dataclass
class Step:
    """A link that was looked at: its state, what was found and, where it does not hold, the way back."""

    link: str
    state: str
    found: str
    wanted: str = ""
    remedy: str = ""
    kind: str = ""
    unit: str = ""
    mendable: str = ""
    journal: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Diagnosis:
    """The steps up to the first broken link, or all of them."""

    steps: list[Step]

    @property
    def broken(self) -> Step | None:
        """The first link that does not hold."""
        return next((step for step in self.steps if step.state == BROKEN), None)

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        steps = [asdict(step) | {"seconds": round(step.seconds, 3)} for step in self.steps]
        return {"ok": self.broken is None, "broken": self.broken and self.broken.link, "steps": steps}


def flow(of: Board) -> str:
    """One record comes through: `musicctl trace`."""
    if not of.may_read(Role.READER):
        raise Unseen(NEEDS_ROOT)
    try:
        steps = trace(of.settings, seconds=FLOW_SECONDS)
    except BrokenLinkError as error:
        raise Broken("flow", f"{error.link}: {error.found}", unit=error.unit) from error
    return f"one record in {sum(step.seconds for step in steps):.1f} s"


LINKS: dict[str, Callable[[Board], str]] = {
    names.BOARD: machine.board,
    names.CLOCK: machine.clock_link,
    names.DISK: machine.disk,
    names.DOCKER: machine.docker,
    names.KAFKA: parts.kafka,
    names.TOPIC: parts.topic,
    names.JOB: parts.job,
    names.TABLES: parts.tables,
    names.SUPERSET: parts.superset,
    names.SENDERS: parts.senders,
    names.FIREWALL: network.firewall,
    names.LAN: network.lan,
    names.FLOW: flow,
}
# Link -> a later one that it cannot hold without, and which is named instead where that is broken as well.
CAUSES = {names.JOB: names.TABLES}


def examine(
    of: Board,
    links: Iterable[str] = (),
    *,
    fix: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """Look at each link up to the first that is broken; with `fix` mend it where that is safe, and go on.

    links: these alone, by default all. tell: is given a sentence for each thing that is done. Every question
    has a limit of its own.
    """
    steps: list[Step] = []
    for link in links or LINKS:
        step = look(of, link)
        mended: list[str] = []
        tried: set[tuple[str, str]] = set()
        while fix and step.state == BROKEN and step.mendable and (step.kind, step.unit) not in tried:
            tried.add((step.kind, step.unit))
            tell(f"{step.link}: {step.mendable} ({step.found})")
            done, step = _mend(of, step)
            mended += done
        step.mended = mended
        steps.append(step)
        if step.state == BROKEN:
            step.journal = journal(step.unit, JOURNAL_LINES) if step.unit else []
            break
    return Diagnosis(steps)


def look(of: Board, link: str) -> Step:
    """One link; where a later one is its cause (CAUSES), that one."""
    step = _look(of, link)
    if step.state == BROKEN and link in CAUSES:
        cause = _look(of, CAUSES[link])
        return cause if cause.state == BROKEN else step
    return step


def _look(of: Board, link: str) -> Step:
    begun = time.monotonic()
    try:
        seen = within(FLOW_LIMIT if link == names.FLOW else LIMIT, lambda: LINKS[link](of))
        step = Step(link, OK, seen)
    except Doubtful as note:
        step = _step(link, NOTE, note)
    except Broken as broken:
        step = _step(link, BROKEN, broken)
    except NotAllowedError:
        step = Step(link, UNSEEN, NEEDS_ROOT)
    except Unseen as error:
        step = Step(link, UNSEEN, str(error))
    except SystemdError as error:
        step = _step(link, BROKEN, Broken("no-systemd", str(error)))
    except (broker.KafkaError, MusicError, OSError, TimeoutError) as error:
        step = _step(
            link, BROKEN, Broken("no-answer", f"{type(error).__name__} {error}".strip(), unit=_unit(link))
        )
    except psycopg2.Error as error:
        said = database_error(error) or error
        step = _step(link, BROKEN, Broken("no-answer", " ".join(str(said).split()), unit=_unit(link)))
    step.seconds = time.monotonic() - begun
    return step


def _unit(link: str) -> str:
    return names.UNITS.get(link, ("",))[0]


def _step(link: str, state: str, broken: Broken) -> Step:
    return Step(
        link,
        state,
        broken.found,
        broken.wanted,
        broken.remedy,
        broken.kind,
        broken.unit,
        mendable=broken.mend,
    )


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """The answer of `ask`, or what it raises; TimeoutError after `seconds`.

    A question that nobody answers is left to its thread, which ends with the program.
    """
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return answers[0]


def _mend(of: Board, step: Step) -> tuple[list[str], Step]:
    """What was done about `step`, and how its link is after at most MENDED_LIMIT."""
    try:
        done = mend(of, step.kind, step.unit)
    except NotAllowedError:
        step.remedy = f"sudo musicctl doctor --fix; or {step.remedy}"
        return [], step
    except (broker.KafkaError, MusicError, OSError) as error:
        step.found = f"{step.found}; mending failed: {error}"
        return [], step
    if not done:
        return [], step
    if step.kind in AT_ONCE:
        return done, look(of, step.link)
    waiting = tenacity.Retrying(
        # Another breakage of the same link has its own mending.
        retry=tenacity.retry_if_result(
            lambda now: (now.kind, now.unit) == (step.kind, step.unit) or _starting(now)
        ),
        stop=tenacity.stop_after_delay(MENDED_LIMIT),
        wait=tenacity.wait_fixed(2),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else step,
    )
    return done, waiting(look, of, step.link)


def _starting(step: Step) -> bool:
    return step.kind == "unit-restarts"
