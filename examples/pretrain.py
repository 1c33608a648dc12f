"""Run stage 1, the spatial encoder without labels, from a recipe, on one process or many.

    accelerate launch --config_file examples/accelerate_configs/multi_gpu.yaml examples/pretrain.py \\
        --config recipe.yaml --training.output_dir run

The same as `comedian pretrain`; copy it where you want to change what happens.
"""

import argparse

from comedian.training.pretrain import pretrain
from comedian.training.recipe import load_recipe


def main() -> None:
    """Read the recipe and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--config", required=True, help="the YAML recipe; any other --section.field VALUE overrides it"
    )
    args, overrides = parser.parse_known_args()
    log = pretrain(load_recipe(args.config, overrides))
    print([entry["loss"] for entry in log if "loss" in entry][-1])


if __name__ == "__main__":
    main()
