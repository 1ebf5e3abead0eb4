"""Decoding: what is sampled when, from files of every shape, and what is said of the broken ones."""

import os
import tracemalloc

import numpy as np
import pytest
from media_files import grey, rotate, tone, write_media

from hdcid_cli.core.errors import InputError
from hdcid_cli.media.audio import RATE, audio_seconds
from hdcid_cli.media.stream import decode
from hdcid_cli.media.video import video_seconds
from hdcid_cli.media.wave import Wave


def levels(path, seconds=10, fps=16, start=0.0) -> np.ndarray:
    """[seconds, fps] mean brightness of the sampled frames."""
    return np.stack([second.mean(axis=(1, 2, 3)) for second in video_seconds(path, seconds, fps, 16, start)])


def wave(path, seconds=10, start=0.0) -> np.ndarray:
    return np.concatenate(list(audio_seconds(path, seconds, start)))


# --- video ---------------------------------------------------------------------------------------


def test_a_picture_that_would_fill_the_memory_is_not_decoded(tmp_path, monkeypatch):
    path = write_media(tmp_path / "a.mp4", [grey(9)] * 5, fps=5)
    assert len(list(decode(path, "video"))) == 5
    monkeypatch.setattr("hdcid_cli.media.stream.MOST_PIXELS", 100)
    with pytest.raises(InputError, match="no video that can be decoded"):
        list(decode(path, "video"))


def test_a_sample_is_what_is_on_the_screen_in_the_middle_of_its_interval(tmp_path):
    path = write_media(tmp_path / "a.mp4", [grey(5 * number) for number in range(50)], fps=25)
    middle = (np.arange(32) + 0.5) / 16
    assert np.abs(levels(path).ravel() - 5 * np.floor(25 * middle)).max() < 2.5


def test_variable_frame_rate_holds_each_picture_until_the_next(tmp_path):
    times = [0.0, 0.1, 0.9, 1.0, 2.5, 2.9]
    path = write_media(tmp_path / "a.mkv", [grey(40 * number) for number in range(6)], times)
    middle = (np.arange(48) + 0.5) / 16
    shown = np.searchsorted(times, middle, side="right") - 1
    assert np.abs(levels(path).ravel() - 40 * shown).max() < 2


def test_a_slow_video_repeats_its_frames(tmp_path):
    path = write_media(tmp_path / "a.mp4", [grey(50), grey(200)], fps=1)
    assert np.abs(levels(path) - [[50], [200]]).max() < 2


@pytest.mark.parametrize(("frames", "seconds"), [(1, 1), (8, 1), (36, 1), (38, 2), (49, 2), (50, 2), (90, 3)])
def test_a_last_second_counts_if_half_of_it_is_there(tmp_path, frames, seconds):
    path = write_media(tmp_path / "a.mp4", [grey(9)] * frames, fps=25)
    assert levels(path, seconds=3).shape == (seconds, 16)


def test_a_window_of_a_file_equals_that_part_of_the_whole(tmp_path):
    path = write_media(tmp_path / "a.mp4", [grey(2 * number) for number in range(100)], fps=25, sound=tone(300, 4))
    assert np.array_equal(levels(path, start=2.0), levels(path)[2:])
    assert np.allclose(wave(path, start=2.0), wave(path)[2 * RATE :], atol=1e-3)


def test_rotated_video_is_turned_upright(tmp_path):
    picture = grey(0)
    picture[:16, :16] = 255  # top left
    path = rotate(write_media(tmp_path / "a.mp4", [picture] * 5))
    upright = next(video_seconds(path, 1, 4, 32))[0].mean(axis=-1)
    assert upright[:12, 20:].mean() > 200  # turned clockwise: top right
    assert upright[:12, :12].mean() < 50


def test_any_shape_of_picture_becomes_a_square(tmp_path):
    path = write_media(tmp_path / "a.mp4", [np.zeros((18, 64, 3), np.uint8)] * 5)
    assert next(video_seconds(path, 1, 16, 24)).shape == (16, 24, 24, 3)


