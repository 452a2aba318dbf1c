"""What a stage is told, and what it consists of."""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple


@dataclasses.dataclass(frozen=True)
class Job:
    """The order of the frame to one process.

    Attributes:
        stage: the name of the stage.
        seconds: until the process will be stopped.
        out: folder of results.
        work: folder of everything else: checkpoints, prepared data; thrown away.
        data_dir: folder of data sets, in folders of their names or not; None: none.
        tiny: sizes that a CPU can do in seconds.
        done: measurements that are not to be made (again).
    """

    stage: str
    seconds: float
    out: str
    work: str
    data_dir: str | None = None
    tiny: bool = False
    done: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """Undoes `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "done": tuple(fields["done"])})

    def file(self, *names: str) -> pathlib.Path | None:
        """The first of these paths below ``data_dir`` that exists."""
        if self.data_dir is None:
            return None
        paths = (pathlib.Path(self.data_dir) / name for name in names)
        return next((path for path in paths if path.exists()), None)


class Measurement(NamedTuple):
    """One line of the results.

    Attributes:
        name: unique in its stage.
        measure: makes it: names to numbers, texts and truth values. A `Skipped` that
            it raises says why it cannot be made here.
    """

    name: str
    measure: Callable[[], dict[str, Any]]


class Skipped(Exception):
    """A measurement that this machine does not allow; the message says why."""
