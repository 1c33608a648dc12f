"""The page of an evaluation, in a real browser: its figures, sorting, choosing, pictures, and texts that stay texts."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from chromium import file_pages
from comedian.cli.main import main
from comedian.evaluation.diagnosis import TOLERANCES_S, diagnose
from comedian.evaluation.soccernet_average_map.soccernet_average_map import average_map
from video_factory import frame_number, write_video

HOSTILE = "</script><img src=x onerror=alert(1)><b>\"'"
LABELS = ("Goal", "Corner", HOSTILE, "Never happens")
MATCHES = ("cup/final <i>", "cup/replay")
NAMES = ("poor <u>", "good")
NUM_FRAMES = 480
FPS = 8


def make_events(seed):
    """References of a match of two halves of a minute, and predictions of two models: one often wrong, one rarely."""
    rng = np.random.default_rng(seed)
    references, sets = [], ([], [])
    for number, time_s in enumerate(1 + rng.permutation(56)[:24] + 0.9 * rng.random(24)):
        half, label = str(1 + number % 2), LABELS[number // 2 % 3]
        visibility = "not shown" if number % 5 == 0 else "visible"
        clock = f"{half} - 00:{int(time_s):02d}"
        references.append(
            {"gameTime": clock, "label": label, "position": str(round(1000 * time_s)), "visibility": visibility}
        )
        for predictions, wrong, spread_s in zip(sets, (0.6, 0.2), (2, 0.5)):
            found = LABELS[rng.integers(0, 3)] if rng.random() < wrong else label
            at_ms = int(1000 * np.clip(time_s + rng.normal(0, spread_s), 0, 59))
            score = float(rng.beta(5, 2) if found == label else rng.beta(2, 4))
            predictions.append({"label": found, "half": half, "position": str(at_ms), "confidence": str(score)})
    return references, sets


EVENTS = [make_events(seed) for seed in range(len(MATCHES))]
REFERENCES = [references for references, _ in EVENTS]
PREDICTIONS = [[sets[index] for _, sets in EVENTS] for index in range(len(NAMES))]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labels, both sets of predictions and videos of all halves but one."""
    folder = tmp_path_factory.mktemp("evaluation")
    write(folder / "labels.txt", "\n".join(LABELS))
    for match, (references, sets) in zip(MATCHES, EVENTS):
        write(folder / "labels" / match / "Labels-v2.json", {"annotations": references})
        for name, predictions in zip(("one", "two"), sets):
            write(folder / name / match / "results_spotting.json", {"predictions": predictions})
        for half in (1, 2):
            if (match, half) != (MATCHES[1], 2):
                write_video(folder / "labels" / match / f"{half}_224p.mkv", NUM_FRAMES, FPS)
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """The page of both sets with pictures, and that of the first alone, without."""
    words = ["evaluate", str(folder / "labels"), "--labels", str(folder / "labels.txt"), "--report"]
    two, one = folder / "pages" / "two.html", folder / "pages" / "one.html"
    videos = ["--videos", str(folder / "labels")]
    sets = [str(folder / name) for name in ("one", "two")]
    assert main([*words[:2], *sets, *words[2:], str(two), *videos, "--names", *NAMES]) == 0
    assert main([*words[:2], sets[0], *words[2:], str(one), "--threshold", "0.4", "--tolerance", "2"]) == 0
    return two, one


@pytest.fixture(scope="module")
def pages():
    with file_pages() as open_page:
        yield open_page


@pytest.fixture
def page(reports, pages):
    page = pages(reports[0], viewport={"width": 1280, "height": 900})
    yield page
    page.close()


def cells(table, column):
    """Texts of a column of a table, without the changes in small print."""
    return [
        row.locator("th, td").nth(column).inner_text().split(" ")[0].split("\n")[0]
        for row in table.locator("tbody tr").all()
    ]


def percents(values):
    return [f"{100 * value:.1f}" for value in values]


