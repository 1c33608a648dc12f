"""The spectrogram of each half beside its frames: `<half>.sound.npy`, float16 `(num_mel_frames, NUM_MELS)`.

It is computed by `comedian.models.sound_comedian`, which is also part of the code of models on the Hub. A
half whose video has no audio track has a spectrogram with no frames, which distinguishes it from a half prepared
without sound.
"""

from pathlib import Path

import numpy as np

from comedian.errors import InputError
from comedian.files import atomic_path
from comedian.models.sound_comedian import NUM_MELS, read_sound


def sound_path(frames_path: Path) -> Path:
    """Path of the spectrogram of a `.frames` file."""
    return frames_path.with_suffix(".sound.npy")


def write_sound(path: Path, video_path: Path) -> None:
    """Write the spectrogram of a video that can be decoded."""
    sound = read_sound(str(video_path))
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, np.empty((0, NUM_MELS), np.float16) if sound is None else sound)


def open_sound(path: Path) -> np.ndarray | None:
    """Open a spectrogram, memory-mapped.

    Returns:
        float16 of shape `(num_mel_frames, NUM_MELS)`; `None` if the file does not exist or the video had no audio track.

    Raises:
        InputError: the file is damaged or not a spectrogram.
    """
    if not path.is_file():
        return None
    try:
        sound = np.load(path, mmap_mode="r", allow_pickle=False)
        if sound.dtype != np.float16 or sound.shape[1:] != (NUM_MELS,):
            raise ValueError(f"{sound.dtype} of shape {sound.shape}")
    except (ValueError, EOFError) as error:
        raise InputError(f"`{path}` is damaged; delete it and run `comedian prepare --sound` again") from error
    return sound if len(sound) else None
