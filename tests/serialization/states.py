"""State classes the serialization tests share; at module level, because a class has to be importable to travel."""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import enum
import uuid
from dataclasses import InitVar, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
JobId = NewType("JobId", int)


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Corner(enum.Enum):
    ORIGIN = (0, 0)
    UNIT = (1, 1)


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict, total=False):
    verbose: bool
    when: dt.datetime


@dataclass
class Job:
    size: int
    name: str = "job"
    done: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    host_url: str
    agent_id: str


@dataclass
class NativeState:
    """Everything in it is known to msgspec."""

    count: int = 0
    title: str = ""
    ratio: float = 0.0
    ready: bool = False
    numbers: list[int] = field(default_factory=list)


@dataclass
class NestedNative:
    jobs: list[Job] = field(default_factory=list)
    by_name: dict[str, Job] = field(default_factory=dict)
    color: Color = Color.RED
    pair: tuple[int, str] = (1, "a")
    maybe: int | None = None
    text_or_number: int | str = 0


@dataclass
class ComplexState:
    jobs: list[Job]
    tags: set[str]
    path: Path
    note: str | None = None
    frozen: frozenset[int] = frozenset()
    mapping: dict[int, Color] = field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    many: tuple[float, ...] = ()
    level: Level = Level.LOW
    ref: Ref | None = None
    anything: Any = None


@dataclass
class Binary:
    raw: bytes = b""
    growing: bytearray = field(default_factory=bytearray)
    anything: Any = None
    view: memoryview | None = None
    parts: list[bytes] = field(default_factory=list)


@dataclass
class Scalars:
    when: dt.datetime = dt.datetime(2020, 1, 2, 3, 4, 5, 6)
    day: dt.date = dt.date(2020, 1, 2)
    clock: dt.time = dt.time(3, 4)
    span: dt.timedelta = dt.timedelta(seconds=5)
    price: decimal.Decimal = decimal.Decimal("1.50")
    key: uuid.UUID = field(default_factory=lambda: uuid.UUID(int=7))
    z: complex = 1 + 2j
    where: PurePosixPath = field(default_factory=lambda: PurePosixPath("/tmp"))


@dataclass
class Anything:
    value: Any = None
    thing: object = None
    items: list = field(default_factory=list)  # type: ignore[type-arg]
    table: dict = field(default_factory=dict)  # type: ignore[type-arg]


@dataclass
class Arrays:
    data: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(3))
    numbers: array.array = field(default_factory=lambda: array.array("d", [1.5, 2.5]))
    anything: Any = None
    scalar: np.float32 = field(default_factory=lambda: np.float32(1.5))


@dataclass
class Box(Generic[T]):
    item: T
    others: list[T] = field(default_factory=list)


@dataclass
class DateBox(Box[dt.date]):
    label: str = ""


@dataclass
class Boxes:
    jobs: Box[Job]
    dates: Box[dt.date]
    derived: DateBox | None = None


@dataclass
class Circle:
    radius: float


@dataclass
class Square:
    side: float


@dataclass
class Cube:
    side: float


@dataclass
class Shapes:
    shape: Circle | Square | Cube
    path_or_text: Path | str = ""
    color_or_text: Color | str = ""
    when: int | dt.datetime | dt.date = 0
    mixed: int | float | str | bool | None = None
    group: list[int] | set[int] | tuple[int, ...] = field(default_factory=list)
    table: Circle | dict[str, float] = field(default_factory=dict)
    binary: bytes | str = b""


@dataclass
class Odds:
    job: JobId = JobId(1)
    noted: Annotated[int, "a note"] = 2
    mode: Literal["fast", "slow", 3, True] = "fast"
    point: Point = field(default_factory=lambda: Point(1, 2.0))
    options: Options = field(default_factory=Options)
    corner: Corner = Corner.ORIGIN
    rights: Rights = Rights.READ
    queue: collections.deque[int] = field(default_factory=collections.deque)
    counts: collections.defaultdict[str, list[int]] = field(default_factory=lambda: collections.defaultdict(list))
    tally: collections.Counter[str] = field(default_factory=collections.Counter)
    ordered: collections.OrderedDict[str, int] = field(default_factory=collections.OrderedDict)
    cells: dict[tuple[int, int], str] = field(default_factory=dict)
    by_color: dict[Color, int] = field(default_factory=dict)
    by_day: dict[dt.date, int] = field(default_factory=dict)
    by_ref: dict[Ref, int] = field(default_factory=dict)
    refs: set[Ref] = field(default_factory=set)
    flags: dict[bool, float] = field(default_factory=dict)


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)
    payload: Any = None


@dataclass
class NativeTree:
    name: str
    child: NativeTree | None = None


@dataclass
class Constructed:
    base: int
    doubled: int = field(init=False)
    scale: InitVar[int] = 2

    def __post_init__(self, scale: int) -> None:
        if self.base < 0:
            raise ValueError("base is negative")
        self.doubled = self.base * scale


def missing_default() -> int:
    raise KeyError("no default today")


@dataclass
class Fussy:
    """Known to msgspec, with code that raises what msgspec does not expect."""

    size: int = field(default_factory=missing_default)
    mood: Mood | None = None

    def __post_init__(self) -> None:
        if self.size == 13:
            raise LookupError("unlucky")


class Mood(enum.Enum):
    GOOD = "good"

    @classmethod
    def _missing_(cls, value: object) -> Any:
        raise ArithmeticError("no such mood")


@dataclass
class Versioned:
    STATE_VERSION: ClassVar[int] = 3
    full_name: str = ""
    raw: bytes = b""

    @classmethod
    def upgrade_state(cls, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        if from_version < 3:
            data["full_name"] = f"{data.pop('first', '')} {data.pop('last', '')} from {from_version}"
        return data


@dataclass
class VersionedOld:
    STATE_VERSION: ClassVar[int] = 1
    first: str = ""
    last: str = ""
    raw: bytes = b""


@dataclass
class NewerWithoutHook:
    STATE_VERSION: ClassVar[int] = 9
    count: int = 0


@dataclass
class BrokenHook:
    STATE_VERSION: ClassVar[int] = 2
    count: int = 0

    @classmethod
    def upgrade_state(cls, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        raise KeyError("first")


class Opaque:
    """A class that cannot travel."""