def test_the_sets_stand_side_by_side_with_the_official_scores(page):
    expect(page.get_by_role("heading", level=1)).to_have_text("Evaluation")
    table = page.locator("#comparison")
    columns = {"tight": 2, "loose": 4}
    scores = [average_map(REFERENCES, predictions, LABELS) for predictions in PREDICTIONS]
    assert cells(table, 1) == ["16", "16", "16", "0"]
    for metric, column in columns.items():
        first, second = (score[metric]["a_mAP_per_class"] for score in scores)
        assert cells(table, column) == percents(first)
        assert cells(table, column + 1) == percents(second)
        for row, *pair in zip(table.locator("tbody tr").all(), first, second):
            before, after = (row.locator("td").nth(column + index - 1) for index in (0, 1))
            expect(after.locator(".change")).to_have_text(f"{100 * (pair[1] - pair[0]):+.1f}" if any(pair) else "±0")
            expect(before.locator(".change")).to_have_count(0)
            is_better = pair[1] > pair[0]
            assert ("best" in (after.get_attribute("class"))) == is_better
            assert ("up" in after.locator(".change").get_attribute("class")) == is_better
    overview = page.locator("section").filter(has=page.locator("#overview")).locator("table")
    assert cells(overview, 1) == percents(score["tight"]["a_mAP"] for score in scores)
    assert cells(overview, 2) == percents(score["loose"]["a_mAP"] for score in scores)


def test_a_table_sorts_by_any_column(page):
    table = page.locator("#comparison")
    head = table.get_by_role("columnheader", name=NAMES[0]).first
    values = [float(text) for text in cells(table, 2)]
    assert values != sorted(values, reverse=True)
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert [float(text) for text in cells(table, 2)] == sorted(values, reverse=True)
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert [float(text) for text in cells(table, 2)] == sorted(values)
    name = table.get_by_role("columnheader", name="Label")
    name.get_by_role("button").click()
    expect(name).to_have_attribute("aria-sort", "ascending")
    expect(head).to_have_attribute("aria-sort", "none")
    assert [row.inner_text() for row in table.locator("tbody th").all()] == sorted(LABELS, key=str.lower)


def test_hits_against_score(page):
    figure = page.locator("figure").filter(has_text="Hits against score")
    marks = [text.partition(": ")[::2] for text in figure.locator("circle title").all_text_contents()]
    assert figure.locator("path").count() == 3
    for name, predictions in zip(NAMES, PREDICTIONS):
        matching = diagnose(REFERENCES, predictions, LABELS).matching
        taken = set(matching.taken.tolist())
        expected, error, counted = [], 0.0, [score for score in matching.spots.values if score >= 0.05]
        for low in range(10):
            members = [
                (score, index in taken)
                for index, score in enumerate(matching.spots.values)
                if score >= 0.05 and int(10 * score) == low
            ]
            if members:
                score, share = np.mean(members, axis=0)
                expected.append(f"{len(members)} scored {score:.2f} on average, {100 * share:.0f} % hits")
                error += len(members) / len(counted) * abs(score - share)
        assert [text for marked, text in marks if marked == name] == expected and len(expected) > 3
        assert f"{name}: expected calibration error {100 * error:.1f} %" in figure.locator("svg").get_attribute(
            "aria-label"
        )


def test_a_label_and_a_set_are_chosen(page):
    chosen = page.locator("#closer h2:visible")
    expect(chosen).to_have_text("Goal")
    page.get_by_label("Label", exact=True).select_option(label="Corner")
    expect(chosen).to_have_text("Corner")
    expect(page.locator("#closer svg:visible")).to_have_count(3)
    tables = page.locator("table.per-label:visible")
    expect(tables).to_have_count(1)
    expect(tables.locator("caption")).to_contain_text(NAMES[0])
    page.get_by_label("Predictions", exact=True).select_option("good")
    expect(tables).to_have_count(1)
    expect(tables.locator("caption")).to_contain_text(NAMES[1])
    page.locator("#comparison").get_by_role("button", name=HOSTILE).press("Enter")
    expect(chosen).to_have_text(HOSTILE)
    expect(page.get_by_label("Label", exact=True)).to_be_focused()


