"""The models of `comedian spot`, with the settings of its arguments, and notes on what they report."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from comedian.errors import InputError


def models_to_choose() -> str:
    """Return one line that lists models: those in folders nearby, newest first, and the published ones."""
    from comedian.inference.model_names import models_nearby

    found = models_nearby(Path.cwd())
    nearby = f"found here, newest first: {', '.join(f'`{path}`' for path in found)}; " if found else ""
    repository = "juliendenize/COMEDIAN-ViViT-tiny"
    return (
        f"{nearby}in a clone of the repository, `--model demo` (`examples/demo/model`); published weights for soccer "
        f"broadcasts: `comedian convert {repository} COMEDIAN`, then `--model COMEDIAN`"
    )


def load_models(args: argparse.Namespace):
    """Load the models of `--model`, with `--settings`.

    Raises:
        InputError: a model or the settings cannot be loaded, or they do not match.
    """
    from comedian.inference.settings import read_settings
    from comedian.inference.spotter import ActionSpotter

    options = {"device": args.device, "flip": args.flip, "trust_remote_code": args.trust_remote_code}
    spotter = ActionSpotter.from_pretrained(*args.model, **options)
    if args.settings:
        spotter.use_settings(read_settings(args.settings, spotter.config.label_names, spotter.weights_fingerprint))
    return spotter


def with_suppression(config, nms_type: str | None, nms_window: Sequence[str] | None):
    """Return the configuration with `--nms-type` and `--nms-window`.

    Raises:
        InputError: an unknown label, or an invalid number of seconds.
    """
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
            raise InputError(f"--nms-window {word}: unknown label {label!r}; known labels: {', '.join(windows_s)}")
        windows_s[label] = _seconds(seconds)
    return list(windows_s.values())


def _seconds(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InputError(f"--nms-window {word}: give seconds, or LABEL=SECONDS") from None


def print_unreachable(threshold: float | str | None, config) -> None:
    """Print the labels without events at a target such as `precision=0.9`, and the reason.

    Raises:
        InputError: an invalid target, or a model without curves of precision and recall.
    """
    from comedian.inference.spotter import labels_with_too_few_events, thresholds_at

    if isinstance(threshold, str):
        limits = thresholds_at(threshold, config)
        too_few = labels_with_too_few_events(threshold, config)
        omitted = [label for label, limit in zip(config.label_names, limits) if limit == float("inf")]
        if missed := [label for label in omitted if label not in too_few]:
            print(f"omitted, because {threshold} was not reached on validation: {', '.join(missed)}", file=sys.stderr)
        if too_few := [label for label in omitted if label in too_few]:
            print(
                f"omitted, because validation has too few events to measure {threshold}: {', '.join(too_few)}",
                file=sys.stderr,
            )


def print_quality(args: argparse.Namespace, config) -> None:
    """Print the labels whose events are mostly wrong, and the default threshold if neither model nor user sets one."""
    from comedian.inference.settings import weak_labels
    from comedian.models.settings_comedian import DEFAULT_THRESHOLD

    if not args.keep_all and args.threshold is None and (weak := weak_labels(config)):
        print(
            f"the model is weak: on validation, fewer than half of the reported events were correct for {', '.join(weak)}; "
            "--threshold precision=0.5 omits them",
            file=sys.stderr,
        )

    if config.label_thresholds is None and not args.keep_all and args.threshold is None:
        print(
            f"the model has no thresholds: events with a score of at least {DEFAULT_THRESHOLD} are reported; "
            "--threshold SCORE sets another, `comedian tune` chooses one per label on matches with labels",
            file=sys.stderr,
        )
