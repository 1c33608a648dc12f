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
import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from comedian.errors import InputError, printable
from comedian.files import make_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of `comedian spot`."""
    parser.add_argument(
        "videos", metavar="VIDEO", nargs="*", help="videos, one folder of videos, or one folder of matches"
    )
    parser.add_argument(
        "--match", action="store_true", help="the videos are the parts of one match, in order: half 1, half 2, ..."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model", nargs="+", metavar="MODEL", help="folder or Hub repository; several are an ensemble"
    )
    source.add_argument(
        "--scores",
        nargs="+",
        metavar="FOLDER",
        type=Path,
        help="use the scores that --save-scores wrote, without model or video; several folders are an ensemble",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="a .json, or a .zip with one a match; of several videos, a folder with a .json each; default: events.json, of "
        "several videos the folder events, of a folder of matches results.zip",
    )
    parser.add_argument(
        "--restart",
        action="store_true",
        help="of several videos: spot all of them anew where --output holds events of other settings",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the events as CSV too")
    parser.add_argument("--save-scores", metavar="FOLDER", type=Path, help="keep the raw scores of each half")
    parser.add_argument(
        "--save-windows",
        metavar="SECONDS",
        type=float,
        help="with --save-scores: keep the scores of windows so far apart, too, for `comedian tune`",
    )
    parser.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        help="merging, suppression and thresholds from `comedian tune --output`",
    )
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument(
        "--keep-all", "--all", action="store_true", help="keep every candidate, as the metric wants them"
    )
    kept.add_argument(
        "--threshold",
        metavar="SCORE",
        type=_threshold,
        help="one threshold for all labels, 0 to 1; or precision=0.9 or recall=0.8: each label's threshold that had it "
        "on validation",
    )
    parser.add_argument("--nms-type", choices=("soft", "hard"), help="suppression; default: the model's")
    parser.add_argument(
        "--nms-window",
        nargs="+",
        metavar="SECONDS",
        help="width of the suppression, or LABEL=SECONDS for some labels; default: the model's",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code in a model's folder, where the model is of a class that is not comedian's",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="score the mirror image of each frame too and take the mean: twice the work",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write a page (HTML) that shows the events and the video"
    )
    parser.add_argument(
        "--report-labels", metavar="FILE", type=Path, help="a Labels-v2.json: the page tells hits and misses"
    )
    parser.add_argument(
        "--tolerance",
        metavar="SECONDS",
        type=float,
        help="with --report-labels: full width of the window in which an event is a hit; default: 5",
    )
    parser.add_argument("--split", metavar="NAME", help="of a folder: only the matches of this split")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="of a folder, with --save-scores: only score share I of N, such as 1/4; for jobs that run separately",
    )
    parser.add_argument("--live", action="store_true", help="print events while the video goes on")
    parser.add_argument(
        "--look-ahead",
        metavar="SECONDS",
        type=float,
        help="of --live: print an event once this much more was seen; default: as late as the whole video's scores take",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1; default: an accelerator where there is one")


def run(args: argparse.Namespace) -> None:
    """Score, write the files and print the table."""
    if not args.model and not args.scores:
        raise InputError(f"no model was named with --model; {_models_to_choose()}")
    if args.live:
        return _run_live(args)
    for video in args.videos:
        if "://" in video:
            raise InputError(
                f"`{video}` is an address; download the video first, or add --live to read it as a stream"
            )
    args.videos = _expand(args.videos)
    is_folder = len(args.videos) == 1 and args.videos[0].is_dir()
    if not args.scores and (named := _videos_of_their_own(args, is_folder)):
        return _run_many(args, named)
    if args.restart:
        raise InputError("--restart is of several videos that are spotted one by one; leave it out")

    from comedian.sharing import is_main_process

    output = args.output or Path("results.zip" if is_folder else "events.json")
    _check(args, is_folder, output)
    annotations = _annotations(args.report_labels)
    if args.scores:
        from comedian.inference.score_files import load_score_folders

        scores, config = load_score_folders(args.scores, args.settings)
        _tell_unreachable(args.threshold, config)
    else:
        scores, config = _score(args, is_folder)
        if args.shard:
            num_halves = sum(map(len, scores.values()))
            print(
                f"{args.save_scores}: the {num_halves} halves of share {args.shard} are scored; when all shares are, the "
                "same command without --shard writes the results"
            )
            return
    if not is_main_process():
        return
    config = _with_settings(config, args.nms_type, args.nms_window)

    from comedian.inference.outputs import num_outside_official_limits, write_csv, write_results_zip
    from comedian.inference.spotter import spots_of_match
    from comedian.soccernet.annotations import write_results

    if output.suffix == ".zip":
        spots = {
            video_id: spots_of_match(of_match, config, keep_all=True, threshold=args.threshold)
            for video_id, of_match in scores.items()
        }
        write_results_zip(output, spots)
        if outside := num_outside_official_limits(spot for of_match in spots.values() for spot in of_match):
            print(
                f"{output}: {outside} candidates are outside two halves of 120 minutes; SoccerNet's scorer leaves them out",
                file=sys.stderr,
            )
        print(f"{output}: {sum(map(len, spots.values()))} candidates in {len(spots)} matches")
        return
    if len(scores) > 1:
        raise InputError(f"the scores are of {len(scores)} matches; give --output FILE.zip")
    [(video_id, halves)] = scores.items()
    events = spots_of_match(halves, config, keep_all=args.keep_all, threshold=args.threshold)
    write_results(output, video_id, events)
    if args.csv:
        write_csv(args.csv, events)
    if args.report:
        _write_report(args, video_id, halves, events, config, annotations)
    print("\n".join(_table_lines(events)))
    _tell_quality(args, config)
    print(f"{output}: {len(events)} events", file=sys.stderr)


def _expand(words: Sequence[str]) -> list[Path]:
    """Return the paths, and for a pattern, which some shells pass on as it is, what it stands for."""
    paths = []
    for word in words:
        if Path(word).exists() or not has_magic(word):
            paths.append(Path(word))
        elif found := sorted(glob(word, recursive=True)):
            paths += map(Path, found)
        else:
            raise InputError(f"nothing matches `{word}`; mend the pattern, or name the videos")
    return paths


def _videos_of_their_own(args: argparse.Namespace, is_folder: bool) -> dict[str, Path] | None:
    """Return name -> video where each is spotted on its own; None for the parts of one match, or a folder of matches."""
    from comedian.inference.many_videos import find_videos, name_videos
    from comedian.soccernet.layout import are_named_halves, find_label_file, find_matches

    if is_folder:
        root, matches = args.videos[0], find_matches(args.videos[0])
        videos = find_videos(root)
        # names such as `1.mp4` may be anybody's: these are halves in a match's own folder
        is_root_alone = matches == ["."] and not find_label_file(root) and not are_named_halves(videos)
        if args.match:
            raise InputError("--match takes the videos of one match; name them in order")
        if matches and not is_root_alone:
            if loose := [video for video in videos if video.parent.relative_to(root).as_posix() not in matches]:
                named = ", ".join(video.relative_to(root).as_posix() for video in loose[:5])
                more = f" and {len(loose) - 5} more" if len(loose) > 5 else ""
                print(f"left out, not halves of a match: {printable(named)}{more}", file=sys.stderr)
            return None
        return name_videos(videos, root) if videos else None
    if len(args.videos) < 2 or args.match or any(video.is_dir() for video in args.videos):
        return None
    return None if are_named_halves(args.videos) else name_videos(args.videos)


def _run_many(args: argparse.Namespace, videos: dict[str, Path]) -> None:
    """Spot each video on its own, and say in a line what came of each."""
    output = args.output or Path("events")
    _check_many(args, len(videos), output)

    from comedian.inference.many_videos import ManyVideos, check_folder, spot_videos

    check_folder(output)
    spotter = _load(args)
    _tell_unreachable(args.threshold, spotter.config)
    config = _with_settings(spotter.config, args.nms_type, args.nms_window)
    run = ManyVideos(videos, output, args.keep_all, args.threshold, args.save_scores, args.save_windows)
    spotted = spot_videos(run, spotter, config, args.restart)
    _tell_quality(args, config)
    kept = f", {spotted.num_kept} of them spotted before" if spotted.num_kept else ""
    print(f"{output}: {spotted.num_found} events in {len(spotted.files)} videos{kept}", file=sys.stderr)
    for name, reason in spotted.failed.items():
        print(f"{printable(name)} was left out: {reason}", file=sys.stderr)
    if spotted.failed:
        raise InputError(
            f"{len(spotted.failed)} of {len(videos)} videos could not be spotted, see above; the events of the others "
            f"are in `{output}`"
        )


def _check_many(args: argparse.Namespace, count: int, output: Path) -> None:
    """Refuse at once what would otherwise fail after the work."""
    parts = "add --match if they are the parts of one match"
    for option in ("csv", "report", "report_labels", "tolerance"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is of one match, and the {count} videos are spotted one by one; {parts}")
    if output.suffix in (".json", ".zip"):
        raise InputError(f"--output {output}: {count} videos have a file of events each; give a folder, or {parts}")
    _check_options(args)
    if args.split:
        raise InputError(f"--split {args.split}: only a folder of matches has splits")
    from comedian.sharing import num_launched

    if args.shard or num_launched() > 1:
        raise InputError(
            f"the {count} videos are spotted one by one, by one process; leave out --shard and `accelerate launch`, or give "
            "a folder of matches"
        )
    for folder in filter(None, (output, args.save_scores)):
        make_folder(folder)


def _models_to_choose() -> str:
    """Say in one line which models there are: those in folders nearby, the newest first, and the published ones."""
    from comedian.inference.model_names import models_nearby

    found = models_nearby(Path.cwd())
    nearby = f"found here, the newest first: {', '.join(f'`{path}`' for path in found)}; " if found else ""
    repository = "juliendenize/COMEDIAN-ViViT-tiny"
    return (
        f"{nearby}in a clone of the repository, `--model demo` (`examples/demo/model`); published weights for soccer "
        f"broadcasts: `comedian convert {repository} COMEDIAN`, then `--model COMEDIAN`"
    )


def _threshold(word: str) -> float | str:
    """A score, or a target such as `precision=0.9`."""
    return word if "=" in word else float(word)


def _tell_unreachable(threshold: float | str | None, config) -> None:
    """Say which labels a target of precision or recall leaves out, and why; refuse one that cannot be."""
    from comedian.inference.spotter import labels_with_too_few_events, thresholds_at

    if isinstance(threshold, str):
        limits = thresholds_at(threshold, config)
        too_few = labels_with_too_few_events(threshold, config)
        left_out = [label for label, limit in zip(config.label_names, limits) if limit == float("inf")]
        if missed := [label for label in left_out if label not in too_few]:
            print(f"left out, as {threshold} was not reached on validation: {', '.join(missed)}", file=sys.stderr)
        if too_few := [label for label in left_out if label in too_few]:
            print(
                f"left out, as validation has too few events to show {threshold}: {', '.join(too_few)}",
                file=sys.stderr,
            )


def _tell_quality(args: argparse.Namespace, config) -> None:
    """Say from which score events are reported, where neither the model nor the user does, and of which labels most err."""
    from comedian.inference.settings import weak_labels
    from comedian.models.settings_comedian import DEFAULT_THRESHOLD

    if not args.keep_all and args.threshold is None and (weak := weak_labels(config)):
        print(
            f"the model is weak: on validation, fewer than half of the reported events were right of {', '.join(weak)}; "
            "--threshold precision=0.5 leaves out what is mostly wrong",
            file=sys.stderr,
        )

    if config.label_thresholds is None and not args.keep_all and args.threshold is None:
        print(
            f"the model has no thresholds of its own: events are reported from a score of {DEFAULT_THRESHOLD} on; "
            "--threshold SCORE sets another, `comedian tune` chooses one a label on matches with labels",
            file=sys.stderr,
        )


def _run_live(args: argparse.Namespace) -> None:
    """Print the events of a stream as they become final, and write those files that were asked for."""
    if args.shard:
        raise InputError(f"--shard {args.shard}: shares are of a folder of matches, with --save-scores FOLDER")
    if args.scores or args.save_scores or args.save_windows or args.split or args.report or args.match or args.restart:
        raise InputError(
            "--live takes no --scores, --save-scores, --save-windows, --split, --report, --match or --restart; leave them "
            "out"
        )
    if len(args.videos) != 1 or Path(args.videos[0]).is_dir():
        raise InputError("--live takes one file, one address or -; name it before --model")
    _check_threshold(args.threshold)
    for path in filter(None, (args.output, args.csv)):
        make_folder(path.parent)

    from comedian.cli.live import spot_live
    from comedian.inference.outputs import write_csv
    from comedian.inference.streaming import StreamingSpotter
    from comedian.soccernet.annotations import write_results

    models = _load(args)
    models.config = _with_settings(models.config, args.nms_type, args.nms_window)
    _tell_unreachable(args.threshold, models.config)
    spotter = StreamingSpotter(models, look_ahead_s=args.look_ahead, keep_all=args.keep_all, threshold=args.threshold)
    if models.hears:
        print("--live hears nothing: models with sound go by the pictures alone", file=sys.stderr)
    _tell_quality(args, models.config)
    print(f"an event is told some {spotter.latency_s:g} s of video later", file=sys.stderr)
    events = spot_live(args.videos[0], spotter)
    if args.output:
        write_results(args.output, Path(args.videos[0]).stem, events)
    if args.csv:
        write_csv(args.csv, events)
    print(f"{args.videos[0]}: {len(events)} events", file=sys.stderr)


def _check(args: argparse.Namespace, is_folder: bool, output: Path) -> None:
    """Refuse at once what would otherwise fail after the work."""
    _check_options(args)
    if args.model and not args.videos:
        raise InputError("no video was given; name the videos before --model, or use --scores FOLDER")
    if args.scores and (args.save_scores or args.split or args.flip or (args.videos and not args.report)):
        raise InputError(
            "--scores takes no --save-scores, --split or --flip, and videos only for the page of --report; leave them out"
        )
    if not args.report and (args.report_labels or args.tolerance is not None):
        raise InputError("--report-labels and --tolerance belong to a page; name it with --report FILE")
    if args.tolerance is not None and not 0 < args.tolerance < float("inf"):
        raise InputError(f"--tolerance {args.tolerance}: give seconds, more than 0")
    if not is_folder and any(video.is_dir() for video in args.videos):
        raise InputError("give one folder alone, or videos")
    if args.split and not is_folder:
        raise InputError(f"--split {args.split}: only a folder of matches has splits")
    if args.shard and not (is_folder and args.save_scores):
        raise InputError(f"--shard {args.shard}: shares are of a folder of matches, with --save-scores FOLDER")
    if output.suffix not in (".json", ".zip"):
        raise InputError(f"--output {output}: give a name that ends in .json or .zip")
    if is_folder and output.suffix != ".zip":
        raise InputError(f"--output {output}: the results of a folder are a .zip; for a .json name a match's videos")
    if args.csv and output.suffix == ".zip":
        raise InputError(f"--csv {args.csv}: a table is of one match; leave it out for a .zip")
    if args.report and output.suffix == ".zip":
        raise InputError(f"--report {args.report}: a page is of one match; leave it out for a .zip")
    for path in filter(None, (output, args.csv, args.report)):
        if path.is_dir():
            raise InputError(f"`{path}` is a folder; give a file's name")
        make_folder(path.parent)
    if args.save_scores:
        make_folder(args.save_scores)


def _check_options(args: argparse.Namespace) -> None:
    """Check what does not depend on whether the videos are one match."""
    if args.look_ahead is not None:
        raise InputError("--look-ahead is of --live; add --live or leave it out")
    _check_threshold(args.threshold)
    if args.save_windows is not None and not args.save_scores:
        raise InputError(f"--save-windows {args.save_windows:g}: say with --save-scores FOLDER where to keep them")


def _check_threshold(threshold: float | str | None) -> None:
    if isinstance(threshold, float) and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a score from 0 to 1")


def _score(args: argparse.Namespace, is_folder: bool):
    """Score the videos; return the scores by match and half, and the settings."""
    if is_folder:
        matches = _matches_of_folder(args.videos[0], args.split)
    else:
        from comedian.soccernet.layout import match_of_videos

        matches = dict([match_of_videos(args.videos)])

    from comedian.inference.score_files import check_owners, score_matches
    from comedian.sharing import Shard

    shard = Shard.parse(args.shard) if args.shard else None
    if args.save_scores:
        check_owners(args.save_scores, matches)
    spotter = _load(args)
    _tell_unreachable(args.threshold, spotter.config)
    scores = score_matches(
        spotter, matches, args.save_scores, progress=True, window_stride_s=args.save_windows, shard=shard
    )
    return scores, spotter.config


def _load(args: argparse.Namespace):
    """Load the models, with the settings that were asked for."""
    from comedian.inference.settings import read_settings
    from comedian.inference.spotter import ActionSpotter

    options = {"device": args.device, "flip": args.flip, "trust_remote_code": args.trust_remote_code}
    spotter = ActionSpotter.from_pretrained(*args.model, **options)
    if args.settings:
        spotter.use_settings(read_settings(args.settings, spotter.config.label_names, spotter.weights_fingerprint))
    return spotter


def _annotations(path: Path | None):
    """Read the labels at once, so that a broken file is told before the work."""
    from comedian.soccernet.annotations import read_annotations

    return read_annotations(path) if path else None


def _write_report(
    args: argparse.Namespace, video_id: str, halves, events: Sequence[dict], config, annotations
) -> None:
    from comedian.report.spots import write_spots_report
    from comedian.soccernet.layout import match_of_videos

    if args.videos and len(args.videos) != len(halves):
        raise InputError(f"{len(args.videos)} videos for {len(halves)} halves; give the video of each half, or none")
    videos = match_of_videos(args.videos)[1] if args.videos else {}
    if videos.keys() != halves.keys():
        videos = dict(zip(sorted(halves), args.videos))
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


def _matches_of_folder(root: Path, split: str | None) -> dict[str, dict[int, Path]]:
    """Return video_id -> half -> video, of the split or of the whole folder."""
    from comedian.soccernet.layout import find_halves
    from comedian.soccernet.splits import matches_of_splits

    video_ids = matches_of_splits(root, None if split is None else [split])
    matches = {video_id: find_halves(root / video_id) for video_id in video_ids}
    without_video = [video_id for video_id, videos in matches.items() if not videos]
    if len(without_video) == len(matches):
        raise InputError(f"`{root}` holds no match with a video; videos are named such as `1_224p.mkv`")
    if without_video:
        print(f"left out, without video: {', '.join(without_video)}", file=sys.stderr)
    return {video_id: videos for video_id, videos in matches.items() if videos}


def _with_settings(config, nms_type: str | None, nms_window: Sequence[str] | None):
    """Return the settings with the suppression that was asked for."""
    from huggingface_hub.errors import StrictDataclassError

    fields = config.to_dict()
    if nms_type:
        fields["nms_type"] = nms_type
    if nms_window:
        fields["nms_window_s"] = _nms_window_s(nms_window, config)
    try:
        return type(config).from_dict(fields)
    except StrictDataclassError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"--nms-window {' '.join(nms_window or ())}: {reason}") from error


def _nms_window_s(words: Sequence[str], config) -> float | list[float]:
    """Parse SECONDS, or LABEL=SECONDS for each of some labels."""
    if len(words) == 1 and "=" not in words[0]:
        return _seconds(words[0])
    default = config.nms_window_s
    windows_s = dict(zip(config.label_names, default if isinstance(default, list) else [default] * config.num_labels))
    for word in words:
        label, _, seconds = word.rpartition("=")
        if label not in windows_s:
            raise InputError(f"--nms-window {word}: no label {label!r}; known: {', '.join(windows_s)}")
        windows_s[label] = _seconds(seconds)
    return list(windows_s.values())


def _seconds(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"--nms-window {word}: give seconds, or LABEL=SECONDS") from None


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
