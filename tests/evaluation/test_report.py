"""The listening page: whole in itself, honest about what it leaves out, safe from its names."""

import http.server
import json
import math
import re
import shutil
import subprocess
import threading
import wave
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import pytest
import torch

from wavewn.errors import DataError
from wavewn.evaluation import report
from wavewn.evaluation.compare import METRICS, Comparison, Row
from wavewn.evaluation.report import Example, encode_wav, make_page, pitch_path, write_page

RATE = 16_000
SECONDS = 0.5
HOSTILE = 'a"><script>document.title="hacked"</script>&amp;\'.wav'
BROWSER_S = 180  # a browser starts in two seconds, but not beside a training on every core


def make_comparison(clips, systems):
    scores = dict.fromkeys(METRICS, 0.25) | {"mcd_db": math.nan}
    rows = [Row(system, clip, SECONDS, scores) for system in systems for clip in clips]
    return Comparison(rows, {}, dict.fromkeys(systems, 3.5))


@pytest.fixture
def example(voice, noise):
    sound = voice(seconds=SECONDS)
    return Example(HOSTILE, sound, {"near": 0.5 * sound, "<i>far": noise(sound, 0.1)})


@pytest.fixture
def page(example):
    comparison = make_comparison([HOSTILE], example.copies)
    return make_page(comparison, [example], RATE, {"<b>run": {"seed": 3, "speaker": None}})


class Reader(HTMLParser):
    """Collects elements with their attributes, and the visible text."""

    void = {"meta", "link", "img", "br"}

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(page)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # every element is closed in its turn

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_is_whole_in_itself(page):
    reader = Reader(page)

    assert reader.open == []
    places = [
        value
        for _, attributes in reader.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "poster", "data", "action")
    ]
    assert len(places) == 1 + 2 + 3 + 3 + 2  # icon, scales, players, spectrograms, differences
    assert all(place.startswith("data:") for place in places)
    assert "url(" not in page and "@import" not in page
    assert not {"script", "iframe", "form", "object"} & {tag for tag, _ in reader.elements}
    assert "default-src 'none'" in page


def test_every_name_is_escaped(page):
    reader = Reader(page)

    assert reader.all("script") == [] and reader.all("i") == [] and reader.all("b") == []
    assert HOSTILE in reader.text and "<i>far" in reader.text and "<b>run" in reader.text
    labels = [audio["aria-label"] for audio in reader.all("audio")]
    assert labels == [f"{name}, {HOSTILE}" for name in ("recording", "near", "<i>far")]


def test_pictures_and_tracks_have_words(page):
    reader = Reader(page)

    assert all(image["alt"] for image in reader.all("img"))
    assert all(track["aria-label"] and track["role"] == "img" for track in reader.all("svg"))
    pictures = [" ".join(image["alt"].split()) for image in reader.all("img")]
    assert "Spectrogram of near, 0.5 s, 0 to 8 kHz" in pictures
    # Half as loud is 6.02 dB less wherever the copy stays above the floor of the pictures.
    apart = re.search(r"Spectrogram of near minus .* (\d+\.\d) dB apart", "\n".join(pictures))
    assert 0 < float(apart[1]) <= 6.1
    assert "F0, median 120 Hz" in reader.text


def test_figures_intervals_and_settings_are_there(page):
    text = Reader(page).text

    for label in METRICS.values():
        assert label in text
    assert "0.250[0.250, 0.250]" in text and "times real time3.50" in text
    assert "MCD, dB (lower)--" in text  # no recording gave it something to judge
    assert "seed3" in text and "speaker-" in text
    assert "All recordings" in text


def test_left_out_metrics_say_why(example):
    comparison = make_comparison([HOSTILE], example.copies)
    why = "package pesq is not installed; pip install 'wavewn[eval]'"
    page = make_page(replace(comparison, left_out={"pesq_wb": why}), [example], RATE, {})

    assert f"PESQ-WB (higher): {why}" in Reader(page).text
    assert page.count("PESQ-WB") == 1 + 1  # there, and in the recording's own table


