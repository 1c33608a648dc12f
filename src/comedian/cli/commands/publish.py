"""Publish a model on the Hugging Face Hub: weights, code, processor, recipe, predictions, scores and model card.

DIR is the output folder of training or of `comedian convert`. The model card is written from the record of the run and
from `--card`. Its scores are read from the files `<split>_scores.json` in DIR (`ensemble_<split>_scores.json` for an
ensemble), written by `comedian evaluate --output`. When the command is rerun, only changed files are uploaded. Log in
with `hf auth login` or set HF_TOKEN.
"""

import argparse
from pathlib import Path

EXAMPLE = "comedian publish runs/finetune USER/my-model --dry-run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="repository on the Hub, USER/NAME; created if missing")
    card = parser.add_argument_group("model card")
    card.add_argument(
        "--card",
        metavar="FILE",
        type=Path,
        help="YAML file with facts for the card that the run does not record, or the name of a shipped one such as "
        "gfspot-conv-small/card.yaml; default: DIR/card.yaml",
    )
    card.add_argument(
        "--ensemble-of",
        nargs="+",
        default=(),
        metavar="MODEL",
        help="other members of the ensemble: folders, which are uploaded too, or repositories, which the card links to; "
        "default: none",
    )
    upload = parser.add_argument_group("upload")
    upload.add_argument(
        "--private",
        action="store_true",
        help="create a private repository; an existing one keeps its visibility; default: public",
    )
    upload.add_argument("--dry-run", action="store_true", help="print the files and the card, upload nothing")


def run(args: argparse.Namespace) -> None:
    """Publish the model and print its URL, or print what would be uploaded."""
    from comedian.hub.model_card import CARD_FILE_NAME, read_facts
    from comedian.hub.model_publish import check_weights, files_to_publish, publish
    from comedian.training.recipe_names import find_recipe

    facts = read_facts(find_recipe(args.card)) if args.card else None
    if not args.dry_run:
        commit = publish(args.folder, args.repo_id, private=args.private, ensemble_of=args.ensemble_of, facts=facts)
        print(f"published: {commit.repo_url.url}")
        return
    files = files_to_publish(args.folder, args.repo_id, ensemble_of=args.ensemble_of, facts=facts)
    for name, content in sorted(files.items()):
        size_bytes = len(content) if isinstance(content, bytes) else content.stat().st_size
        print(f"{size_bytes / 1e6:12.3f} MB  {name}")
    card = files[CARD_FILE_NAME]
    print(f"\n{card.decode() if isinstance(card, bytes) else card.read_text(encoding='utf-8')}")
    check_weights(args.folder, args.ensemble_of)
