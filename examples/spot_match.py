"""Spot a whole match in Python, with one model or an ensemble; write what people read and what the metric wants.

    python examples/spot_match.py                                                   # the demo's match and model
    python examples/spot_match.py --match MATCH_FOLDER --model MODEL_A MODEL_B --output SPOTS

The same as `comedian spot VIDEOS --model ...`; copy it where you want to do more.
"""

import argparse
from pathlib import Path

from comedian import ActionSpotter
from comedian.inference.outputs import write_csv
from comedian.soccernet.annotations import game_time, position_ms_of, write_results
from comedian.soccernet.layout import RESULTS_FILE_NAME, find_halves

DEMO = Path(__file__).parent / "demo"


def main() -> None:
    """Score both halves once; take from the scores what a person would call events, and every candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--match", type=Path, default=DEMO / "match", help="folder with a video a half: 1_224p.mkv, ..."
    )
    parser.add_argument(
        "--model", nargs="+", default=[DEMO / "model"], help="folders or Hub repositories; several are an ensemble"
    )
    parser.add_argument("--output", type=Path, default=Path("spots"), help="folder to write (default: spots)")
    args = parser.parse_args()

    spotter = ActionSpotter.from_pretrained(*args.model)
    # the work; `spotter(videos)` does this and the next step in one
    scores = [spotter.score(video, progress=True) for video in find_halves(args.match).values()]

    # a person wants what is likely: each label has its own threshold, chosen on validation and kept in the config
    events = spotter.spots(scores)
    for event in events:
        clock = game_time(event["half"], position_ms_of(event["timestamp_s"]))
        print(f"{clock}  {event['label']:<20}{event['score']:.2f}")
    write_csv(args.output / "events.csv", events)

    # the metric draws the thresholds itself and wants every candidate, however unlikely
    candidates = spotter.spots(scores, keep_all=True)
    write_results(args.output / RESULTS_FILE_NAME, args.match.name, candidates)
    sure = spotter.spots(scores, threshold=0.7)
    print(f"{len(events)} events, {len(sure)} of them above 0.7; {len(candidates)} candidates; see {args.output}")


if __name__ == "__main__":
    main()
