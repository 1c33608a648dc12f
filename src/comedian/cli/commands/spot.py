"""Find the events of one or more videos.

VIDEO is a video, a folder of videos or a pattern such as `"videos/*.mp4"`. The events are printed and written to --output as
SoccerNet's `results_spotting.json`. An event is reported if its score reaches the threshold that training chose for its
label.

Several videos are spotted one by one: --output is a folder with one file of events per video, and rerunning the command
spots only the missing videos. With --match, they are the parts of one match, in order. Videos in one folder that are named
like SoccerNet's halves (`1_224p.mkv`) are the halves of one match, which is named after the folder.

A folder of matches in SoccerNet's layout gives a zip with the results of all matches, ready for the challenge server. It
contains every candidate, as the metric needs them. With --save-scores, rerunning the command resumes an interrupted run,
and several processes with the same command, on one machine or many with a shared file system, share the work.

With --live, VIDEO is a file, the address of a stream (rtsp://, http://, udp://, ...) or - for standard input. Each event is
printed as a line of JSON when it is final. Ctrl-C ends the stream.
"""

import argparse

from comedian.cli.spotting.arguments import add_arguments as add_arguments
from comedian.cli.spotting.models import models_to_choose
from comedian.cli.spotting.videos import expand_patterns, separate_videos
from comedian.errors import InputError

EXAMPLE = "comedian spot match.mp4 --model demo --output events.json --report events.html"


def run(args: argparse.Namespace) -> None:
    """Spot a live source, videos one by one, or matches."""
    if not args.model and not args.scores:
        raise InputError(f"no model is given with --model; {models_to_choose()}")
    if args.live:
        from comedian.cli.spotting.live import run_live

        return run_live(args)
    for video in args.videos:
        if "://" in video:
            raise InputError(
                f"`{video}` is an address; download the video first, or add --live to read it as a stream"
            )
    args.videos = expand_patterns(args.videos)
    is_folder = len(args.videos) == 1 and args.videos[0].is_dir()
    if not args.scores and (videos := separate_videos(args, is_folder)):
        from comedian.cli.spotting.many_videos import spot_separately

        return spot_separately(args, videos)
    if args.restart:
        raise InputError("--restart applies only to several videos that are spotted one by one; remove it")

    from comedian.cli.spotting.matches import spot_matches

    spot_matches(args, is_folder)