def test_a_page_that_grows_too_large_shows_fewer_and_says_so(example, monkeypatch):
    examples = [replace(example, name=f"clip {i}") for i in range(5)]
    comparison = make_comparison([one.name for one in examples], example.copies)
    whole = len(make_page(comparison, examples[:1], RATE, {}))
    monkeypatch.setattr(report, "MAX_BYTES", 3 * whole)

    page = make_page(comparison, examples, RATE, {})

    assert 1 <= page.count("<article") < 5
    assert len(page) < 3 * whole + 30_000  # the text around the sounds and pictures
    shown = page.count("<article")
    assert f"{shown} of 5 recordings" in Reader(page).text

    monkeypatch.setattr(report, "MAX_BYTES", whole // 4)
    page = make_page(comparison, examples, RATE, {})

    assert page.count("<article") == 1
    assert re.search(r"0\.\d s of 0\.5 s", Reader(page).text)  # cut, and said so


def test_an_example_without_a_copy_is_refused(example):
    comparison = make_comparison([HOSTILE], [*example.copies, "third"])
    with pytest.raises(DataError, match="has no copy by third"):
        make_page(comparison, [example], RATE, {})
    with pytest.raises(DataError, match="at least one recording"):
        make_page(comparison, [], RATE, {})


def test_sounds_are_what_a_wav_reader_hears():
    audio = torch.tensor([0.0, 0.5, -0.5, 1.0, 2.0, -2.0])
    with wave.open(BytesIO(encode_wav(audio, RATE))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        heard = torch.frombuffer(bytearray(file.readframes(6)), dtype=torch.int16)
    assert heard.tolist() == [0, 16384, -16384, 32767, 32767, -32768]


def test_a_pitch_track_lifts_the_pen_where_nothing_is_voiced():
    gap = math.nan
    track = torch.tensor([gap, 60.0, 400.0, gap, math.sqrt(60 * 400)])

    assert pitch_path(track) == "M250.0 100.0h0L500.0 0.0M1000.0 50.0h0"
    assert pitch_path(torch.tensor([gap])) == ""


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "page.html"
    write_page(target, "name \udcff")  # a file name that is not UTF-8

    assert target.read_text("utf-8") == "name \\udcff"
    assert [one.name for one in target.parent.iterdir()] == ["page.html"]
    with pytest.raises(DataError, match="cannot write"):
        write_page(target / "page.html", "")


PROBE = """<!doctype html><title>probe</title>
<iframe src="/page.html" style="width: 390px; height: 800px; border: 0"></iframe>
<script>
const frame = document.querySelector("iframe");
const once = (target, event) => new Promise(resolve => target.addEventListener(event, resolve));
async function look() {
  const page = frame.contentDocument, players = [...page.querySelectorAll("audio")];
  for (const player of players) if (player.readyState < 1) await once(player, "loadedmetadata");
  const player = players[0];
  player.muted = true;
  const moved = once(player, "ended");
  await player.play();
  await moved;
  const resources = frame.contentWindow.performance.getEntriesByType("resource");
  return {
    title: page.title,
    durations: players.map(one => one.duration),
    played: player.currentTime,
    pictures: [...page.images].map(one => one.complete ? one.naturalWidth : 0),
    tracks: [...page.querySelectorAll("path")].map(one => one.getTotalLength()),
    widths: [page.documentElement.scrollWidth, page.documentElement.clientWidth],
    card: page.querySelector(".card").getBoundingClientRect().width,
    loaded: resources.map(one => one.name).filter(name => !name.startsWith("data:")),
  };
}
frame.addEventListener("load", () => look().catch(error => ({error: String(error)})).then(
  found => fetch("/found", {method: "POST", body: JSON.stringify(found)})));
</script>"""


class Desk(http.server.BaseHTTPRequestHandler):
    """Hands out the page and the probe that looks at it, and takes what it found."""

    def do_GET(self):
        content = self.server.pages.get(self.path)
        self.send_response(200 if content else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((content or "").encode())

    def do_POST(self):
        self.server.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.server.answered.set()

    def log_message(self, *arguments):
        pass


def ask_browser(page, folder):
    """Open `page` in headless Chromium, on this machine alone, and return what the probe saw."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"needs Chromium, none of {', '.join(names)} is installed")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk) as desk:
        desk.pages = {"/page.html": page, "/": PROBE}
        desk.answered = threading.Event()
        threading.Thread(target=desk.serve_forever, daemon=True).start()
        command = [
            program,
            "--headless",
            "--no-sandbox",  # root, as in a container, may not have one
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={folder}",
            "--remote-debugging-port=0",  # keeps it open until it has answered
            f"http://127.0.0.1:{desk.server_address[1]}/",
        ]
        with open(folder / "log", "wb") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            answered = desk.answered.wait(BROWSER_S)
        finally:
            browser.terminate()
            browser.wait(30)
            desk.shutdown()
    assert answered, f"no answer from {program}: {(folder / 'log').read_text('utf-8', 'replace')}"
    return desk.found


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_shows_and_plays_the_page(page, tmp_path_factory):
    found = ask_browser(page, tmp_path_factory.mktemp("browser"))

    assert "error" not in found
    assert found["title"] == "near, <i>far - wavewn evaluation"
    assert found["durations"] == pytest.approx([SECONDS] * 3, abs=0.01)
    assert found["played"] == pytest.approx(SECONDS, abs=0.05)
    assert len(found["pictures"]) == 7 and all(found["pictures"])
    assert found["tracks"][0] > 0  # the voice's F0 is drawn
    assert found["loaded"] == []
    content, window = found["widths"]
    assert content <= window <= 390  # a phone needs no sideways scrolling
    assert 300 < found["card"] <= 390
