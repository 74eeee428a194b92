"""A cube in the browser: its report, or a page of the cube alone, with any pixel's spectrum and any bands.

Listens on the loopback address alone and answers only requests that name it, so that no page of another site can read
the cube by a name that it lets point here (DNS rebinding). Pixels are read by window, never the whole cube.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
from rasterio.windows import Window

from hsfuse.assessment.composites import colours
from hsfuse.assessment.report.figures import picture_record
from hsfuse.assessment.report.page import as_json, render_report
from hsfuse.assessment.report.pictures import Floats, power_of, stretch_limits
from hsfuse.assessment.result import Assessment, ImageFacts, Picture, SampledSpectra, Unit
from hsfuse.core.errors import InputError, SettingError
from hsfuse.io import CubeReader, read_provenance

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
#: Longest side of a picture, and of the look at a band that finds its stretch, in pixels.
MAX_SIDE, LOOK_SIDE = 800, 400
#: Seconds after which a connection on which nothing comes is closed.
IDLE_S = 30
#: What the page may do: what it brings itself, and ask this server.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; img-src data:; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_DATA = re.compile(r'<script type="application/json" class="data">(.*?)</script>', re.DOTALL)


class NotThereError(LookupError):
    """Pixels or bands that the cube hasn't got."""


class CubeView:
    """An open cube (C, H, W) as a page shows it; one request at a time reads it."""

    def __init__(self, reader: CubeReader, report: Path | None = None) -> None:
        """`report` is the report of the cube to show; InputError where it is of another one."""
        self._reader, self._lock = reader, Lock()
        self.shape = (reader.count, *reader.grid.shape)
        self._whole = lru_cache(32)(self._looked_at)
        page = self._alone() if report is None else self._checked(report)
        nm = reader.spectrum.wavelengths_nm
        known = {
            "name": reader.path.name,
            "shape": self.shape,
            "labels": [self._label(band) for band in range(reader.count)],
            "x": list(range(1, reader.count + 1)) if nm is None else list(nm),
            "unit": Unit(reader.quantity).words,
        }
        script = (Path(__file__).parent / "live.js").read_text(encoding="utf-8")
        live = f'<script type="application/json" id="live">{as_json(known)}</script><script>{script}</script></body>'
        self.page = live.join(page.rsplit("</body>", 1))

    def spectrum(self, row: int, col: int) -> dict[str, Any]:
        """Values (C,) of a pixel, null where it is masked; NotThereError outside the cube."""
        self._inside(row, col, 1, 1)
        with self._lock:
            cube = self._reader.read(Window(col, row, 1, 1))
        values = [float(str(value)) for value in cube.data[:, 0, 0]]  # no more digits than float32 has
        return {"values": values if cube.mask[0, 0] else [None] * len(values)}

    def picture(self, bands: tuple[int, int, int], row: int, col: int, rows: int, cols: int) -> dict[str, Any]:
        """Three bands (from 0; red first) of a window as a picture, stretched as the report would the whole cube."""
        self._inside(row, col, rows, cols)
        if not all(0 <= band < self.shape[0] for band in bands):
            raise NotThereError(f"the cube has bands 0 to {self.shape[0] - 1}")
        step = max(1.0, max(rows, cols) / MAX_SIDE)
        values = self._look(bands, (ceil(rows / step), ceil(cols / step)), Window(col, row, cols, rows))
        whole = np.stack([self._whole(band) for band in bands])
        limits, labels = stretch_limits([whole]), [self._label(band) for band in bands]
        picture = Picture("fused", "bands", values, (labels[0], labels[1], labels[2]))
        return picture_record(picture, limits, power_of([whole], limits))

    def _look(self, bands: tuple[int, ...], shape: tuple[int, int], window: Window | None = None) -> Floats:
        """Bands of a window, decimated to a shape (n, *shape); NaN where masked."""
        whole = Window(0, 0, self.shape[2], self.shape[1])
        with self._lock:
            data, valid = self._reader.sample_of(window or whole, bands, shape)
        return np.where(valid, data, np.nan)

    def _looked_at(self, band: int) -> Floats:
        """A band of the whole cube, decimated (h, w)."""
        step = max(1.0, max(self.shape[1:]) / LOOK_SIDE)
        return self._look((band,), (ceil(self.shape[1] / step), ceil(self.shape[2] / step)))[0]

    def _inside(self, row: int, col: int, rows: int, cols: int) -> None:
        if min(row, col) < 0 or min(rows, cols) < 1 or row + rows > self.shape[1] or col + cols > self.shape[2]:
            raise NotThereError(f"the cube has {self.shape[1]} x {self.shape[2]} pixels")

    def _label(self, band: int) -> str:
        nm = self._reader.spectrum.wavelengths_nm
        return f"band {band + 1}" if nm is None else f"{nm[band]:.0f} nm"

    def _checked(self, report: Path) -> str:
        """The report's page, when it is about this cube."""
        try:
            page = report.read_text(encoding="utf-8")
            parts = [json.loads(part) for part in _DATA.findall(page)]
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{report} can't be read as a report ({error})") from None
        if not any(map(self._is_described_by, parts)):
            raise InputError(
                f"{report} isn't a report of {self._name} that this version of hsfuse can show; make it with hsfuse "
                "assess --report"
            )
        return page

    def _is_described_by(self, part: Any) -> bool:
        """Whether this is a report's record of this cube; any page may hold JSON of its own."""
        if not isinstance(part, dict) or not isinstance(part.get("shape"), list):
            return False
        return (part.get("name"), part["shape"][1:]) == (self._name, list(self.shape[1:]))

    @property
    def _name(self) -> str:
        return self._reader.path.name

    def _alone(self) -> str:
        """A page of the cube without an assessment."""
        reader, (bands, height, width) = self._reader, self.shape
        nm = reader.spectrum.wavelengths_nm
        step = max(1.0, max(height, width) / MAX_SIDE)
        shape = (ceil(height / step), ceil(width / step))
        pictures = []
        for kind, chosen in colours(np.array(nm or ()), bands).items():
            labels = [self._label(band) for band in chosen]
            pictures.append(Picture("fused", kind, self._look(chosen, shape), (labels[0], labels[1], labels[2])))
        row, col = height // 2, width // 2
        values = np.array([self.spectrum(row, col)["values"]], dtype=float)
        x = np.arange(1.0, bands + 1) if nm is None else np.array(nm)
        middle = SampledSpectra(np.array([row]), np.array([col]), {"fused": x}, {"fused": values}, ())
        found = Assessment(
            self._name,
            self.shape,
            {},
            has_wavelengths=nm is not None,
            pictures=tuple(pictures),
            spectra=middle,
            provenance=read_provenance(reader.tags),
            unit=Unit(reader.quantity),
            images={"fused": ImageFacts.of(reader)},
        )
        return render_report([found], self._name)


