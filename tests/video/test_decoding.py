from fractions import Fraction

import av
import av.logging
import numpy as np
import pytest

from comedian.errors import InputError
from comedian.models import frames_comedian
from comedian.models.frames_comedian import scaled_size
from comedian.video.decoding import VideoInfo, frames_at, iter_frames, probe
from video_factory import corrupt, draw_frame, frame_number, note_turn, on_screen, truncate, write_video


def numbers_and_times(path, fps, **options):
    pairs = list(iter_frames(path, fps, **options))
    return [frame_number(frame) for _, frame in pairs], [timestamp_s for timestamp_s, _ in pairs]


def steady(num_frames=40, fps=10):
    return [index / fps for index in range(num_frames)]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts", "avi", "mov"])
def test_every_container_gives_the_grid(tmp_path, ending):
    path = write_video(tmp_path / f"1.{ending}", b_frames=0 if ending == "avi" else 2)
    numbers, times_s = numbers_and_times(path, 2)
    assert numbers == [0, 5, 10, 15, 20, 25, 30, 35]
    assert times_s == pytest.approx(np.arange(8) / 2, abs=1e-3)
    info = probe(path)
    assert (info.fps, info.width, info.height) == (10, 96, 64)
    assert info.duration_s == pytest.approx(4.0, abs=0.11 if ending == "ts" else 1e-3)


@pytest.mark.parametrize("grid_fps", [0.5, 2, 3, 7, 10, 12.5, 25, 29.97])
@pytest.mark.parametrize("source_fps", [10, 25, 29.97])
def test_rates_that_do_not_divide(tmp_path, source_fps, grid_fps):
    path = write_video(tmp_path / "1.mp4", fps=source_fps)
    numbers, times_s = numbers_and_times(path, grid_fps)
    truth = on_screen(steady(fps=source_fps), grid_fps, 40 / source_fps)
    assert numbers == truth
    assert times_s == pytest.approx([number / source_fps for number in truth], abs=1e-3)


@pytest.mark.parametrize("fps", [30, 29.97, 60, 16])
def test_timestamps_rounded_to_milliseconds_move_no_frame(tmp_path, fps):
    path = write_video(tmp_path / "1.mkv", fps=fps)  # 33, 67, 100 ms at 30 fps
    assert numbers_and_times(path, fps)[0] == list(range(40))
    assert numbers_and_times(path, fps / 2)[0] == list(range(0, 40, 2))


def test_variable_frame_rate_goes_by_presentation_time(tmp_path):
    times_s = [0, 0.1, 0.15, 0.9, 1.0, 1.02, 2.5, 2.6, 4.0, 4.04]
    path = write_video(tmp_path / "1.mkv", times_s=times_s, fps=25)
    numbers, found_s = numbers_and_times(path, 4)
    assert numbers[:17] == on_screen(times_s, 4, 4.04)
    assert found_s[:17] == pytest.approx([times_s[number] for number in numbers[:17]], abs=1e-3)


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("start_s", [3.217, 100.0])
def test_time_starts_at_the_first_frame(tmp_path, ending, start_s):
    path = write_video(tmp_path / f"1.{ending}", start_s=start_s)
    numbers, times_s = numbers_and_times(path, 2)
    assert numbers == [0, 5, 10, 15, 20, 25, 30, 35]
    assert times_s == pytest.approx(np.arange(8) / 2, abs=1e-3)
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.11)


def test_negative_start(tmp_path):
    path = write_video(tmp_path / "1.nut", start_s=-1.0)
    assert numbers_and_times(path, 2)[0] == [0, 5, 10, 15, 20, 25, 30, 35]


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_audio_changes_nothing(tmp_path, ending):
    path = write_video(tmp_path / f"1.{ending}", audio_s=6.0, start_s=0.7)
    numbers, times_s = numbers_and_times(path, 2)
    assert numbers == [0, 5, 10, 15, 20, 25, 30, 35]
    assert times_s[0] == 0
    assert probe(path).duration_s == pytest.approx(4.0, abs=0.11)


def test_sound_alone_is_no_video(tmp_path):
    import av

    path = tmp_path / "1.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        silence.sample_rate = 16_000
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    for read in (probe, lambda path: next(iter_frames(path, 2))):
        with pytest.raises(InputError, match="1.mkv.*no video stream"):
            read(path)


