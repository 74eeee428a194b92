"""A speed report as text."""

from __future__ import annotations

from benchmarks.speed.run import BASELINE, ScanSpeed, SpeedReport


def _number(value: float | None, unit: str) -> str:
    return "not measured" if value is None else f"{value:.3g} {unit}"


def _scan_row(scan: ScanSpeed) -> str:
    share = "" if scan.exp_share is None else f"{100 * scan.exp_share:.0f} %"
    return (
        f"  {scan.backend:<10}{1e3 * scan.forward_s:>10.2f}{scan.rate:>9.3f}{scan.forward_ratio:>8.1f}{share:>8}"
        f"{1e3 * scan.both_s:>12.2f}{scan.both_rate:>9.3f}{scan.both_ratio:>8.1f}"
    )


def _head(report: SpeedReport) -> list[str]:
    machine, ceilings = report.machine, report.ceilings
    return [
        f"{machine['name']} ({machine['device']}), {machine['threads']} threads, torch {machine['torch']}",
        f"ceilings: {_number(ceilings.exp_one_thread, 'G exp/s on one thread')}, "
        f"{_number(ceilings.exp_all_threads, 'G exp/s on all')}, memory {_number(ceilings.bandwidth, 'GB/s')}",
    ]


def _scans(report: SpeedReport) -> list[str]:
    settings = report.settings
    return [
        "",
        f"scan of one {settings.patch} x {settings.patch} map, {settings.bands} bands (x: times {BASELINE}; "
        "exp: share of the ceiling)",
        f"  {'backend':<10}{'forward ms':>10}{'G upd/s':>9}{'x':>8}{'exp':>8}{'+ back ms':>12}{'G upd/s':>9}{'x':>8}",
        *map(_scan_row, report.scans),
    ]


def speed_text(report: SpeedReport) -> str:
    """Lines for the terminal."""
    s = report.settings
    memory = ", ".join(f"{side}: {_number(mib, 'MiB')}" for side, mib in report.memory_mib.items())
    rows = [
        (f"tile {s.tile} x {s.tile}", f"{report.tile_s:.3f} s", f"scans {100 * report.scan_share:.0f} % of it"),
        (f"scene {s.scene} x {s.scene}", f"{report.scene_s:.2f} s",
         f"{report.million_pixel_bands:.2f} million pixel-bands/s"),
        (f"training step {s.batch} x {s.patch} x {s.patch}", f"{report.step_s:.3f} s", ""),
        (f"against {BASELINE}, {s.patch} x {s.patch}", f"{report.inference_ratio:.1f} x",
         f"training {report.training_ratio:.1f} x"),
    ]  # fmt: skip
    lines = [f"  {name:<28}{value:>10}   {note}".rstrip() for name, value, note in rows]
    title = f"SRLF-Net, {s.bands} bands at ratio {s.ratio}, scan backend {report.backend}"
    return "\n".join([*_head(report), *_scans(report), "", title, *lines, f"  peak memory by tile: {memory}"])
