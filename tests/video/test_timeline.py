"""What is on screen when, of videos whose container's clock is not simply the frames' own. The truth is in the frames."""

import av
import numpy as np
import pytest

from comedian.models.sound_comedian import MEL_RATE, read_sound
from comedian.models.timeline_comedian import Timeline
from comedian.video.decoding import frames_at, iter_frames, probe, timing_of
from video_factory import begin_later, frame_number, join, numbered_from, write_video

MPEG = {"codec": "mpeg2video", "fps": 25, "height": 64, "width": 160}


def assert_shown(path, fps, wanted, damage=0):
    """Assert that every way to read a video shows frame `wanted[i]` at `i / fps` seconds."""
    for options in ({}, {"live": True}, {"threads": 3}):
        told = []
        found = list(iter_frames(path, fps, on_damage=told.append, **options))
        assert [frame_number(frame) for _, frame in found] == wanted
        assert len(told) == damage, told
    np.testing.assert_allclose([time_s for time_s, _ in found], np.arange(len(wanted)) / fps, atol=1.1e-3)
    assert probe(path).duration_s == pytest.approx(len(wanted) / fps, abs=2e-3)
    assert probe(path).fps == pytest.approx(fps)
    places = [len(wanted) - 2, 0, len(wanted) // 2, len(wanted) // 2 + 3]
    times_s = [place / fps + 1e-4 for place in places] + [99.0]
    assert [frame_number(frame) for frame in frames_at(path, times_s)] == [wanted[place] for place in [*places, -1]]
    return told


@pytest.mark.parametrize(
    "ending, options, lengths_s",
    [
        ("ts", {}, (4, 3)),
        ("ts", {"b_frames": 0}, (3, 4, 2)),
        ("ts", {"codec": "libx265"}, (3, 4, 2)),
        ("mkv", {}, (4, 3)),
        ("mpg", MPEG, (4, 3)),
        ("vob", MPEG, (4, 3)),
    ],
    ids=str,
)
def test_joined_recordings_follow_each_other(tmp_path, ending, options, lengths_s):
    fps = options.get("fps", 10)
    starts_s = [sum(lengths_s[:count]) for count in range(len(lengths_s))]
    parts = [
        write_video(
            tmp_path / f"{start_s}.{ending}",
            length_s * fps,
            **options | {"fps": fps, "draw": numbered_from(start_s * fps)},
        )
        for start_s, length_s in zip(starts_s, lengths_s, strict=True)
    ]
    path = join(tmp_path / f"joined.{ending}", *parts)
    told = assert_shown(path, fps, list(range(sum(lengths_s) * fps)), damage=len(lengths_s) - 1)
    for line, start_s in zip(told, starts_s[1:], strict=True):
        assert f"joined.{ending}" in line and f"restarts at {start_s:.1f} s" in line
    timing = timing_of(path)
    assert np.subtract(timing.restarts_s, timing.first_s) == pytest.approx(starts_s[1:])


@pytest.mark.parametrize("start_s", [600.0, 90_000.0])
@pytest.mark.parametrize("ending, options", [("ts", {}), ("mpg", MPEG)], ids=["ts", "mpg"])
def test_a_clock_that_jumps_forward_shows_no_still_picture(tmp_path, ending, options, start_s):
    fps = options.get("fps", 10)
    first = write_video(tmp_path / f"1.{ending}", 4 * fps, **{"fps": fps} | options)
    second = write_video(
        tmp_path / f"2.{ending}", 3 * fps, **{"fps": fps} | options, start_s=start_s, draw=numbered_from(4 * fps)
    )
    path = join(tmp_path / f"joined.{ending}", first, second)
    told = assert_shown(path, fps, list(range(7 * fps)), damage=1)
    assert "restarts at 4.0 s" in told[0]


class WithBrokenTime:
    """A container of which one packet has a wrong time."""

    def __init__(self, container, number, error_s):
        self.container, self.format, self.number, self.error_s = container, container.format, number, error_s

    def demux(self, *streams):
        for number, packet in enumerate(self.container.demux(*streams)):
            if number == self.number:
                packet.pts = packet.dts = packet.dts + round(self.error_s / packet.time_base)
            yield packet


@pytest.mark.parametrize("ending, error_s", [("ts", -3.0), ("ts", 600.0), ("ts", -90_000.0), ("mkv", -3.0)])
def test_one_broken_time_moves_no_other_frame(tmp_path, ending, error_s):
    path = write_video(tmp_path / f"1.{ending}", 80, b_frames=0, gop=10)
    with av.open(str(path)) as container:
        timeline = Timeline(WithBrokenTime(container, 40, error_s), container.streams.video[0])
        packets = [packet for packet in timeline.packets() if packet is not None]
        times_s = [float(packet.pts * packet.time_base) for packet in packets]
    true_s = np.arange(80) / 10 + times_s[0]
    np.testing.assert_allclose(np.delete(times_s, 40), np.delete(true_s, 40), atol=1.1e-3)


def test_a_recording_that_begins_between_key_frames_follows_another(tmp_path):
    options = {"b_frames": 0, "gop": 20, "codec_options": {"x264-params": "scenecut=0"}}
    first = write_video(tmp_path / "1.ts", 40, **options)
    packets = write_video(tmp_path / "2.ts", 80, draw=numbered_from(40), **options).read_bytes()
    second = tmp_path / "late.ts"
    second.write_bytes(packets[len(packets) // 188 // 3 * 188 :])
    with av.open(str(second)) as container:
        num_packets = sum(packet.size > 0 for packet in container.demux(video=0))
    with av.open(str(second)) as container:
        shown = [frame_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert shown[0] % 20 == 0 and 0 < num_packets - len(shown) < 20
    path, told = join(tmp_path / "joined.ts", first, second), []
    found = [frame_number(frame) for _, frame in iter_frames(path, 10, on_damage=told.append)]
    # what cannot be decoded takes its time
    assert found == [*range(40), *[39] * (num_packets - len(shown)), *shown]
    assert len(told) == 1 and "restarts at 4.0 s" in told[0]


@pytest.mark.parametrize("ending", ["ts", "mkv", "mp4"])
def test_a_gap_of_seconds_is_a_still_picture(tmp_path, ending):
    times_s = [index / 10 + 3 * (index >= 20) for index in range(40)]
    path = write_video(tmp_path / f"1.{ending}", times_s=times_s)
    found = [frame_number(frame) for _, frame in iter_frames(path, 10)]
    assert found == [*range(20), *[19] * 30, *range(20, 40)]
    assert timing_of(path).restarts_s == ()


def test_a_file_keeps_the_long_stills_of_its_own_timeline(tmp_path):
    times_s = [index / 10 + 30 * (index >= 20) for index in range(40)]
    path = write_video(tmp_path / "slides.mp4", times_s=times_s)
    assert [frame_number(frame) for _, frame in iter_frames(path, 1)] == [0, 10, *[19] * 30, 20, 30]


def test_the_clock_wraps_after_33_bits(tmp_path):
    start_s = 2**33 / 90_000 - 2
    path = write_video(tmp_path / "1.ts", 60, start_s=start_s)
    assert_shown(path, 10, list(range(60)))
    assert timing_of(path).restarts_s == ()


def test_what_precedes_the_first_key_frame_is_not_shown(tmp_path):
    whole = write_video(tmp_path / "whole.ts", 100, gop=30, codec_options={"x264-params": "scenecut=0"})
    packets = whole.read_bytes()
    start = len(packets) // 188 // 5 * 188
    path = tmp_path / "late.ts"
    path.write_bytes(packets[start:])
    assert_shown(path, 10, list(range(30, 100)))
    assert timing_of(path).first_s > timing_of(path).player_s
    late = begin_later(
        write_video(tmp_path / "whole.mp4", 100, gop=30, codec_options={"x264-params": "scenecut=0"}),
        tmp_path / "late.mkv",
        begin_s=0.0,
        first_packet=8,
    )
    assert_shown(late, 10, list(range(30, 100)))


def test_leading_pictures_of_an_open_group_are_shown_as_decoders_show_them(tmp_path):
    options = {"x264-params": "open-gop=1:keyint=20:scenecut=0:bframes=3:b-adapt=0"}
    whole = write_video(tmp_path / "whole.ts", 100, b_frames=3, gop=20, codec_options=options)
    packets = whole.read_bytes()
    path = tmp_path / "late.ts"
    path.write_bytes(packets[len(packets) // 188 // 3 * 188 :])
    with av.open(str(path)) as container:
        truth = [frame_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert truth == list(range(truth[0], 100)) and truth[0] > 20
    assert_shown(path, 10, truth)


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_what_an_edit_list_hides_is_not_shown(tmp_path, ending, b_frames):
    options = {"x264-params": "scenecut=0"}
    source = write_video(tmp_path / f"source.{ending}", 100, gop=100, b_frames=b_frames, codec_options=options)
    path = begin_later(source, tmp_path / f"trimmed.{ending}", begin_s=3.5)
    with av.open(str(path)) as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) >= 35
    assert_shown(path, 10, list(range(35, 100)))
    assert timing_of(path).first_s == 0


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "ts"])
def test_sound_may_begin_before_the_picture(tmp_path, ending):
    tone = np.zeros(6 * 16_000, np.float32)
    tone[4 * 16_000 :] = np.sin(np.arange(2 * 16_000) * 0.3)
    path = write_video(tmp_path / f"1.{ending}", 30, start_s=3.0, sound=tone, sound_codec="aac")
    assert_shown(path, 10, list(range(30)))
    timing = timing_of(path)
    assert timing.first_s - timing.player_s == pytest.approx(3.0, abs=0.11)  # AAC begins a frame early
    loud = np.flatnonzero(read_sound(str(path)).max(axis=1) > 0.7)[0] / MEL_RATE
    assert loud == pytest.approx(1.0, abs=0.08)


@pytest.mark.parametrize("ending, options", [("ts", {}), ("mkv", {}), ("mpg", MPEG)], ids=["ts", "mkv", "mpg"])
def test_sound_stays_beside_the_picture_where_recordings_are_joined(tmp_path, ending, options):
    """A tone of 0.5 s begins 1 s after each recording's begin, and another one 1 s before its end."""
    fps, parts = options.get("fps", 10), []
    for length_s in (4, 5) if ending == "mkv" else (4, 3, 5):
        tone = np.zeros(length_s * 48_000, np.float32)
        for begin_s in (1, length_s - 1):
            tone[begin_s * 48_000 : begin_s * 48_000 + 24_000] = np.sin(np.arange(24_000) * 0.1)
        codec = "mp2" if ending == "mpg" else "aac"
        parts.append(
            write_video(
                tmp_path / f"{length_s}.{ending}",
                length_s * fps,
                **{"fps": fps} | options,
                sound=tone,
                sound_rate=48_000,
                sound_codec=codec,
            )
        )
    loudness = read_sound(str(join(tmp_path / f"joined.{ending}", *parts))).max(axis=1) > 0.7
    begins_s = (np.flatnonzero(loudness[1:] & ~loudness[:-1]) + 1) / MEL_RATE
    np.testing.assert_allclose(begins_s, [1, 3, 5, 8] if ending == "mkv" else [1, 3, 5, 6, 8, 11], atol=0.1)


@pytest.mark.parametrize(
    "name, options",
    [
        ("1.264", {"fps": 30}),
        ("1.264", {"fps": 12.5, "b_frames": 0}),
        ("1.264", {"fps": 120}),
        ("1.265", {"fps": 50, "codec": "libx265"}),
        ("1.m2v", {"fps": 30, "codec": "mpeg2video", "height": 64, "width": 160}),
    ],
    ids=str,
)
def test_a_raw_stream_has_its_own_rate(tmp_path, name, options):
    path = write_video(tmp_path / name, 90, **options)
    assert_shown(path, options["fps"], list(range(90)))


def test_a_raw_stream_without_a_rate_is_taken_as_players_take_it(tmp_path):
    options = {"x265-params": "vui-timing-info=0:log-level=none"}
    path = write_video(tmp_path / "1.265", 50, fps=30, codec="libx265", codec_options=options)
    assert_shown(path, 25, list(range(50)))


@pytest.mark.parametrize("codec, b_frames", [("libx264", 2), ("libx264", 0), ("mpeg4", 2), ("mpeg4", 0)])
def test_avi_holds_times_of_decoding_alone(tmp_path, codec, b_frames):
    path = write_video(tmp_path / "1.avi", 100, codec=codec, b_frames=b_frames)
    assert_shown(path, 10, list(range(100)))
    assert [frame_number(frame) for _, frame in iter_frames(path, 2)] == list(range(0, 100, 5))