@pytest.mark.parametrize("number", [0, 1])
def test_figures_of_a_set(page, number):
    diagnosis = diagnose(REFERENCES, PREDICTIONS[number], LABELS)
    page.get_by_label("Predictions", exact=True).select_option(NAMES[number])
    table = page.locator("table.per-label:visible")
    assert cells(table, 1) == ["16", "16", "16", "0"]
    assert cells(table, 5) == [f"{threshold:.2f}" for threshold in diagnosis.thresholds]
    for column, figures in ((6, diagnosis.counts.num_spots), (7, diagnosis.counts.num_hits)):
        assert cells(table, column) == [str(figure) for figure in figures]
    for column, name in ((8, "precision"), (9, "recall"), (10, "f1")):
        assert cells(table, column) == percents(getattr(diagnosis.counts, name))
    errors_s = [diagnosis.errors_s[diagnosis.error_labels == label] for label in range(3)]
    assert cells(table, 11) == [*(f"{np.median(np.abs(error)):.2f}" for error in errors_s), "–"]
    assert cells(table, 12) == [*(f"{error.mean():+.2f}" for error in errors_s), "–"]
    found = page.locator("table.confusion:visible tbody tr").all()
    shown = [[int(cell.inner_text()) for cell in row.locator("td").all()] for row in found]
    assert shown == diagnosis.confusion.tolist() and np.sum(shown) > 0
    views = page.locator("table:visible").filter(has_text="the camera shows").locator("tbody tr").all()
    hidden = [event for match in REFERENCES for event in match if event["visibility"] == "not shown"]
    for label, row in zip(LABELS, views, strict=True):
        texts = [cell.inner_text() for cell in row.locator("td").all()]
        num_hidden = sum(event["label"] == label for event in hidden)
        assert texts[4] == str(num_hidden) and texts[0] == str((0 if label == LABELS[3] else 16) - num_hidden)
    score = diagnosis.scores["tight"]["a_mAP_per_class_unshown"]
    assert [row.locator("td").nth(6).inner_text() for row in views] == percents(score)


def test_examples_have_the_frames_of_their_time(page):
    seen, missing = 0, 0
    for number, label in ((0, 0), (1, 1)):
        page.get_by_label("Predictions", exact=True).select_option(NAMES[number])
        page.get_by_label("Label", exact=True).select_option(LABELS[label])
        cards = page.locator("#closer .cards li:visible").all()
        examples = [e for e in diagnose(REFERENCES, PREDICTIONS[number], LABELS).examples if e.label == label]
        assert len(cards) == len(examples) > 3
        for card, example in zip(cards, examples):
            text = card.inner_text()
            minutes, seconds = re.search(r"half \d, (\d+):([\d.]+)", text).groups()
            assert 60 * int(minutes) + float(seconds) == pytest.approx(example.time_s, abs=0.051)
            assert f"half {example.half}" in text and MATCHES[example.match].split("/")[1] in text
            if example.kind != "missed":
                assert f"score {example.score:.2f}" in text
            if example.kind == "hit":
                assert f"{abs(example.error_s):.1f} s {'late' if example.error_s > 0 else 'early'}" in text
            if example.kind == "false alarm":
                what = [*(f"there was: {label}" for label in LABELS), "a repeat", "nothing there"]
                assert what[example.seen] in text
            if (example.match, example.half) == (1, 2):
                expect(card.locator("img")).to_have_count(0)
                missing += 1
            else:
                source = card.locator("img").get_attribute("src").removeprefix("data:image/jpeg;base64,")
                picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
                assert frame_number(picture) == int(example.time_s * FPS + 1e-6)
                seen += 1
    assert seen > 5 and missing > 0


