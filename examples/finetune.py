"""Fine-tune a spotting model from a recipe, on one process or many.

    accelerate launch --multi_gpu --num_processes 2 examples/finetune.py --config recipe.yaml --training.output_dir run

On two CPU processes: `--config_file examples/accelerate_configs/cpu_two_processes.yaml` in place of the options.

The same as `comedian finetune`; copy it where you want to change what happens.
"""

import argparse

from comedian.training.finetune import finetune
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
    scores = finetune(load_recipe(args.config, overrides))
    print({metric: values["a_mAP"] for metric, values in scores.items()})


if __name__ == "__main__":
    main()