# --- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "suffix"), [(8_000, "wav"), (44_100, "wav"), (48_000, "mkv"), (16_000, "mp4")])
def test_sound_is_resampled_to_16_khz(tmp_path, rate, suffix):
    codec = "pcm_s16le" if suffix == "wav" else "aac"
    path = write_media(tmp_path / f"a.{suffix}", sound=tone(440, 2, rate), rate=rate, codecs=("", codec))
    second = list(audio_seconds(path, 10))[1]
    assert second.shape == (RATE,)
    assert np.argmax(np.abs(np.fft.rfft(second))) == 440
    assert second.std() == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_channels_are_averaged(tmp_path):
    left = tone(440, 1)
    path = write_media(tmp_path / "a.wav", sound=np.stack([left, 0 * left]), codecs=("", "pcm_s16le"))
    assert np.allclose(wave(path), left / 2, atol=1e-4)


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path):
    path = write_media(tmp_path / "a.mkv", [grey(0)] * 75, sound=tone(440, 1.5), sound_start=1.5)
    heard = wave(path)
    assert len(heard) == 3 * RATE
    assert np.abs(heard[: int(1.45 * RATE)]).max() < 1e-3
    assert np.abs(heard[int(1.55 * RATE) : int(1.6 * RATE)]).max() > 0.4


@pytest.mark.parametrize(("seconds", "expected"), [(0.2, 1), (1.4, 1), (1.6, 2), (12.0, 10)])
def test_sound_of_any_length_becomes_whole_seconds(tmp_path, seconds, expected):
    path = write_media(tmp_path / "a.wav", sound=tone(440, seconds), codecs=("", "pcm_s16le"))
    assert len(wave(path)) == expected * RATE


def test_a_wave_in_memory_is_heard_as_its_file_is(tmp_path):
    left, right = tone(440, 2.6, 44_100), tone(1000, 2.6, 44_100)
    path = write_media(tmp_path / "a.wav", sound=np.stack([left, right]), rate=44_100, codecs=("", "pcm_s16le"))
    expected = wave(path)
    whole = (32_767 * np.stack([left, right])).round().astype(np.int16)
    for samples in (np.stack([left, right]), whole, whole.astype(np.int32) << 16, whole.astype(np.float64) / 32_768):
        found = np.concatenate(list(audio_seconds(Wave(samples, 44_100), 10)))
        assert len(found) == len(expected) == 3 * RATE and found.dtype == np.float32
        inner = slice(100, int(2.5 * RATE))  # resamplers differ where sound begins and ends
        assert np.abs(found - expected)[inner].max() < 2e-3
    assert np.array_equal(
        np.concatenate(list(audio_seconds(Wave(left, 44_100), 10, 1.0, 44_100))),
        np.pad(left[44_100 : 88_200 + 26_460], (0, 17_640)),
    )
    unsigned = ((left + 1) * 127.5).round().astype(np.uint8)
    assert np.abs(Wave(unsigned, 44_100).at(44_100) - left).max() < 0.01


def test_what_is_no_wave_is_refused():
    for samples in (np.zeros((1, 2, 3)), np.array(["a"]), np.zeros(0)):
        with pytest.raises(InputError, match="A wave should be numbers"):
            Wave(samples, 16_000).at(16_000)
    with pytest.raises(InputError, match="whole number of samples a second"):
        Wave(np.zeros(9), 0.5).at(16_000)
    with pytest.raises(InputError, match="has no audio after 9 s"):
        list(audio_seconds(Wave(np.zeros(16_000), 16_000), 10, 9.0))


# --- memory --------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_clip(tmp_path):
    path = write_media(
        tmp_path / "a.mp4", [grey(number % 250, 64) for number in range(480)], fps=8, sound=tone(440, 60)
    )

    def peak(seconds: int) -> int:
        tracemalloc.start()
        for _ in video_seconds(path, seconds, 16, 64):
            pass
        for _ in audio_seconds(path, seconds):
            pass
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(2)  # imports
    assert peak(60) < 1.2 * peak(6)