def serve(view: CubeView, port: int, ready: Callable[[str], object]) -> None:
    """Answer until interrupted; `ready` is told the page's address once it can be asked. Port 0: any free one.

    SettingError where the port can't be had.
    """
    try:
        server = _Server((LOOPBACK, port), _handler(view))
    except OSError as error:
        raise SettingError(
            f"can't listen on port {port} ({error.strerror}); choose another --port, 0: any free one"
        ) from None
    with server:
        ready(f"http://{LOOPBACK}:{server.server_port}/")
        server.serve_forever()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away before it has its answer is nothing to tell of."""
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionError):
            log.debug("%s hung up (%s)", client_address, error)
        else:
            super().handle_error(request, client_address)


def _handler(view: CubeView) -> type[BaseHTTPRequestHandler]:
    """What answers each request."""

    class Handler(BaseHTTPRequestHandler):
        timeout = IDLE_S
        server_version, sys_version = "hsfuse", ""

        def do_GET(self) -> None:
            port = cast(ThreadingHTTPServer, self.server).server_port
            suffixes = ("", ":80") if port == 80 else (f":{port}",)  # browsers leave the default port out
            if self.headers.get("Host") not in {
                host + suffix for host in (LOOPBACK, "localhost") for suffix in suffixes
            }:
                self._answer(403, "text/plain", "this server answers on its loopback address alone")
                return
            try:
                asked = urlsplit(self.path)
                if asked.path == "/":
                    self._answer(200, "text/html", view.page)
                elif asked.path == "/spectrum":
                    self._json(view.spectrum(*_whole(asked.query, "row", "col")))
                elif asked.path == "/picture":
                    window = _whole(asked.query, "row", "col", "rows", "cols")
                    red, green, blue = _whole(asked.query, "red", "green", "blue")
                    self._json(view.picture((red, green, blue), *window))
                else:
                    self._answer(404, "text/plain", "there is nothing here")
            except NotThereError as error:
                self._answer(404, "text/plain", str(error))
            except ValueError as error:
                self._answer(400, "text/plain", str(error))
            except InputError as error:
                log.warning("%s", error)
                self._answer(500, "text/plain", str(error))

        def _json(self, value: dict[str, Any]) -> None:
            self._answer(200, "application/json", json.dumps(value, allow_nan=False))

        def _answer(self, status: int, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), **_HEADERS}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            log.debug(format, *values)

    return Handler


def _whole(query: str, *names: str) -> list[int]:
    """Whole numbers of a query by name; ValueError for one that is missing or isn't one."""
    found = parse_qs(query)
    texts = [found.get(name, [""])[0] for name in names]
    if not all(re.fullmatch(r"-?\d{1,9}", text) for text in texts):
        raise ValueError(f"wanted whole numbers for {', '.join(names)}")
    return [int(text) for text in texts]
