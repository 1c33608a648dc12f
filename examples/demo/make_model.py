"""Make the demo's model folder complete: weights, code, record, scores and card.

    python examples/demo/make_model.py                          # after a change of the code or of the card's template
    python examples/demo/make_model.py --run RUN --gfspot DIR   # other weights

RUN is what training wrote; it is scored on the test split of GF-Spot. What no run records stands in `model/card.yaml`, which
is written by hand and stays.
"""

import argparse
from pathlib import Path

from comedian.cli.main import main as comedian
from comedian.files import atomic_path
from comedian.hub.model_card import FACTS_FILE_NAME, read_facts
from comedian.hub.model_publish import check_weights, files_to_publish
from comedian.hub.model_record import ModelRecord, read_record

MODEL = Path(__file__).parent / "model"
# the card's commands name the folder by this, as one calls it from the repository's root
NAME = "examples/demo/model"


def main() -> None:
    """Score if asked, and write all that a repository of the Hub would get."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", metavar="RUN", type=Path, default=MODEL, help="folder of the model; default: the demo's"
    )
    parser.add_argument("--gfspot", metavar="DIR", type=Path, help="GF-Spot: measure the scores of its test split")
    args = parser.parse_args()

    if read_record(args.run) is None:  # only that these weights are the ones that are scored
        ModelRecord().save(args.run)
    if args.gfspot:
        score(args.run, args.gfspot)
    check_weights(args.run)
    files = files_to_publish(args.run, NAME, facts=read_facts(MODEL / FACTS_FILE_NAME))
    contents = {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in files.items()}
    for path in MODEL.iterdir():
        if path.name not in {*contents, FACTS_FILE_NAME, "__pycache__"}:
            path.unlink()
    for name, content in contents.items():
        with atomic_path(MODEL / name) as partial:
            partial.write_bytes(content)


def score(run: Path, gfspot: Path) -> None:
    """Write the predictions of the test split and their official scores into the model's folder."""
    predictions = run / "predictions_test.zip"
    commands = (
        ["spot", gfspot, "--split", "test", "--model", run, "--output", predictions],
        ["evaluate", gfspot, predictions, "--labels", gfspot / "labels.txt", "--split", "test"]
        + ["--metric", "tight", "loose", "--output", run / "test_scores.json"],
    )
    for command in commands:
        if code := comedian([str(word) for word in command]):
            raise SystemExit(code)


if __name__ == "__main__":
    main()
