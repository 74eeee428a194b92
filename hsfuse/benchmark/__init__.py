"""Methods held against each other on reference cubes: simulate, fuse, assess, and put side by side."""

from hsfuse.benchmark.cases import Case, Method, Noise, Psf, Scene, Sensor
from hsfuse.benchmark.config import BenchmarkConfig, load_config, parse_config
from hsfuse.benchmark.markdown import FORMS, fill, fill_file, render
from hsfuse.benchmark.results import Row, read_csv
from hsfuse.benchmark.run import BenchmarkResult, run_benchmark
from hsfuse.benchmark.table import text_tables
