"""Methods held against each other on reference cubes: simulate, fuse, assess, and put side by side."""

from hsfuse.benchmark.cases import Case, Method, Noise, Psf, Scene, Sensor
from hsfuse.benchmark.config import BenchmarkConfig, load_config, parse_config
from hsfuse.benchmark.results import Row
from hsfuse.benchmark.run import BenchmarkResult, run_benchmark
from hsfuse.benchmark.table import markdown, text_tables

__all__ = [
    "BenchmarkConfig",
    "BenchmarkResult",
    "Case",
    "Method",
    "Noise",
    "Psf",
    "Row",
    "Scene",
    "Sensor",
    "load_config",
    "markdown",
    "parse_config",
    "run_benchmark",
    "text_tables",
]
