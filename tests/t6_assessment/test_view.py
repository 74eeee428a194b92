"""A cube in the browser: its server gives what the file holds, to its own machine only, and nothing else."""

import base64
import http.client
import io
import json
import logging
import re
import socket
import struct
import threading
import time
from http.server import HTTPServer, ThreadingHTTPServer

import numpy as np
import pytest
from assessed_scene import GRID, make_scene, write, write_cube
from PIL import Image

from hsfuse.assessment import assess
from hsfuse.assessment.report import render_report
from hsfuse.assessment.report.serve import CubeView, serve
from hsfuse.core.cube import Spectrum
from hsfuse.core.errors import InputError, SettingError
from hsfuse.core.grid import Grid
from hsfuse.io import open_cube


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = make_scene(tmp_path_factory.mktemp("scene"))
    mask = np.ones(GRID.shape, bool)
    mask[3, 4] = False
    write_cube(made.path("fused.tif"), made.truth, mask)
    return made


@pytest.fixture(scope="module")
def asked(scene):
    """Ask the server of fused.tif: path, and headers to replace; gives status, text, headers."""
    with open_cube(scene.path("fused.tif"), role="raster") as reader:
        view, found, ready = CubeView(reader), [], threading.Event()
        thread = threading.Thread(
            target=serve, args=(view, 0, lambda url: (found.append(url), ready.set())), daemon=True
        )
        thread.start()
        assert ready.wait(20)
        port = int(found[0].rstrip("/").rpartition(":")[2])

        def ask(path, method="GET", **headers):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            told = answer.status, answer.read().decode(), dict(answer.getheaders())
            connection.close()
            return told

        ask.port = port
        yield ask


def test_the_spectrum_of_a_pixel_is_the_file_s(asked, scene):
    status, text, headers = asked("/spectrum?row=7&col=40")
    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    np.testing.assert_array_equal(np.float32(json.loads(text)["values"]), scene.truth[:, 7, 40])
    assert json.loads(asked("/spectrum?row=3&col=4")[1])["values"] == [None] * 24


def test_a_picture_has_any_bands_of_any_window(asked, scene):
    window = "row=8&col=16&rows=20&cols=10"
    told = json.loads(asked(f"/picture?red=20&green=3&blue=0&{window}")[1])
    assert told["labels"] == ["924 nm", "496 nm", "420 nm"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["src"].partition(",")[2]))))
    assert pixels.shape == (20, 10, 3)
    for i, band in enumerate((20, 3, 0)):
        low, high = told["low"][i], told["high"][i]
        shown = low + (high - low) * pixels[:, :, i] / 255
        np.testing.assert_allclose(
            shown, scene.truth[band, 8:28, 16:26].clip(low, high), atol=0.51 * (high - low) / 255
        )


def test_a_dark_picture_is_brightened_as_the_report_does(scene, tmp_path):
    write_cube(tmp_path / "dark.tif", scene.truth**6)
    with open_cube(tmp_path / "dark.tif", role="raster") as reader:
        view = CubeView(reader)
        data = json.loads(re.search(r'class="data">(.*?)</script>', view.page)[1])
        shown = next(iter(data["pictures"].values()))["fused"]
        bands = tuple(
            [f"{nm:.0f} nm" for nm in reader.spectrum.wavelengths_nm].index(label) for label in shown["labels"]
        )
        asked = view.picture(bands, 0, 0, *reader.grid.shape)
    assert asked["power"] < 1
    assert {name: asked[name] for name in ("src", "power", "low", "high")} == {
        name: shown[name] for name in ("src", "power", "low", "high")
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/spectrum?row=48&col=0", 404),
        ("/spectrum?row=0&col=-1", 404),
        ("/spectrum?row=0", 400),
        ("/spectrum?row=0&col=1e3", 400),
        ("/spectrum?row=0&col=99999999999999999999", 400),
        ("/picture?red=0&green=0&blue=24&row=0&col=0&rows=9&cols=9", 404),
        ("/picture?red=0&green=0&blue=0&row=40&col=0&rows=9&cols=9", 404),
        ("/picture?red=0&green=0&blue=0&row=0&col=0&rows=0&cols=9", 404),
        ("/picture?red=0&green=0&blue=0", 400),
        ("/fused.tif", 404),
        ("/../fused.tif", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("//etc/passwd", 404),
    ],
)
def test_what_is_not_there_is_not_given(asked, path, status):
    found, text, _ = asked(path)
    assert found == status
    assert "root" not in text


