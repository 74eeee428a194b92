"""How fast this machine runs SRLF-Net: measured against its own ceilings, and against plain torch, in the same run."""

from benchmarks.speed.run import SpeedReport, SpeedSettings, run_speed
from benchmarks.speed.table import speed_text

__all__ = ["SpeedReport", "SpeedSettings", "run_speed", "speed_text"]