# --- what cannot be read -------------------------------------------------------------------------


def reason(read, path, **options) -> str:
    with pytest.raises(InputError) as caught:
        list(read(path, 10, **options))
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_stream_is_named(tmp_path):
    silent = write_media(tmp_path / "silent.mp4", [grey(1)] * 5)
    blind = write_media(tmp_path / "blind.wav", sound=tone(440, 1), codecs=("", "pcm_s16le"))
    assert reason(audio_seconds, silent).endswith("has no audio.")
    assert reason(video_seconds, blind).endswith("has no video.")


def test_a_cover_picture_is_not_video(tmp_path):
    path = tmp_path / "song.mp4"
    import av

    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(99), format="rgb24")))
        container.mux(cover.encode())
    assert reason(video_seconds, path).endswith("has no video.")


@pytest.mark.parametrize("content", [b"", b"these are words, not pictures\n" * 50, bytes(range(256)) * 40])
def test_a_file_that_is_no_media_cannot_be_opened(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert "cannot be opened" in reason(video_seconds, path)


def test_missing_files_folders_and_pipes_are_said_to_be_that(tmp_path):
    assert "No such file" in reason(video_seconds, tmp_path / "nothing.mp4")
    assert "is not a file" in reason(audio_seconds, tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "is not a file" in reason(video_seconds, tmp_path / "pipe.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_file_that_was_cut_off_is_refused_not_passed_off_as_short(tmp_path, suffix):
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (100, 32, 32, 3), np.uint8)
    whole = write_media(tmp_path / f"whole.{suffix}", pictures, sound=tone(440, 4))
    assert len(list(video_seconds(whole, 10))) == 4
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said = reason(video_seconds, cut)
    assert "cut off" in said or "cannot be opened" in said  # without its index an mp4 does not even open


LATE = [("mkv", "libx264", "aac"), ("webm", "libvpx", "libopus"), ("mp4", "libx264", "aac"), ("ts", "libx264", "aac")]


@pytest.mark.parametrize(("suffix", "video", "audio"), LATE)
def test_a_file_whose_clock_starts_late_is_whole(tmp_path, suffix, video, audio):
    """Cut from a longer one without new timestamps: its times begin at 5 s, and Matroska's durations end there."""
    times = [5 + number / 25 for number in range(100)]
    sound = tone(440, 4, 48_000)
    path = write_media(
        tmp_path / f"late.{suffix}", [grey(60)] * 100, times, 25, sound, 48_000, sound_start=5.0, codecs=(video, audio)
    )
    assert np.abs(levels(path) - 60).max() < 3 and len(levels(path)) == 4
    assert len(wave(path)) == 4 * RATE
    if suffix in ("mkv", "mp4"):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert "cut off" in reason(video_seconds, cut) or "cannot be opened" in reason(video_seconds, cut)


def test_a_program_stream_of_mpeg_1_is_read_though_its_clock_jumps(tmp_path):
    """Recordings one after the other, as tape and VCD give them; FFmpeg guesses the duration from the last times."""
    first, second = (
        write_media(
            tmp_path / f"{start}.mpg",
            [grey(60)] * 50,
            [start + number / 25 for number in range(50)],
            25,
            tone(440, 2, 44_100),
            44_100,
            sound_start=start,
            codecs=("mpeg1video", "mp2"),
        )
        for start in (0, 100)
    )
    path = tmp_path / "joined.mpg"
    path.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    assert len(list(video_seconds(path, 200))) == 101  # the clock of the last part starts again
    assert len(list(audio_seconds(path, 200))) >= 101


def _mp3(path, sound, header: bool):
    """An mp3 of variable rate, with or without the header that tells how long it is."""
    import av

    with av.open(str(path), "w", options={"write_xing": str(int(header))}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        stream.codec_context.qscale = True
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_an_mp3_is_held_to_its_length_only_if_it_tells_it(tmp_path):
    noise = 0.3 * np.random.default_rng(0).standard_normal(44_100 * 2).astype(np.float32)
    sound = np.concatenate([np.zeros(44_100 * 3, np.float32), noise.clip(-1, 1)])  # a low rate first, then a high one
    whole = _mp3(tmp_path / "whole.mp3", sound, header=True)
    assert len(list(audio_seconds(whole, 10))) == 5
    assert len(list(audio_seconds(_mp3(tmp_path / "bare.mp3", sound, header=False), 10))) == 5
    cut = tmp_path / "cut.mp3"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert "cut off" in reason(audio_seconds, cut)


def test_a_damaged_packet_costs_that_packet_and_keeps_the_rest_in_time(tmp_path):
    pictures = [grey(10)] * 25 + [grey(200)] * 50
    path = write_media(tmp_path / "a.mkv", pictures, sound=np.concatenate([tone(440, 1), tone(1000, 2)]))
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data) // 3 + 40):
        data[place] ^= 255
    path.write_bytes(data)
    assert len(list(video_seconds(path, 10))) == 3
    assert np.argmax(np.abs(np.fft.rfft(list(audio_seconds(path, 10))[2]))) == 1000


def test_a_window_beyond_the_end_is_empty(tmp_path):
    path = write_media(tmp_path / "a.mp4", [grey(1)] * 25, sound=tone(440, 1))
    assert "has no video after 5 s" in reason(video_seconds, path, start=5.0)
    assert "has no audio after 5 s" in reason(audio_seconds, path, start=5.0)


# --- real and awkward files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [
        ("nasa_13013.mp4", 10, 10),
        ("h265_10bits.mp4", 1, None),
        ("av1_video.mkv", 5, None),
        ("sine_mono_s32_8000.wav", None, 4),
    ],
)
def test_real_files_give_what_they_have_and_say_what_they_have_not(shared, name, video, audio):
    path = shared / "media" / name
    for read, seconds, kind in ((video_seconds, video, "video"), (audio_seconds, audio, "audio")):
        if seconds is None:
            assert reason(read, path).endswith(f"has no {kind}.")
        else:
            found = list(read(path, 10))
            assert len(found) == seconds
            assert np.std(found[0]) > 0


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "mp3", "wav"])
def test_windows_are_exact_in_every_container(tmp_path, suffix):
    notes = np.concatenate([tone(200 + 97 * number, 0.5) for number in range(16)])
    codec = {"mp3": "libmp3lame", "wav": "pcm_s16le"}.get(suffix, "aac")
    path = write_media(tmp_path / f"a.{suffix}", sound=notes, codecs=("", codec))
    assert np.allclose(wave(path, 3, start=4.0), wave(path)[4 * RATE : 7 * RATE], atol=1e-6)


def test_a_gap_before_a_window_does_not_shift_it(tmp_path, monkeypatch):
    """Decoding begins half a second early; what is lost there must not be made up for within the window."""
    from hdcid_cli.media import audio

    class Resampler:
        def __init__(self, **_):
            pass

        def resample(self, frame):
            return [frame] if frame is not None else []

    class Frame:
        format = layout = type("", (), {"name": "x"})
        sample_rate = RATE

        def __init__(self, value):
            self.value = value

        def to_ndarray(self):
            return np.full((1, RATE // 10), self.value, np.float32)

    times = [-0.5, -0.4, -0.1, 0.0, 0.5, 0.6]  # lost: -0.3 to -0.1 and 0.1 to 0.5
    monkeypatch.setattr(audio, "AudioResampler", Resampler)
    monkeypatch.setattr(
        audio, "decode", lambda *_: ((time, 0.1, Frame(number + 1)) for number, time in enumerate(times))
    )
    heard = next(audio.audio_seconds("any", 1))[:: RATE // 10]
    assert heard.tolist() == [4, 0, 0, 0, 0, 5, 6, 0, 0, 0]
