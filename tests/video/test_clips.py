"""Clips, decoded again: their frames are the source's at those times."""

import json
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from comedian.cli.main import main
from comedian.errors import InputError
from comedian.soccernet.annotations import write_results
from comedian.video import clips
from comedian.video.clips import Segment, clip_names, segment_of, write_clips, write_reel, write_segments
from comedian.video.decoding import iter_frames, probe
from video_factory import begin_later, corrupt, frame_number, join, note_turn, numbered_from, write_video


def frames_of(path) -> tuple[list[int], list[float]]:
    """Numbers and times of all frames, from the container alone."""
    with av.open(str(path)) as container:
        decoded = [(frame.pts * frame.time_base, frame) for frame in container.decode(video=0)]
    return [frame_number(frame.to_ndarray(format="rgb24")) for _, frame in decoded], [
        float(time_s) for time_s, _ in decoded
    ]


def key_frame_before(path, time_s) -> int:
    """Number of the last frame at or before an instant that refers to no other."""
    with av.open(str(path)) as container:
        keys = [number for number, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    return max(number for number in keys if number <= time_s * 10 + 1e-6)


def sound_of(path) -> np.ndarray:
    """The sound as loudness of each tenth of a second of the picture."""
    with av.open(str(path)) as container:
        rate, samples = container.streams.audio[0].rate, []
        for frame in container.decode(audio=0):
            begin = round(float(frame.pts * frame.time_base) * rate)
            samples.append((begin, frame.to_ndarray().reshape(frame.layout.nb_channels, -1)[0]))
    line = np.zeros(max(begin + len(part) for begin, part in samples))
    for begin, part in samples:
        line[max(begin, 0) : begin + len(part)] = part[max(-begin, 0) :]
    return np.abs(line[: len(line) // (rate // 10) * (rate // 10)].reshape(-1, rate // 10)).mean(axis=1)


def write_loud_video(path, num_frames=100, loud=(30, 31, 32)):
    """A video whose sound is there at some frames alone."""
    silent = write_video(path.with_name("silent" + path.suffix), num_frames)
    rate = 16_000
    tone = np.zeros((1, num_frames * rate // 10), np.float32)
    for number in loud:
        tone[0, number * rate // 10 : (number + 1) * rate // 10] = 0.5 * np.sin(np.arange(rate // 10) * 0.3)
    with av.open(str(silent)) as source, av.open(str(path), "w") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("aac", rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate, frame.pts = rate, 0
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = picture
                target.mux(packet)
        target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    return path


@pytest.fixture
def copies(monkeypatch):
    """Makes a copy that turned into an encoded video a failure."""
    monkeypatch.setattr(clips, "_encode", lambda *words: pytest.fail("encoded"))


def is_copy(path, source) -> bool:
    """Whether the key frames' bytes are among the source's."""

    def packets(name):
        with av.open(str(name)) as container:
            return {bytes(packet) for packet in container.demux(video=0) if packet.size}

    return packets(path) <= packets(source)


@pytest.mark.parametrize(
    "name, options",
    [
        ("1.mp4", {}),
        ("1.mkv", {}),
        ("late.mp4", {"start_s": 1.4}),
        ("late.mkv", {"start_s": 1.4}),
        ("1.mp4", {"b_frames": 0}),
        ("1.mkv", {"b_frames": 4, "gop": 30}),
        ("1.mp4", {"codec": "libx265"}),
        ("1.mp4", {"codec": "mpeg4"}),
        ("1.mkv", {"audio_s": 10.0}),
    ],
    ids=str,
)
@pytest.mark.parametrize("begin_s, end_s", [(0.0, 2.0), (4.5, 6.5), (9.0, 10.0)])
def test_a_copy_begins_at_its_frame_and_has_every_frame(tmp_path, copies, name, options, begin_s, end_s):
    source = write_video(tmp_path / name, 100, **options)
    first_s = write_segments(tmp_path / "clip.mp4", [Segment(source, begin_s, end_s)])
    assert first_s == pytest.approx(begin_s)
    first = round(begin_s * 10)
    numbers, times_s = frames_of(tmp_path / "clip.mp4")
    wanted = list(range(first, round(end_s * 10)))
    assert numbers[: len(wanted)] == wanted and len(numbers) <= len(wanted) + 5
    np.testing.assert_allclose(times_s, (np.array(numbers) - first) / 10, atol=1.1e-3)
    if name.endswith(".mp4"):  # Matroska packs the same frames otherwise
        assert is_copy(tmp_path / "clip.mp4", source)


def test_a_copy_of_real_footage_has_its_very_pixels(tmp_path, copies):
    source = Path(__file__).parents[2] / "examples" / "demo" / "match" / "1_224p.mkv"
    first_s = write_segments(tmp_path / "clip.mp4", [Segment(source, 14.8, 15.8)])
    clip = [frame for _, frame in iter_frames(tmp_path / "clip.mp4", 10)]
    there = [frame for _, frame in zip(range(160), (frame for _, frame in iter_frames(source, 10)))]
    assert first_s == pytest.approx(14.8)
    wanted = there[148:158]
    np.testing.assert_array_equal(clip[: len(wanted)], wanted)


@pytest.mark.parametrize("name", ["1.mp4", "1.mkv", "1.ts", "1.avi"])
@pytest.mark.parametrize("begin_s, end_s", [(0.0, 2.0), (4.5, 6.5), (9.0, 10.0)])
def test_an_exact_clip_has_the_very_frames(tmp_path, name, begin_s, end_s):
    source = write_video(
        tmp_path / name, 100, b_frames=0 if name == "1.avi" else 2, start_s=0 if name == "1.avi" else 1.4
    )
    assert write_segments(tmp_path / "clip.mp4", [Segment(source, begin_s, end_s)], exact=True) == pytest.approx(
        begin_s
    )
    numbers, times_s = frames_of(tmp_path / "clip.mp4")
    assert numbers == list(range(round(begin_s * 10), round(end_s * 10)))
    np.testing.assert_allclose(times_s, np.arange(len(numbers)) / 10, atol=1.1e-3)


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
@pytest.mark.parametrize("name", ["1.mp4", "1.mkv"])
def test_the_sound_stays_beside_the_picture(tmp_path, request, name, exact):
    if not exact:
        request.getfixturevalue("copies")
    source = write_loud_video(tmp_path / name)
    first_s = write_segments(tmp_path / "clip.mp4", [Segment(source, 2.6, 4.6)], exact=exact)
    loudness = sound_of(tmp_path / "clip.mp4")
    first = round(first_s * 10)
    assert first == 26
    assert len(loudness) == pytest.approx(46 - first, abs=1)
    assert set(np.flatnonzero(loudness > 0.15)) == {30 - first, 31 - first, 32 - first}


def test_what_cannot_be_copied_is_encoded(tmp_path):
    source = write_video(tmp_path / "1.mkv", 60, codec="ffv1", b_frames=0)
    write_segments(tmp_path / "clip.mp4", [Segment(source, 2.5, 4.0)])
    assert frames_of(tmp_path / "clip.mp4")[0] == list(range(25, 40))
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec.name == "h264"


def test_an_odd_size_is_encoded(tmp_path):
    source = write_video(tmp_path / "1.mkv", 30, height=63, width=97, pixel_format="yuv444p")
    write_segments(tmp_path / "clip.mp4", [Segment(source, 1.0, 2.0)], exact=True)
    assert frames_of(tmp_path / "clip.mp4")[0] == list(range(10, 20))


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
def test_a_reel_merges_what_overlaps(tmp_path, request, exact):
    if not exact:
        request.getfixturevalue("copies")
    videos = [write_loud_video(tmp_path / f"{half}.mkv") for half in (1, 2)]
    wanted = [(0, 1.0, 2.0), (0, 1.5, 3.0), (0, 5.0, 6.0), (0, 6.0, 6.5), (1, 6.0, 7.0)]
    segments = [Segment(videos[half], begin_s, end_s) for half, begin_s, end_s in wanted]
    parts = write_reel(tmp_path / "reel.mp4", segments, exact=exact)
    begins = [1.0, 5.0, 6.0]
    if not exact:
        begins[1:] = [key_frame_before(videos[0], begin_s) / 10 for begin_s in begins[1:]]
    assert [(part.video, part.end_s) for part in parts] == [(videos[0], 3.0), (videos[0], 6.5), (videos[1], 7.0)]
    assert [part.begin_s for part in parts] == pytest.approx(begins)
    numbers, times_s = frames_of(tmp_path / "reel.mp4")
    expected = [range(round(begin * 10), end) for begin, end in zip(begins, (30, 65, 70))]
    for part in expected:
        assert set(part) <= set(numbers)
    if exact:
        assert numbers == [number for part in expected for number in part]
    assert times_s == sorted(times_s) and max(np.diff(times_s)) <= 0.31
    assert len(sound_of(tmp_path / "reel.mp4")) == pytest.approx(len(numbers), abs=4)


def test_a_reel_of_unlike_videos_is_encoded(tmp_path):
    videos = [write_video(tmp_path / f"{width}.mp4", 40, height=64, width=width, audio_s=4.0) for width in (96, 192)]
    write_reel(tmp_path / "reel.mp4", [Segment(videos[0], 1.0, 2.0), Segment(videos[1], 2.4, 3.0)])
    numbers, _ = frames_of(tmp_path / "reel.mp4")
    assert numbers == [*range(10, 20), *range(key_frame_before(videos[1], 2.4), 30)]


@pytest.mark.parametrize(
    "label, end",
    [
        ("Yellow->red card", "Yellow-_red_card"),
        ("../../etc/passwd", "etc_passwd"),
        ("Tor für Köln", "Tor_für_Köln"),
        ('<>:"|?*\0\n', "event"),
        ("x" * 300, "x" * 60),
    ],
)
def test_names_are_safe(label, end):
    assert clip_names([{"label": label, "timestamp_s": 754.9, "half": 2}]) == [f"{end}_h2_12m34s.mp4"]


def test_halves_are_those_of_the_names_as_for_spot(tmp_path, capsys):
    """Frames of half 2 are numbered from 100."""
    first = write_video(tmp_path / "1_224p.mp4", 100)
    second = write_video(tmp_path / "2_224p.mp4", 100, draw=numbered_from(100))
    spots = [{"label": "Goal", "half": half, "timestamp_s": 2.0, "score": 1.0} for half in (1, 2)]
    write_results(tmp_path / "events.json", "match", spots)
    for videos in ((second, first), (first, second)):
        words = [str(tmp_path / "events.json"), *map(str, videos), "--output", str(tmp_path / "out"), "--exact"]
        assert main(["clips", *words]) == 0
        numbers = [frames_of(tmp_path / f"out/Goal_h{half}_00m02s.mp4")[0][20] for half in (1, 2)]
        assert numbers == [20, 120]
    write_results(tmp_path / "events.json", "match", spots[1:])
    assert main(["clips", str(tmp_path / "events.json"), str(second), "--output", str(tmp_path / "one")]) == 0


def test_names_of_one_label_and_second_differ():
    spots = [{"label": label, "timestamp_s": time_s, "half": 1} for label, time_s in (("Goal", 3.1), ("goal", 3.9))]
    spots += [{"label": "Goal", "timestamp_s": 4.0, "half": 1}, {"label": "Goal", "timestamp_s": 3.1, "half": 2}]
    names = ["Goal_h1_00m03s.mp4", "goal_h1_00m03s_2.mp4", "Goal_h1_00m04s.mp4", "Goal_h2_00m03s.mp4"]
    assert clip_names(spots) == names


def test_segments_stay_inside_the_video(tmp_path):
    videos = {1: write_video(tmp_path / "1.mp4", 100)}
    for timestamp_s, expected in ((1.0, (0.0, 4.0)), (5.0, (3.0, 8.0)), (9.5, (7.5, 10.0))):
        segment = segment_of({"label": "Goal", "timestamp_s": timestamp_s, "half": 1}, videos, 2, 3)
        assert (segment.begin_s, segment.end_s) == expected
    with pytest.raises(InputError, match="ends at 10.0 s, before 'Goal' at 10.5 s"):
        segment_of({"label": "Goal", "timestamp_s": 10.5, "half": 1}, videos, 2, 3)
    with pytest.raises(InputError, match="half 2, but `.*1.mp4` is half 1; give one video per half"):
        segment_of({"label": "Goal", "timestamp_s": 1.0, "half": 2}, videos, 2, 3)


def test_an_interrupted_run_goes_on_and_changed_wishes_are_cut_anew(tmp_path, monkeypatch):
    source = write_video(tmp_path / "1.mp4", 100)
    segments = {f"{number}.mp4": Segment(source, number, number + 1.0) for number in range(3)}
    written = []

    def cut(path, parts, *, exact, fails=()):
        if path.name in fails:
            raise KeyboardInterrupt
        written.append(path.name)
        return write_segments(path, parts, exact=exact)

    monkeypatch.setattr(clips, "write_segments", lambda *words, **named: cut(*words, **named, fails=["2.mp4"]))
    with pytest.raises(KeyboardInterrupt):
        write_clips(tmp_path / "out", segments)
    assert written == ["0.mp4", "1.mp4"] and not (tmp_path / "out/2.mp4").exists()
    monkeypatch.setattr(clips, "write_segments", cut)
    os.remove(tmp_path / "out/0.mp4")
    record = write_clips(tmp_path / "out", segments)
    assert written == ["0.mp4", "1.mp4", "0.mp4", "2.mp4"]
    assert [entry["first_frame_s"] for entry in record.values()] == pytest.approx([0, 1, 2])
    assert json.loads((tmp_path / "out/clips.json").read_text()) == record
    assert write_clips(tmp_path / "out", segments) == record and len(written) == 4
    segments["1.mp4"] = Segment(source, 1.0, 2.5)
    write_clips(tmp_path / "out", segments)
    assert written[4:] == ["1.mp4"]
    write_clips(tmp_path / "out", {"1.mp4": segments["1.mp4"]}, exact=True)
    assert written[5:] == ["1.mp4"]
    write_video(source, 90)
    write_clips(tmp_path / "out", segments)
    assert sorted(written[6:]) == ["0.mp4", "1.mp4", "2.mp4"]


@pytest.fixture
def cut(tmp_path, capsys):
    for half in (1, 2):
        write_video(tmp_path / f"{half}.mkv", 100)
    spots = [
        {"label": "Goal", "timestamp_s": 5.0, "half": 2, "score": 0.9},
        {"label": "Goal", "timestamp_s": 3.0, "half": 1, "score": 0.4},
        {"label": "Corner", "timestamp_s": 9.9, "half": 1, "score": 0.8},
    ]
    write_results(tmp_path / "events.json", "match", spots)

    def run(*words):
        names = [tmp_path / name for name in ("events.json", "1.mkv", "2.mkv")]
        code = main(["clips", *map(str, names), "--output", str(tmp_path / "out"), *map(str, words)])
        return code, *capsys.readouterr()

    return run


def test_clips_of_another_video_and_videos_themselves_are_not_replaced(cut, tmp_path, capsys):
    assert cut()[0] == 0
    contents = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("1.mkv", "2.mkv"):
        write_video(tmp_path / "other" / name, 110)
    words = ["clips", str(tmp_path / "events.json"), *(str(tmp_path / "other" / name) for name in ("1.mkv", "2.mkv"))]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "is a clip of" in capsys.readouterr().err
    write_video(tmp_path / "m.mp4", 100).rename(tmp_path / "1.mp4")
    words = ["clips", str(tmp_path / "events.json"), str(tmp_path / "1.mp4"), str(tmp_path / "2.mkv")]
    assert main([*words, "--output", str(tmp_path / "new"), "--reel", str(tmp_path / "1.mp4")]) == 2
    assert "1.mp4` is an input, and would be overwritten" in capsys.readouterr().err
    write_video(tmp_path / "Goal_h1_00m03s.mp4", 100)
    words = ["clips", str(tmp_path / "events.json"), str(tmp_path / "Goal_h1_00m03s.mp4"), str(tmp_path / "2.mkv")]
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert "is a video, which its clip would replace" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in contents.items())
    assert not (tmp_path / "new").exists()


def test_the_command(cut, tmp_path):
    code, out, err = cut("--before", 1, "--after", 2, "--reel", tmp_path / "reel.mp4")
    names = ["Goal_h1_00m03s.mp4", "Corner_h1_00m09s.mp4", "Goal_h2_00m05s.mp4"]
    assert code == 0 and {path.name for path in (tmp_path / "out").iterdir()} == {*names, "clips.json"}
    assert "out: 3 clips" in out and "reel.mp4: " in out
    assert frames_of(tmp_path / "out" / names[0])[0][:30] == list(range(20, 50))
    # the corner 0.1 s before the end, and a name that no choice changes
    code, out, err = cut("--labels", "Corner", "--exact", "--before", 1)
    assert code == 0 and "1 clips" in out
    assert frames_of(tmp_path / "out" / names[1])[0] == list(range(89, 100))
    code, out, _ = cut("--min-score", 0.5, "--labels", "Goal")
    assert code == 0 and "1 clips" in out


@pytest.mark.parametrize(
    "words, message",
    [
        (["--labels", "Foul"], "has no 'Foul'; it has Corner, Goal"),
        (["--min-score", "2"], "no such event"),
        (["--before", "-1"], "0 or more"),
        (["--before", "0", "--after", "0"], "not both 0"),
        (["--reel", "reel.avi"], "ends in .mp4"),
    ],
    ids=" ".join,
)
def test_bad_words(cut, tmp_path, words, message):
    code, out, err = cut(*words)
    assert (code, out) == (2, "") and message in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
def test_a_clip_of_a_telephones_video_is_upright(tmp_path, exact):
    source = note_turn(write_video(tmp_path / "telephone.mp4", num_frames=20, height=48, width=80), 1)
    write_segments(tmp_path / "clip.mp4", [Segment(source, 0.0, 1.0)], exact=exact)
    _, frame = next(iter_frames(tmp_path / "clip.mp4", 10))
    _, expected = next(iter_frames(source, 10))
    assert frame.shape == expected.shape == (80, 48, 3)
    assert np.abs(frame.astype(int) - expected).mean() < 8


FAR_KEY_FRAMES = {"gop": 100, "codec_options": {"x264-params": "scenecut=0"}}


def codec_of(path) -> tuple[str, str]:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec.name, container.streams.video[0].codec_context.codec_tag


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
@pytest.mark.parametrize("begin_s", [0.0, 0.5, 4.0])
def test_a_clip_of_a_trimmed_video_counts_from_its_first_shown_frame(tmp_path, exact, begin_s):
    whole = write_video(tmp_path / "whole.mp4", 100, gop=12)
    trimmed = begin_later(whole, tmp_path / "trimmed.mp4", begin_s=3.1)
    first_s = write_segments(tmp_path / "clip.mp4", [Segment(trimmed, begin_s, begin_s + 2)], exact=exact)
    assert first_s == pytest.approx(begin_s)
    first = 31 + round(begin_s * 10)
    numbers, times_s = frames_of(tmp_path / "clip.mp4")
    assert numbers[:20] == list(range(first, first + 20)) and len(numbers) <= 23
    np.testing.assert_allclose(times_s[:20], np.arange(20) / 10, atol=1.1e-3)


def test_nothing_hidden_is_shown_where_key_frames_are_far(tmp_path):
    source = write_video(tmp_path / "1.mp4", 100, **FAR_KEY_FRAMES)
    trimmed = begin_later(source, tmp_path / "trimmed.mp4", begin_s=3.0)
    for video, first in ((source, 0), (trimmed, 30)):
        for begin_s in (0.9, 3.0):
            assert write_segments(tmp_path / "clip.mp4", [Segment(video, begin_s, begin_s + 1)]) == pytest.approx(
                begin_s
            )
            with av.open(str(tmp_path / "clip.mp4")) as container:
                num_packets = sum(packet.size > 0 for packet in container.demux(video=0))
            # at most a second more than was asked for, hidden or not
            assert num_packets <= 20 + 3
            numbers = frames_of(tmp_path / "clip.mp4")[0]
            assert numbers[:10] == list(range(first + round(begin_s * 10), first + round(begin_s * 10) + 10))


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
@pytest.mark.parametrize("ending", ["ts", "mkv"])
def test_clips_of_joined_recordings(tmp_path, ending, exact):
    parts = [write_video(tmp_path / f"{first}.{ending}", 40, draw=numbered_from(first)) for first in (0, 40)]
    source = join(tmp_path / f"joined.{ending}", *parts)
    for begin_s in (1.0, 3.5, 6.0):
        assert write_segments(tmp_path / "clip.mp4", [Segment(source, begin_s, begin_s + 1)], exact=exact) == begin_s
        first = round(begin_s * 10)
        assert frames_of(tmp_path / "clip.mp4")[0][:10] == list(range(first, first + 10))


@pytest.mark.parametrize("exact", [False, True], ids=["copied", "exact"])
def test_clips_just_before_and_after_the_clock_wraps(tmp_path, request, exact):
    if not exact:
        request.getfixturevalue("copies")
    source = write_video(tmp_path / "1.ts", 80, start_s=2**33 / 90_000 - 4)
    for begin_s in (0.0, 1.5, 3.5, 6.0):
        first_s = write_segments(tmp_path / "clip.mp4", [Segment(source, begin_s, begin_s + 1)], exact=exact)
        assert first_s == pytest.approx(begin_s)
        first = round(begin_s * 10)
        assert frames_of(tmp_path / "clip.mp4")[0][:10] == list(range(first, first + 10))


@pytest.mark.parametrize(
    "name, options", [("1.264", {}), ("1.avi", {}), ("1.mpg", {"codec": "mpeg2video", "fps": 25, "width": 160})]
)
def test_clips_of_what_holds_no_times_are_encoded(tmp_path, name, options):
    source = write_video(tmp_path / name, 150, **{"fps": 25, **options})
    write_segments(tmp_path / "clip.mp4", [Segment(source, 2.0, 3.0)])
    assert frames_of(tmp_path / "clip.mp4")[0] == list(range(50, 75))


@pytest.mark.parametrize(("turns", "aspect"), [(0, Fraction(2, 1)), (1, Fraction(1, 2))])
def test_an_encoded_clip_keeps_the_shape_of_its_pixels(tmp_path, turns, aspect):
    source = write_video(tmp_path / "dvd.mp4", 20, height=64, width=64, pixel_aspect=Fraction(2, 1))
    note_turn(source, turns)
    write_segments(tmp_path / "clip.mp4", [Segment(source, 0.0, 1.0)], exact=True)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect


def test_a_clip_of_a_stretch_in_which_no_frame_begins_shows_the_one_on_screen(tmp_path):
    times_s = [index / 10 + 6 * (index >= 20) for index in range(40)]
    source = write_video(tmp_path / "1.mkv", times_s=times_s)
    segments = {"still.mp4": Segment(source, 3.0, 5.0), "both.mp4": Segment(source, 7.0, 9.0)}
    record = write_clips(tmp_path / "out", segments, exact=True)
    assert [entry["first_frame_s"] for entry in record.values()] == [3.0, 7.0]
    for name, truth in (("still.mp4", [19]), ("both.mp4", [19, *range(20, 30)])):
        numbers, times_s = frames_of(tmp_path / "out" / name)
        assert list(dict.fromkeys(numbers)) == truth and times_s[0] == 0
        assert probe(tmp_path / "out" / name).duration_s == pytest.approx(2.0, abs=0.11)
    assert times_s[1] == pytest.approx(1.0)


def test_a_clip_that_cannot_be_written_does_not_end_the_others(tmp_path):
    broken = corrupt(write_video(tmp_path / "broken.mp4", 40, gop=40), 0.05, 0.9)
    good = write_video(tmp_path / "good.mp4", 40)
    segments = {"1.mp4": Segment(broken, 1.0, 2.0), "2.mp4": Segment(good, 1.0, 2.0)}
    with pytest.raises(InputError, match="1 of 2 clips cannot be written; the first error is `1.mp4`"):
        write_clips(tmp_path / "out", segments, exact=True)
    assert frames_of(tmp_path / "out" / "2.mp4")[0] == list(range(10, 20))
    assert set(json.loads((tmp_path / "out" / "clips.json").read_text())) == {"2.mp4"}


@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_in_avi_becomes_aac(tmp_path, channels):
    tone = np.zeros((channels, 5 * 16_000), np.float32)
    tone[:, 3 * 16_000 : 4 * 16_000] = 0.5 * np.sin(np.arange(16_000) * 0.3)
    source = write_video(tmp_path / "1.avi", 50, codec="mpeg4", b_frames=0, sound=tone)
    write_segments(tmp_path / "clip.mp4", [Segment(source, 2.0, 5.0)])
    assert frames_of(tmp_path / "clip.mp4")[0] == list(range(20, 50))
    loud = np.flatnonzero(sound_of(tmp_path / "clip.mp4") > 0.15)
    assert (loud[0], loud[-1]) == (10, 19)


def test_copied_hevc_has_the_tag_that_apple_plays(tmp_path, copies):
    for name in ("1.mp4", "1.mkv"):
        source = write_video(tmp_path / name, 40, codec="libx265")
        write_segments(tmp_path / "clip.mp4", [Segment(source, 1.0, 2.0)])
        assert codec_of(tmp_path / "clip.mp4") == ("hevc", "hvc1")
