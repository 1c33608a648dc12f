"""The videos that the arguments of `comedian spot` name: files, patterns, folders of videos, folders of matches."""

import argparse
import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from comedian.errors import InputError, printable


def expand_patterns(words: Sequence[str]) -> list[Path]:
    """Return the paths; a pattern, which some shells pass on unchanged, is replaced by the files that match it.

    Raises:
        InputError: no file matches a pattern.
    """
    paths = []
    for word in words:
        if Path(word).exists() or not has_magic(word):
            paths.append(Path(word))
        elif found := sorted(glob(word, recursive=True)):
            paths += map(Path, found)
        else:
            raise InputError(f"no file matches the pattern `{word}`; correct the pattern, or list the videos")
    return paths


def separate_videos(args: argparse.Namespace, is_folder: bool) -> dict[str, Path] | None:
    """Return name -> video, for videos that are spotted one by one; None for one match or a folder of matches."""
    from comedian.inference.many_videos import name_videos
    from comedian.soccernet.layout import are_named_halves, find_label_file, find_matches, find_videos

    if is_folder:
        root, matches = args.videos[0], find_matches(args.videos[0])
        videos = find_videos(root)
        # names such as `1.mp4` are common: they are halves only if the folder is a match's
        is_root_alone = matches == ["."] and not find_label_file(root) and not are_named_halves(videos)
        if args.match:
            raise InputError("--match needs the videos of one match, not a folder; list them in order")
        if matches and not is_root_alone:
            if loose := [video for video in videos if video.parent.relative_to(root).as_posix() not in matches]:
                named = ", ".join(video.relative_to(root).as_posix() for video in loose[:5])
                more = f" and {len(loose) - 5} more" if len(loose) > 5 else ""
                print(f"omitted, because they are not halves of a match: {printable(named)}{more}", file=sys.stderr)
            return None
        return name_videos(videos, root) if videos else None
    if len(args.videos) < 2 or args.match or any(video.is_dir() for video in args.videos):
        return None
    return None if are_named_halves(args.videos) else name_videos(args.videos)


def matches_of_folder(root: Path, split: str | None) -> dict[str, dict[int, Path]]:
    """Return video_id -> half -> video, for the split or for the whole folder.

    Raises:
        InputError: the split does not exist, or no match has a video.
    """
    from comedian.soccernet.layout import find_halves
    from comedian.soccernet.splits import matches_of_splits

    video_ids = matches_of_splits(root, None if split is None else [split])
    matches = {video_id: find_halves(root / video_id) for video_id in video_ids}
    without_video = [video_id for video_id, videos in matches.items() if not videos]
    if len(without_video) == len(matches):
        raise InputError(f"`{root}` contains no match with a video; name the videos like `1_224p.mkv`")
    if without_video:
        print(f"omitted, because they have no video: {', '.join(without_video)}", file=sys.stderr)
    return {video_id: videos for video_id, videos in matches.items() if videos}
