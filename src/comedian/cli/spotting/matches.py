"""`comedian spot` on one match, on a folder of matches, or on saved scores of either."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from comedian.cli.spotting.arguments import check_options
from comedian.cli.spotting.models import load_models, print_quality, print_unreachable, with_suppression
from comedian.cli.spotting.videos import matches_of_folder
from comedian.errors import InputError
from comedian.files import check_outputs, make_folder


def spot_matches(args: argparse.Namespace, is_folder: bool) -> None:
    """Score one match or a folder of matches, or read saved scores, and write the results.

    Args:
        args: the command-line arguments.
        is_folder: whether the only VIDEO is a folder of matches.

    Raises:
        InputError: an invalid option, or a file that cannot be read or written.
    """
    from comedian.sharing import is_main_process

    output = args.output or Path("results.zip" if is_folder else "events.json")
    _check(args, is_folder, output)
    annotations = _annotations(args.report_labels)
    if args.scores:
        from comedian.inference.score_files import load_score_folders

        scores, config = load_score_folders(args.scores, args.settings)
        config = with_suppression(config, args.nms_type, args.nms_window)
        print_unreachable(args.threshold, config)
    else:
        scores, config = _score(args, is_folder)
        if args.shard:
            num_halves = sum(map(len, scores.values()))
            print(
                f"{args.save_scores}: the {num_halves} halves of share {args.shard} are scored; after all shares, run the "
                "same command without --shard to write the results"
            )
            return
    if not is_main_process():
        return
    if output.suffix == ".zip":
        _write_zip(args, scores, config, output)
    else:
        _write_match(args, scores, config, annotations, output)


def _write_zip(args: argparse.Namespace, scores: dict, config, output: Path) -> None:
    """Write all candidates of all matches, ready for the challenge server."""
    from comedian.inference.outputs import num_outside_official_limits, write_results_zip
    from comedian.inference.spotter import spots_of_match

    spots = {
        video_id: spots_of_match(of_match, config, keep_all=True, threshold=args.threshold)
        for video_id, of_match in scores.items()
    }
    write_results_zip(output, spots)
    if outside := num_outside_official_limits(spot for of_match in spots.values() for spot in of_match):
        print(
            f"{output}: {outside} candidates are outside two halves of 120 minutes; SoccerNet's scorer omits them",
            file=sys.stderr,
        )
    print(f"{output}: {sum(map(len, spots.values()))} candidates in {len(spots)} matches")


def _write_match(args: argparse.Namespace, scores: dict, config, annotations, output: Path) -> None:
    """Write the events of one match as JSON, CSV and page, and print the table."""
    from comedian.inference.outputs import write_csv
    from comedian.inference.spotter import spots_of_match
    from comedian.soccernet.annotations import write_results

    if len(scores) > 1:
        raise InputError(f"the scores are for {len(scores)} matches; give --output FILE.zip")
    [(video_id, halves)] = scores.items()
    videos = _videos_of_halves(args.videos, halves)
    events = spots_of_match(halves, config, keep_all=args.keep_all, threshold=args.threshold)
    write_results(output, video_id, events)
    if args.csv:
        write_csv(args.csv, events)
    if args.report:
        _write_report(args, video_id, halves, videos, events, config, annotations)
    print("\n".join(_table_lines(events)))
    print_quality(args, config)
    print(f"{output}: {len(events)} events", file=sys.stderr)


def _check(args: argparse.Namespace, is_folder: bool, output: Path) -> None:
    """Raise `InputError` before any work for options that contradict each other."""
    check_options(args)
    if args.model and not args.videos:
        raise InputError("no video is given; list the videos before --model, or use --scores FOLDER")
    if args.scores and (args.save_scores or args.split or args.flip or (args.videos and not args.report)):
        raise InputError(
            "--scores excludes --save-scores, --split and --flip, and videos without --report; remove them"
        )
    if not args.report and (args.report_labels or args.tolerance is not None):
        raise InputError("--report-labels and --tolerance require --report FILE; add it")
    if args.tolerance is not None and not 0 < args.tolerance < float("inf"):
        raise InputError(f"--tolerance {args.tolerance}: give seconds above 0")
    if not is_folder and any(video.is_dir() for video in args.videos):
        raise InputError("a folder cannot be combined with other videos; give only the folder, or only videos")
    if args.split and not is_folder:
        raise InputError(f"--split {args.split}: only a folder of matches has splits; remove --split")
    if args.shard and not (is_folder and args.save_scores):
        raise InputError(f"--shard {args.shard}: requires a folder of matches and --save-scores FOLDER")
    if output.suffix not in (".json", ".zip"):
        raise InputError(f"--output {output}: give a name that ends in .json or .zip")
    if is_folder and output.suffix != ".zip":
        raise InputError(
            f"--output {output}: the results of a folder of matches are a .zip; for a .json list the videos of a match"
        )
    if args.csv and output.suffix == ".zip":
        raise InputError(f"--csv {args.csv}: a table is for one match; remove --csv for a .zip")
    if args.report and output.suffix == ".zip":
        raise InputError(f"--report {args.report}: a page is for one match; remove --report for a .zip")
    check_outputs((output, args.csv, args.report), [*args.videos, args.report_labels])
    if args.save_scores:
        make_folder(args.save_scores)


def _score(args: argparse.Namespace, is_folder: bool):
    """Score the videos; return the scores by match and half, and the settings."""
    if is_folder:
        matches = matches_of_folder(args.videos[0], args.split)
    else:
        from comedian.soccernet.layout import match_of_videos

        matches = dict([match_of_videos(args.videos)])

    from comedian.inference.score_files import check_owners, score_matches
    from comedian.sharing import Shard

    shard = Shard.parse(args.shard) if args.shard else None
    if args.save_scores:
        check_owners(args.save_scores, matches)
    spotter = load_models(args)
    # before the work, as these raise too
    config = with_suppression(spotter.config, args.nms_type, args.nms_window)
    print_unreachable(args.threshold, config)
    scores = score_matches(
        spotter, matches, args.save_scores, progress=True, window_stride_s=args.save_windows, shard=shard
    )
    return scores, config


def _annotations(path: Path | None):
    """Read the labels first, so that an error in the file is reported before the work."""
    from comedian.soccernet.annotations import read_annotations

    return read_annotations(path) if path else None


def _videos_of_halves(videos: Sequence[Path], halves) -> dict[int, Path]:
    """Return half -> video, by the names of halves if the videos have them, else in order; none without videos.

    Raises:
        InputError: the videos are not those of the halves.
    """
    from comedian.soccernet.layout import are_named_halves, match_of_videos

    if videos and len(videos) != len(halves):
        raise InputError(f"{len(videos)} videos for {len(halves)} halves; give one video per half, or none")
    if not videos or not are_named_halves(videos):
        return dict(zip(sorted(halves), videos))
    named = match_of_videos(videos)[1]
    if named.keys() != halves.keys():
        found, wanted = (", ".join(map(str, sorted(keys))) for keys in (named, halves))
        raise InputError(
            f"the videos are named as half {found}, and the scores are of half {wanted}; give their videos"
        )
    return named


def _write_report(
    args: argparse.Namespace, video_id: str, halves, videos, events: Sequence[dict], config, annotations
) -> None:
    from comedian.report.spots import write_spots_report

    write_spots_report(
        args.report,
        video_id,
        events,
        halves,
        config,
        videos=videos,
        annotations=annotations,
        tolerance_s=5.0 if args.tolerance is None else args.tolerance,
        progress=True,
    )
    print(f"{args.report}: open it in a browser", file=sys.stderr)


def _table_lines(events: Sequence[dict]) -> list[str]:
    """Return the table: half, time, label and score of each event."""
    from comedian.soccernet.annotations import game_time, position_ms_of

    if not events:
        return ["no events above the thresholds; --keep-all lists every candidate"]
    width = max(len(event["label"]) for event in events)
    lines = [f"{'Half':<6}{'Time':>6}  {'Label':<{width}}  Score"]
    for event in events:
        clock = game_time(event["half"], position_ms_of(event["timestamp_s"])).split(" - ")[1]
        lines.append(f"{event['half']:<6}{clock:>6}  {event['label']:<{width}}  {event['score']:.3f}")
    return lines