@pytest.mark.parametrize("ending", ["mkv", "ts"])
def test_truncated_tail_gives_what_is_there_and_says_so(tmp_path, ending):
    path = truncate(write_video(tmp_path / f"1.{ending}", num_frames=100), 0.5)
    damage = []
    numbers, _ = numbers_and_times(path, 5, on_damage=damage.append)
    assert 10 <= len(numbers) < 45
    assert numbers[:-2] == [2 * index for index in range(len(numbers) - 2)]
    if ending == "mkv":
        assert len(damage) == 1 and "1.mkv" in damage[0] and "10.0 s" in damage[0]
    else:  # a transport stream promises no length
        assert all("1.ts" in line for line in damage)


@pytest.mark.parametrize("ending", ["ts", "mp4", "mkv"])
def test_broken_middle_is_passed_over_and_said(tmp_path, ending):
    path = corrupt(write_video(tmp_path / f"1.{ending}", num_frames=200, height=128, width=192), 0.4, 0.5)
    damage = []
    frames = [frame for _, frame in iter_frames(path, 10, on_damage=damage.append)]
    assert len(frames) == 200
    assert [frame_number(frame) for frame in frames[:60]] == list(range(60))
    assert [frame_number(frame) for frame in frames[-60:]] == list(range(140, 200))
    assert len(damage) == 1 and f"1.{ending}" in damage[0] and "broken data" in damage[0]


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "1.mkv", num_frames=1)
    assert numbers_and_times(path, 2) == ([0], [0.0])
    assert probe(path) == VideoInfo(0.1, 10, 96, 64)


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 500, bytes(range(256)) * 40])
@pytest.mark.parametrize("name", ["1.mkv", "1.mp4", "1.txt"])
def test_what_is_no_video(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    for read in (probe, lambda path: next(iter_frames(path, 2))):
        with pytest.raises(InputError, match=name) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.mkv", tmp_path):
        with pytest.raises(InputError):
            probe(path)


def test_header_without_a_frame(tmp_path):
    path = truncate(write_video(tmp_path / "1.mkv"), 0.12)
    with pytest.raises(InputError, match="1.mkv"):
        list(iter_frames(path, 2, on_damage=lambda line: None))


def test_sizes(tmp_path):
    path = write_video(tmp_path / "1.mkv", num_frames=6, height=63, width=97, pixel_format="yuv444p")
    for size, shape in [(None, (63, 97, 3)), (32, (32, 50, 3)), ((30, 40), (30, 40, 3)), (126, (126, 194, 3))]:
        frames = list(iter_frames(path, 10, size))
        assert [frame.shape for _, frame in frames] == [shape] * 6
        assert [frame_number(frame) for _, frame in frames] == list(range(6))
        assert frames[0][1].dtype == np.uint8
    assert scaled_size(224, 398, 112) == (112, 200)
    assert scaled_size(1080, 1920, 224) == (224, 398)


def test_pixels_are_the_sources(tmp_path):
    path = write_video(tmp_path / "1.mkv", num_frames=3, codec="libx264rgb", pixel_format="rgb24")
    for (_, frame), number in zip(iter_frames(path, 10), range(3)):
        assert np.abs(frame.astype(int) - draw_frame(number)).mean() < 4


def test_threads_change_nothing(tmp_path):
    path = write_video(tmp_path / "1.mkv", num_frames=60)
    one, many = (list(iter_frames(path, 7, threads=threads)) for threads in (1, 3))
    assert [timestamp_s for timestamp_s, _ in one] == [timestamp_s for timestamp_s, _ in many]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, many))


@pytest.mark.parametrize("b_frames, most", [(0, 2), (2, 4)])
def test_live_frames_wait_for_no_more_than_the_codec_reorders(tmp_path, monkeypatch, b_frames, most):
    path, drawn, demux = write_video(tmp_path / "1.mkv", num_frames=100, b_frames=b_frames), [], frames_comedian.demux
    monkeypatch.setattr(
        frames_comedian, "demux", lambda *words: (drawn.append(1) or packet for packet in demux(*words))
    )
    ahead = [len(drawn) - index for index, _ in enumerate(iter_frames(path, 10, threads=4, live=True))]
    # a frame is known to be on screen once the next one is there
    assert max(ahead) == most and len(ahead) == 100
    drawn.clear()
    next(iter_frames(path, 10, threads=4))
    assert len(drawn) > 40