def test_the_page_of_one_set_at_a_given_threshold(reports, pages):
    page = pages(reports[1])
    diagnosis = diagnose(REFERENCES, PREDICTIONS[0], LABELS, threshold=0.4, tolerance_s=2)
    expect(page.get_by_role("heading", level=1)).to_have_text("Evaluation of one")
    figures = page.locator(".figures").inner_text()
    assert f"{100 * diagnosis.scores['tight']['a_mAP']:.2f} %" in figures
    assert f"{100 * diagnosis.counts.total.f1:.1f} %" in figures
    overview = page.locator("section").filter(has=page.locator("#overview"))
    expect(overview).to_contain_text(
        "from score 0.4; a hit lies at most 1 s from its event (tolerance 2 s, full width)"
    )
    expect(page.locator("#comparison")).to_have_count(0)
    expect(page.get_by_label("Predictions", exact=True)).to_have_count(0)
    assert cells(page.locator("table.per-label"), 7) == [str(figure) for figure in diagnosis.counts.num_hits]
    expect(page.locator("#closer img")).to_have_count(0)
    page.close()


def test_texts_stay_texts_and_nothing_is_asked_of_a_network(reports, pages):
    """A stranger's request, a complaint of the console or an alert would fail `file_pages`."""
    page = pages(reports[0])
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    expect(page.locator("script")).to_have_count(2)
    expect(page.locator("img[src=x], table b, option b, table u, li i")).to_have_count(0)
    expect(page.locator("#comparison").get_by_role("button", name=HOSTILE)).to_have_count(1)
    expect(page.locator(".legend").first.locator("li")).to_have_text(list(NAMES))
    page.close()


def test_charts_and_tables_have_names_for_screen_readers(page):
    for picture in page.locator("svg").all():
        assert NAMES[0] in picture.get_attribute("aria-label") and NAMES[1] in picture.get_attribute("aria-label")
    for table in page.locator("table").all():
        expect(table.locator("caption")).to_have_count(1)
    for region in page.locator(".scroll").all():
        assert region.get_attribute("tabindex") == "0"
        assert region.get_attribute("aria-label") or region.get_attribute("aria-labelledby")


def test_the_page_fits_a_phone(reports, pages):
    page = pages(reports[0], viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


def test_charts_show_the_figures_of_their_label(page):
    diagnoses = [diagnose(REFERENCES, predictions, LABELS) for predictions in PREDICTIONS]
    for label in (0, 1):
        page.get_by_label("Label", exact=True).select_option(LABELS[label])
        precision_recall, curve, errors = page.locator("#closer svg:visible").all()
        marks = iter(curve.locator("circle title").all_text_contents())
        for index, (name, diagnosis) in enumerate(zip(NAMES, diagnoses)):
            for tolerance_s, value in zip(TOLERANCES_S, diagnosis.average_precision[:, 0, label]):
                assert next(marks) == f"{name}: {tolerance_s} s, {100 * value:.1f} %"
            errors_s = diagnosis.errors_s[diagnosis.error_labels == label]
            told = f"{name}: {len(errors_s)} hits, {(errors_s < 0).sum()} early, {(errors_s > 0).sum()} late"
            assert told in errors.get_attribute("aria-label")
            # the operating point lies on the curve, at the precision and recall of the table
            mark = precision_recall.locator("circle").nth(index)
            counts = diagnosis.counts
            told = f"precision {100 * counts.precision[label]:.1f} %, recall {100 * counts.recall[label]:.1f} %"
            assert told in mark.locator("title").text_content()
            place = f"{mark.get_attribute('cx')} {mark.get_attribute('cy')}"
            assert place in re.split("[ML]", precision_recall.locator("path").nth(index).get_attribute("d"))
    overall, errors, *_ = page.locator("section").filter(has=page.locator("#all")).locator("svg").all()
    means = [diagnosis.average_precision[:, 0].mean(axis=1) for diagnosis in diagnoses]
    texts = [f"{x} s, {100 * y:.1f} %" for mean in means for x, y in zip(TOLERANCES_S, mean)]
    assert [text.split(": ")[1] for text in overall.locator("circle title").all_text_contents()] == texts
    assert f"{NAMES[1]}: {len(diagnoses[1].errors_s)} hits" in errors.get_attribute("aria-label")