def test_only_this_machine_by_its_own_name_is_answered(asked):
    for host in ("evil.example", f"evil.example:{asked.port}", "127.0.0.1:1", "127.0.0.1", ""):
        assert asked("/", Host=host)[0] == 403, host
        assert asked("/spectrum?row=0&col=0", Host=host)[0] == 403, host
    assert asked("/", Host=f"localhost:{asked.port}")[0] == 200
    assert asked("/", method="POST")[0] == 501
    _, _, headers = asked("/")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_port_80_may_be_left_out_of_the_name(scene, monkeypatch):
    bound = []

    def bind(server):
        HTTPServer.server_bind(server)
        bound.append((server, server.server_port))
        server.server_port = 80

    monkeypatch.setattr(ThreadingHTTPServer, "server_bind", bind)
    ready = threading.Event()
    with open_cube(scene.path("fused.tif"), role="raster") as reader:
        threading.Thread(target=serve, args=(CubeView(reader), 0, lambda url: ready.set()), daemon=True).start()
        assert ready.wait(20)
        (server, port), found = bound[0], {}
        for host in ("127.0.0.1", "localhost", "127.0.0.1:80", "127.0.0.1:81", "evil.example", "evil.example:80"):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/", headers={"Host": host})
            found[host] = connection.getresponse().status
            connection.close()
        server.shutdown()
    assert list(found.values()) == [200, 200, 200, 403, 403, 403]


def test_a_silent_connection_holds_up_nobody(asked):
    with socket.create_connection(("127.0.0.1", asked.port)):
        assert asked("/")[0] == 200


def test_an_address_that_is_none_is_a_bad_request(asked):
    with socket.create_connection(("127.0.0.1", asked.port), timeout=20) as connection:
        connection.sendall(f"GET http://[x/ HTTP/1.0\r\nHost: 127.0.0.1:{asked.port}\r\n\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] == b"400"


def test_a_browser_that_hangs_up_is_told_to_nobody(asked, capfd, caplog):
    caplog.set_level(logging.DEBUG, "hsfuse.assessment.report.serve")
    with socket.create_connection(("127.0.0.1", asked.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
        connection.sendall(b"GET")
    ended = time.monotonic() + 10
    while "hung up" not in caplog.text and time.monotonic() < ended:
        time.sleep(0.01)
    assert "hung up" in caplog.text
    assert capfd.readouterr().err == ""
    assert asked("/")[0] == 200


def test_a_port_in_use_is_told(asked, scene):
    with open_cube(scene.path("fused.tif"), role="raster") as reader, pytest.raises(SettingError, match="--port"):
        serve(CubeView(reader), asked.port, print)


def test_the_page_is_the_report_or_the_cube_alone(scene, asked):
    path = scene.path("fused.tif")
    page = render_report([assess(path, reference=scene.path("truth.tif"), window=8)])
    (scene.folder / "r.html").write_text(page, encoding="utf-8")
    with open_cube(path, role="raster") as reader:
        shown = CubeView(reader, scene.folder / "r.html").page
    assert shown.startswith(page.rpartition("</body>")[0])
    live = json.loads(re.search(r'id="live">(.*?)</script>', shown)[1])
    assert (live["name"], live["shape"], live["labels"][0]) == ("fused.tif", [24, 48, 48], "420 nm")
    alone = asked("/")[1]
    assert "Can it be trusted?" not in alone
    assert "<h1>fused.tif</h1>" in alone
    assert "Key figures" not in alone


@pytest.mark.parametrize(
    "text",
    [
        "<html>mine</html>",
        "\udc80",
        *(
            f'<script type="application/json" class="data">{record}</script>'
            for record in (
                "{",
                "[1]",
                "null",
                '{"name":"fused.tif","shape":null}',
                '{"name":"fused.tif","shape":7}',
                "[" * 9**5,
            )
        ),
    ],
    ids=range(8),
)
def test_a_page_that_is_no_report_of_the_cube_is_refused(scene, tmp_path, text):
    (tmp_path / "r.html").write_bytes(text.encode("utf-8", "surrogateescape"))
    with open_cube(scene.path("fused.tif"), role="raster") as reader, pytest.raises(InputError, match=r"r\.html"):
        CubeView(reader, tmp_path / "r.html")


def test_a_cube_without_wavelengths_or_place_has_a_page(tmp_path, scene):
    write(tmp_path / "a.tif", scene.truth[:1], Grid(GRID.shape), Spectrum(None, None, ("sum",)))
    with open_cube(tmp_path / "a.tif", role="raster") as reader:
        view = CubeView(reader)
    assert '"labels":["band 1"]' in view.page
    assert '"place":null' in view.page
