"""`report -o report.html`: one page with everything in it, checked by parsing it (and in a browser, where one is
installed).
"""

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from made_records import lines, record
from test_report import report

from hdcid_cli.core.records import Timeline, timeline
from hdcid_cli.media.picture import read_picture, write_picture
from hdcid_cli.report.pictures import timelines

CODES, WIDTH = 12, 8
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Collects elements with attributes, text, and unbalanced tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open, self.unbalanced = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def images(self):
        return [attributes["href"] for tag, attributes in self.elements if tag == "image"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Records of several codebook sizes, a checkpoint of two layers with TOC, timelines and overlay pictures."""
    from hdcid_cli.codes.checkpoint import write_checkpoint
    from hdcid_cli.models.hdcid import HDCID
    from hdcid_cli.models.settings import ModelSettings

    folder = tmp_path_factory.mktemp("report")
    results = [
        record(codebook=codebook, seed=seed, value=codebook / 10 + seed, toc=toc)
        for codebook in (100, 400)
        for seed in (0, 1)
        for toc in ("none", "128")
    ]
    (folder / "results.jsonl").write_text(lines(*results, record(method="<script>alert(1)</script>&amp;", value=12.0)))

    config = ModelSettings(
        inputs={"audio": (6,), "text": (5,)}, layers=2, dim=WIDTH, codebook=CODES, heads=2, feedforward=8, specific=8
    )
    model = HDCID(config)
    checkpoint = folder / "my <run>"
    sections = {"model": config.to_dict(), "objective": {"align": ["cpc", "cmcm"]}, "train": {"seed": 0}}
    write_checkpoint(checkpoint, sections, model)
    (checkpoint / "toc.json").write_text(json.dumps({"channels": [[0, 2, 5], [1, 3, 4]], "label": "3"}))
    metrics = [
        {"step": step, "loss": 9 / step, "loss/1/cpc": 3 / step, "used/1/audio": step, "used/1/text": 2 * step}
        for step in (1, 2, 3)
    ]
    (checkpoint / "metrics.jsonl").write_text(lines(*metrics) + '{"step": 4, "lo')

    events = [{"label": "Dog & cat", "start": 2.0, "end": 5.0}]
    clips = [
        timeline(
            f"clip<{i}>",
            10.0,
            events,
            [{"label": "Bell", "start": i / 2, "end": 9.0}],
            task="avvp",
            train="v",
            test="a",
        )
        for i in range(5)
    ]
    (folder / "timelines.jsonl").write_text(lines(*clips))
    for i in range(3):
        write_picture(folder / "overlay" / f"clip{i}.png", np.full((20, 60, 3), 40 * i, np.uint8))
    return folder, [codebook.double().numpy() for codebook in (layer.quantizer.codebook[0] for layer in model.layers)]


def build(folder, *more):
    outcome = report(
        *(folder / "results.jsonl", "--checkpoint", folder / "my <run>", "--timelines", folder / "timelines.jsonl"),
        *("--overlay", folder / "overlay", "--examples", 2, "-o", folder / "report.html", *more),
    )
    return outcome, (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(inputs):
    outcome, text = build(inputs[0])
    assert outcome.return_value == 0 and outcome.stdout == "", outcome.output
    return text


def test_page_is_balanced_and_refers_to_nothing_outside(page):
    parsed = Page(page)
    assert parsed.unbalanced == [] and parsed.open == []
    assert [attributes for tag, attributes in parsed.elements if tag == "script"] == [{}], "one, and it is inline"
    assert not [attributes for _, attributes in parsed.elements if any(name.startswith("on") for name in attributes)]
    assert not [attributes for _, attributes in parsed.elements if "style" in attributes]
    links = [attributes[name] for _, attributes in parsed.elements for name in ("src", "href") if name in attributes]
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"url\(|@import|https?:", page)
    anchors = {attributes["id"] for tag, attributes in parsed.elements if tag == "section"}
    assert {link[1:] for link in links if link.startswith("#")} == anchors


def test_a_browser_is_told_to_run_and_to_load_nothing_but_what_is_in_the_page(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    found = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    assert found.keys() == {"default-src", "img-src", "style-src", "script-src"}
    assert found["default-src"] == ["'none'"] and found["img-src"] == ["data:"]
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)[1].encode()
        digest = subprocess.run(["sha256sum"], input=content, capture_output=True, check=True).stdout.split()[0]
        assert found[f"{tag}-src"] == [f"'sha256-{base64.b64encode(bytes.fromhex(digest.decode())).decode()}'"]


def test_names_from_outside_are_text_and_not_markup(page):
    texts = "".join(Page(page).texts)
    for name in ("<script>alert(1)</script>&amp;", "my <run>", "clip<0>"):
        assert name in texts


def test_every_picture_can_be_decoded(page, tmp_path):
    images = Page(page).images()
    assert len(images) == 2 * 2 + 2  # two heat maps a layer, two overlays
    for i, image in enumerate(images):
        file = tmp_path / f"{i}.png"
        file.write_bytes(base64.b64decode(image.partition(",")[2], validate=True))
        assert read_picture(file).shape == ((CODES, CODES, 3) if i < 4 else (20, 60, 3))
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    # Sizes of the codebook; loss, its one term, codes in use; two clips; the pictures.
    assert len(drawings) == 1 + 3 + 2 + 6
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).get("aria-label")


def test_heat_maps_show_cosine_similarities_of_the_chosen_channels(inputs, page, tmp_path):
    (tmp_path / "map.png").write_bytes(base64.b64decode(Page(page).images()[1].partition(",")[2]))
    pixels = read_picture(tmp_path / "map.png").astype(float)
    rows = inputs[1][0][:, [0, 2, 5]]
    cosines = (rows @ rows.T) / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(rows, axis=1))
    # Green falls from 255 at 0 to 30 at 1 and to 68 at -1.
    expected = 255 - np.abs(cosines) * np.where(cosines < 0, 255 - 68, 255 - 30)
    assert np.abs(pixels[..., 1] - expected).max() <= 1
    assert (pixels[np.arange(CODES), np.arange(CODES)] == (170, 30, 30)).all()


def test_tables_hold_the_measured_and_the_papers_numbers(page):
    cells = [text.strip() for text in Page(page).texts]
    assert "10.5\u2009±\u20090.7" in cells and "40.5\u2009±\u20090.7" in cells and "12.0" in cells
    assert (
        "DCID, H-DCID and the effect of TOC on four tasks (the paper's Table 1; pretrained on audio, video and text)"
        in cells
    )
    assert not any("Table 4" in text for text in cells)
    paper = re.search(r'<tr class="paper">(?:(?!</tr>).)*64\.01</td></tr>', page).group()
    assert re.findall(r">([\d.]+)</td>", paper)[1:] == [
        "49.0",
        "54.9",
        "76.0",
        "91.0",
        "54.4",
        "55.9",
        "70.7",
        "60.2",
        "64.01",
    ]


def test_curves_over_codebook_sizes_keep_apart_what_differs_and_ring_the_papers_points(page):
    drawing = re.search(
        r'<svg[^>]*aria-label="ave v→a, precision over codes, on AVE".*?</svg>', page, flags=re.S
    ).group()
    names = re.findall(r">([^<]*)</text>", drawing)
    assert "H-DCID" in names and "H-DCID + TOC" in names and names.count("the paper") == 1
    assert "2 layers, &lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;" in names
    lines = re.findall(r'<polyline points="([^"]*)" fill="none" class="stroke-(\w+)"', drawing)
    curves = [colour for points, colour in lines if colour not in ("grid", "axis") and points.count(" ")]
    assert len(set(curves)) == 2 + 1, "a colour each, and the legend's of the third, which has one size alone"
    assert drawing.count('r="4.5"') == 3  # the paper's H-DCID with and without TOC, and the legend's


def test_timelines_are_drawn_to_scale(page):
    drawing = ElementTree.fromstring(re.search(r'<svg[^>]*aria-label="clip&lt;1&gt;.*?</svg>', page, flags=re.S)[0])
    kinds = {"fill-ink": "true", "fill-sky": "predicted"}
    bars = {kinds[bar.get("class")]: (float(bar.get("x")), float(bar.get("width"))) for bar in drawing.iter("rect")}
    seconds = (380 - 118 - 10) / 10  # units a second
    assert bars["true"] == pytest.approx((118 + 2 * seconds, 3 * seconds), abs=0.11)
    assert bars["predicted"] == pytest.approx((118 + 0.5 * seconds, 8.5 * seconds), abs=0.11)
    assert "2 of 5 timelines." in page


def test_what_several_probes_said_of_a_clip_stands_together():
    """Two files of one task: one more of what each says, by what they differ in."""
    said = {"task": "avvp", "train": "v", "test": "a", "data": "LLP", "protocol": "heldout", "method": "cpc"}
    files = [
        [timeline(f"c{number}", 10.0, [], [], **said, toc=toc, checkpoint="x") for number in range(5)]
        for toc in ("none", "128")
    ]
    read = [Timeline.read(each) for file in files for each in file]
    captions = [figure.caption for figure in timelines(read, 2)]
    assert captions == [f"c{clip} (avvp v→a, on LLP, toc {toc})" for clip in (0, 1) for toc in ("none", "128")]
    assert [figure.caption for figure in timelines(read[:5], 2)] == ["c0 (avvp v→a, on LLP)", "c1 (avvp v→a, on LLP)"]


def test_broken_timelines_and_pictures_are_named(inputs):
    folder, _ = inputs
    broken = folder / "broken"
    broken.mkdir()
    (broken / "bad.png").write_text("no picture")
    write_picture(broken / "good.png", np.zeros((4, 4, 3), np.uint8))
    (broken / "t.jsonl").write_text(lines(timeline("c", 10.0, [{"label": "x", "start": 5, "end": 12}], []), record()))
    outcome, _ = build(folder, "--overlay", broken, "--timelines", broken / "t.jsonl")
    assert outcome.return_value == 3
    for name in (f"{broken / 'bad.png'}", f"{broken / 't.jsonl'}, line 1", f"{broken / 't.jsonl'}, line 2"):
        assert name in outcome.stderr


def test_pictures_need_the_html_format_and_folders_that_exist(inputs):
    folder, _ = inputs
    assert "-o report.html" in str(report(folder / "results.jsonl", "--overlay", folder / "overlay").exception)
    assert "no folder" in str(report("--overlay", folder / "none", "--format", "html").exception)
    assert "not a checkpoint directory" in str(report("--checkpoint", folder, "--format", "html").exception)


MEASURE = """<script>
const small = [...document.querySelectorAll("svg text")].filter(text => text.getBoundingClientRect().height <
10).length;
const scrolls = [...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth).length;
const table = document.querySelector("table"), column = table.tHead.rows[1].querySelector("th.number");
const order = () => [...table.tBodies[0].rows].map(row =>
  row.querySelector(`[data-column="${column.dataset.column}"]`).dataset.value).join("/");
const orders = [order()];
for (let i = 0; i < 3; i++) { column.querySelector("button").click(); orders.push(order()); }
document.title = [innerWidth, document.documentElement.scrollWidth, small, scrolls, ...orders].join(" ");
</script>"""


@pytest.fixture(scope="module")
def shown(page, tmp_path_factory):
    """The page's title in a browser on a phone, with a script in it that changes it, by whether the policy holds."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no headless browser (chromium) is installed")
    folder = tmp_path_factory.mktemp("browser")

    def show(policy):
        text = page if policy else re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        (folder / "page.html").write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,800", "--dump-dom",
                   f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
        command = [browser, *options, f"file://{folder / 'page.html'}"]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return re.search(r"<title>(.*?)</title>", outcome.stdout)[1]

    return show


def test_in_a_browser_text_is_readable_nothing_scrolls_sideways_and_tables_sort(shown):
    seen, width, small, scrolls, *orders = shown(policy=False).split()
    assert int(width) <= int(seen) <= 500, "the page is wider than the phone"
    assert int(small) == 0 and int(scrolls) >= 1, "wide tables scroll in their own boxes"
    first, down, up, again = (order.split("/") for order in orders)
    measured = sorted(map(float, first[:-1]))
    assert first == again and first[-1] == down[-1] == up[-1] == "10.0", "chance stays below"
    assert [float(value) for value in up[:-1]] == measured == [float(value) for value in down[:-1]][::-1]


def test_a_script_that_somebody_put_into_the_page_does_not_run(shown):
    assert shown(policy=True) == "hdcid report"
