"""Find the events of one or more videos.

VIDEO is a video, a folder of videos or a pattern such as `"videos/*.mp4"`. Several videos are spotted one by one: --output
is then a folder with one file of events a video, and the same command again spots only the videos that are missing. With
--match they are the parts of one match, in order. Videos that are named as SoccerNet names halves (`1_224p.mkv`) and lie
in one folder are the halves of their names, of the match that their folder is called.

The events go to the terminal and, in SoccerNet's `results_spotting.json` form, to --output. Reported are those whose score
reaches the threshold that was chosen for their label in training.

A folder in SoccerNet's layout instead of VIDEO gives a zip with the results of all its matches, ready for the challenge
server, with every candidate as the metric wants them. Where --save-scores was given, the same command resumes after an
interruption, and several processes with the same command, on one machine or many with a shared file system, share the work.

With --live, VIDEO is a file, the address of a stream (rtsp://, http://, udp://, ...) or - for what is piped in, and each
event is printed as a line of JSON as soon as it is final. Ctrl-C ends the stream.
"""

import argparse

from comedian.cli.spotting.arguments import add_arguments as add_arguments
from comedian.cli.spotting.models import models_to_choose
from comedian.cli.spotting.videos import expand_patterns, separate_videos
from comedian.errors import InputError


def run(args: argparse.Namespace) -> None:
    """Spot a live source, videos one by one, or matches."""
    if not args.model and not args.scores:
        raise InputError(f"no model was named with --model; {models_to_choose()}")
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
        raise InputError("--restart is of several videos that are spotted one by one; leave it out")

    from comedian.cli.spotting.matches import spot_matches

    spot_matches(args, is_folder)
