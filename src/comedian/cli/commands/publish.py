"""Publish a model on the Hugging Face Hub: weights, code, processor, recipe, predictions, scores and model card.

DIR is what training or `comedian convert` wrote. The card tells what the run recorded, and what `--card` adds; scores are
those of the files `<split>_scores.json` in DIR (`ensemble_<split>_scores.json` for an ensemble), as `comedian evaluate
--output` writes them. Run again, only what changed is sent. Log in with `hf auth login` or set HF_TOKEN.
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of the model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="USER/NAME; made when there is none")
    parser.add_argument("--private", action="store_true", help="only its owner may see a repository that is made now")
    parser.add_argument(
        "--ensemble-of",
        nargs="+",
        default=(),
        metavar="MODEL",
        help="the other members of an ensemble: folders, which are sent too, or repositories, which the card names",
    )
    parser.add_argument(
        "--card",
        metavar="FILE",
        type=Path,
        help="what no run records: a file, or a shipped one such as gfspot-conv-small/card.yaml; default: DIR/card.yaml",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent, and the card")


def run(args: argparse.Namespace) -> None:
    """Publish and print the address, or show what would be sent."""
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