def test_decoder_threads_never_log_into_python(tmp_path):
    av.logging.set_level(av.logging.ERROR)  # as torchvision does on import; closing half-way could then hang
    frames = iter_frames(write_video(tmp_path / "video.mkv"), fps=1)
    next(frames)
    assert av.logging.get_level() is None
    frames.close()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "codec, b_frames", [("libx264", 0), ("libx264", 3), ("libx264", 12), ("libx265", 4), ("mpeg4", 2)]
)
def test_frames_that_are_not_decoded_are_not_missed(tmp_path, codec, b_frames, threads):
    """Bit for bit what decoding everything gives, on grids that need few frames and on grids that need them all."""
    path = write_video(tmp_path / "1.mkv", num_frames=230, fps=25, codec=codec, b_frames=b_frames, gop=60)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for fps in (0.4, 2, 3.7, 12.5, 25):
        truth = on_screen(steady(230, 25), fps, 230 / 25)
        found = [frame for _, frame in iter_frames(path, fps, threads=threads)]
        assert len(found) == len(truth)
        assert all((frame == frames[number]).all() for frame, number in zip(found, truth, strict=True))


def test_frames_off_the_grid_are_left_out(tmp_path, monkeypatch):
    path = write_video(tmp_path / "1.mkv", num_frames=250, fps=25, codec="mpeg4", b_frames=2, gop=50)
    decoded = []

    def count(*arguments, decode=frames_comedian.decode_packets):
        for frame in decode(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(frames_comedian, "decode_packets", count)
    few = len(list(iter_frames(path, 2)))
    assert few == 20 and len(decoded) < 0.7 * 250
    decoded.clear()
    assert len(list(iter_frames(path, 25))) == 250 == len(decoded)


@pytest.mark.parametrize("name", ["long_gop.mkv", "late.mp4", "no_index.ts", "old.avi", "program.mpg"])
def test_frames_at_are_those_on_screen(tmp_path, name):
    options = {
        "long_gop.mkv": {"gop": 60},
        "late.mp4": {"start_s": 1.4},
        "no_index.ts": {"start_s": 1.4},
        "old.avi": {"codec": "mpeg4", "b_frames": 0},
        "program.mpg": {"codec": "mpeg2video", "fps": 25},
    }[name]
    path = write_video(tmp_path / name, 120, **options)
    fps = options.get("fps", 10)
    times_s = [5.01, 0.0, 0.55 * 10 / fps, 99.0, 2.0, 2.0]
    found = [frame_number(frame) for frame in frames_at(path, times_s, size=64)]
    assert found == [min(int(time_s * fps + 1e-6), 119) for time_s in times_s]


def test_frames_at_of_what_cannot_be_decoded(tmp_path):
    path = corrupt(write_video(tmp_path / "1.mp4", 40, gop=40), 0.05, 0.9)
    with pytest.raises(InputError, match="1.mp4"):
        list(frames_at(path, [1.0]))


def filtered_by_ffmpeg(path, filters):
    """The stored frames of a video as RGB, through filters of FFmpeg's own."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        last = graph.add_buffer(template=stream)
        for name, words in [*filters, ("buffersink", None)]:
            following = graph.add(name, words)
            last.link_to(following)
            last = following
        graph.configure()
        for frame in container.decode(stream):
            graph.push(frame)
            frames.append(graph.pull().to_ndarray(format="rgb24"))
    return np.stack(frames)


@pytest.mark.parametrize(
    ("turns", "filters"),
    [
        (0, []),
        (1, [("transpose", "clock")]),
        (2, [("transpose", "clock"), ("transpose", "clock")]),
        (3, [("transpose", "cclock")]),
    ],
)
def test_frames_are_turned_as_players_turn_them(tmp_path, turns, filters):
    path = write_video(tmp_path / "telephone.mp4", num_frames=6, height=48, width=80)
    expected = filtered_by_ffmpeg(path, filters).astype(int)
    note_turn(path, turns)
    height, width = expected.shape[1:3]
    for size in (None, height, (height, width)):
        frames = np.stack([frame for _, frame in iter_frames(path, 10, size)])
        # colours at edges are blended in another order
        assert frames.shape == expected.shape and np.abs(frames - expected).mean() < 3
    np.testing.assert_array_equal(np.stack(list(frames_at(path, [0.3], (height, width)))), frames[3:4])


@pytest.mark.parametrize(("turns", "width"), [(0, 64), (1, 16)])
def test_a_height_alone_keeps_the_aspect_of_pixels_that_are_not_square(tmp_path, turns, width):
    # 64 x 64 pixels twice as wide as high are shown 2 : 1, and turned 1 : 2
    path = write_video(tmp_path / "dvd.mp4", num_frames=2, height=64, width=64, pixel_aspect=Fraction(2, 1))
    note_turn(path, turns)
    _, frame = next(iter_frames(path, 10, 32))
    assert frame.shape == (32, width, 3)
    _, frame = next(iter_frames(path, 10))
    assert frame.shape == (64, 64, 3)
