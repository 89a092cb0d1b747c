"""Where every artefact lives, relative to one root folder. Paths are looked up here and parsed nowhere.

`results/` holds declared outputs; `work/` (resume state, locks, digests of large files) and `logs/` belong to the machine.
"""

from dataclasses import dataclass
from pathlib import Path

SOURCE = "SOURCE.json"
SOURCE_OF_FILE = ".source.json"


def source_file(place: Path) -> Path:
    """Where the maker of a folder, or of a file, says what it is and where it came from (provenance.py)."""
    return place / SOURCE if place.is_dir() else place.with_name(place.name + SOURCE_OF_FILE)


@dataclass(frozen=True)
class Paths:
    """The folder layout below `root`."""

    root: Path = Path(".")

    @property
    def results(self) -> Path:
        """All declared outputs."""
        return self.root / "results"

    def data(self, dataset: str) -> Path:
        """A packed dataset."""
        return self.results / "data" / dataset

    def backbone(self, backbone: str) -> Path:
        """A pre-trained or imported backbone."""
        return self.results / "backbones" / backbone

    def fim(self, fim: str) -> Path:
        """A Fisher information matrix."""
        return self.results / "fim" / fim

    def shard(self, shard: str) -> Path:
        """The sums of a range of a FIM's images."""
        return self.results / "shards" / shard

    def run(self, job: str) -> Path:
        """The results of a job."""
        return self.results / "runs" / job

    def work(self, name: str) -> Path:
        """Resume state of a cell; no engine knows of it."""
        return self.root / "work" / name

    def log(self, step: str, name: str) -> Path:
        """The log of one run of a step."""
        return self.root / "logs" / step / f"{name}.log"

    @property
    def metrics(self) -> Path:
        """Metrics of every cell, epoch and split."""
        return self.results / "metrics.parquet"

    @property
    def metrics_csv(self) -> Path:
        """The same as text."""
        return self.results / "metrics.csv"

    @property
    def comparisons(self) -> Path:
        """Selected arms and their paired differences, with intervals."""
        return self.results / "comparisons.parquet"

    @property
    def selected(self) -> Path:
        """What each selection rule picked, seed by seed."""
        return self.results / "selected.csv"

    @property
    def tables(self) -> Path:
        """The folder of tables."""
        return self.results / "tables"

    @property
    def figures(self) -> Path:
        """The folder of figures."""
        return self.results / "figures"

    @property
    def report(self) -> Path:
        """Tables, figures and provenance on one page."""
        return self.results / "report.html"
