"""Model cards, written from the content and record of a model's folder and from the publisher's `card.yaml`."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open

from comedian import models
from comedian.errors import InputError, suggest
from comedian.files import atomic_write_text, read_json, read_yaml
from comedian.hub.model_record import WEIGHT_FILES, ModelRecord, StageRecord, hash_weights, read_record
from comedian.inference.model_names import CONFIG_FILE_NAME, read_local_config
from comedian.models import ComedianConfig
from comedian.models.settings_comedian import DEFAULT_THRESHOLD

CARD_FILE_NAME = "README.md"
FACTS_FILE_NAME = "card.yaml"
CURVE_FILE_NAME = "learning_curve.svg"
SCORES_SUFFIX = "_scores.json"
ENSEMBLE_PREFIX = "ensemble_"

TEMPLATE = Path(__file__).with_name("model_card_template.md")
SPOTTING = "ComedianForActionSpotting"
# the pipeline of the model's own code; transformers' "video-classification" does not apply to it
TASK = "action-spotting"
ENCODERS = {
    "vivit": "A COMEDIAN ViViT",
    "viswin": "A COMEDIAN ViSwin",
    "convolutional": "A convolutional COMEDIAN",
    "backbone": "A COMEDIAN whose spatial encoder is an image model,",
}
# fields of a configuration that are shown elsewhere in the card, or are not informative
UNTOLD_FIELDS = {"id2label", "label2id", "label_thresholds", "auto_map", "custom_pipelines", "architectures", "dtype"}
UNTOLD_FIELDS |= {
    "transformers_version",
    "model_type",
    "_name_or_path",
    "label_calibration",
    "label_curves",
    "label_num_events",
}


@dataclass(frozen=True)
class CardFacts:
    """What no run records: the publisher's `card.yaml`.

    Attributes:
        title: the card's heading; the repository's name by default.
        summary: a paragraph.
        license: of the weights, as the Hub names it.
        license_note: a sentence on it.
        dataset: name of the data that the model was trained and scored on.
        dataset_id: its repository on the Hub.
        data_note: a sentence on its licence.
        training_note: what is known of the training where no run recorded it.
        limits: a sentence.
        quoted_scores: published figures: `source`, `url`, and `rows` of `model`, `split`, `tight`, `loose` in percent.
    """

    title: str | None = None
    summary: str = (
        "It tells *when* things happen in a long sports video: a label, a second and a score for each event."
    )
    license: str = "other"
    license_note: str | None = None
    dataset: str = "the publisher's own matches"
    dataset_id: str | None = None
    data_note: str | None = None
    training_note: str | None = None
    limits: str | None = None
    quoted_scores: Mapping[str, Any] = field(default_factory=dict)


def read_facts(path: str | Path) -> CardFacts:
    """Read a `card.yaml`.

    Raises:
        InputError: no such file, no YAML, an unknown field.
    """
    content = read_yaml(path)
    known = [item.name for item in fields(CardFacts)]
    for name in content if isinstance(content, dict) else ():
        if name not in known:
            raise InputError(f"`{path}` has the unknown field `{name}`; {suggest(str(name), known)}")
    try:
        facts = CardFacts(**content)
        for row in facts.quoted_scores.get("rows", []):
            float(row["tight"]), float(row["loose"])
        return facts
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise InputError(f"`{path}` does not fit ({error}); known fields: {', '.join(known)}") from None


def facts_beside(folder: Path) -> CardFacts:
    """Read the `card.yaml` of a model's folder; the defaults if it does not exist.

    Raises:
        InputError: see [`read_facts`].
    """
    path = folder / FACTS_FILE_NAME
    return read_facts(path) if path.is_file() else CardFacts()


def read_config(folder: str | Path) -> ComedianConfig:
    """Read the configuration of a model's folder; of a spotting model where it names no class.

    Raises:
        InputError: there is none, or it is not of a COMEDIAN model.
    """
    path, content = Path(folder) / CONFIG_FILE_NAME, read_local_config(folder)
    if content.get("model_type") != ComedianConfig.model_type:
        raise InputError(f"`{path}` is not the configuration of a COMEDIAN model; give a folder that training wrote")
    try:
        config = ComedianConfig.from_dict({"architectures": [SPOTTING]} | content)
    except (StrictDataclassError, TypeError) as error:
        raise InputError(f"`{path}` does not fit: {' '.join(str(error).split())}") from None
    names = config.architectures if isinstance(config.architectures, list) else [config.architectures]
    saved = {str(name).split(".")[-1] for name in (content.get("auto_map") or {}).values()}
    if unknown := [name for name in names if name not in {*models.__all__, *saved}] or (not names and ["none"]):
        raise InputError(
            f"`{path}` names the class `{unknown[0]}`, which is not of comedian and has no code in the folder"
        )
    return config


def is_spotting(config: ComedianConfig) -> bool:
    """Whether a folder contains a spotting model: of this package's class, or of a subclass whose code is in the
    folder."""
    return config.architectures[0] == SPOTTING or config.architectures[0] not in models.__all__


def write_card(folder: str | Path, repo_id: str) -> None:
    """Write the card of a folder into it; see [`render_card`]."""
    atomic_write_text(Path(folder) / CARD_FILE_NAME, render_card(folder, repo_id))


def render_card(
    folder: str | Path, repo_id: str, facts: CardFacts | None = None, members: int = 0, named: Sequence[str] = ()
) -> str:
    """Render a model's card, metadata included.

    Args:
        folder: with `config.json`; `model_record.json`, `<split>_scores.json` (from `comedian evaluate --output`)
            and `learning_curve.svg` where they are there.
        repo_id: of the model on the Hub.
        facts: facts from the publisher; the `card.yaml` of the folder by default.
        members: number of other models of an ensemble that are in the repository.
        named: those in other repositories.

    Raises:
        InputError: a file of the folder cannot be read, or its record and scores are of other weights.
    """
    folder = Path(folder)
    facts = facts or facts_beside(folder)
    config, record = read_config(folder), read_record(folder) or ModelRecord()
    scores, ensemble_scores = read_scores(folder, config.label_names)
    check_record(folder, record, bool(scores))
    last = record.stages[-1] if record.stages else None
    text = _template().render(
        title=facts.title or repo_id.split("/")[-1],
        summary=facts.summary.strip(),
        unfinished=last if last and last.epochs < last.planned_epochs else None,
        repo_id=repo_id,
        spots=is_spotting(config),
        default_threshold=DEFAULT_THRESHOLD,
        members=members,
        named=list(named),
        encoder=ENCODERS[config.spatial_encoder],
        million_weights=f"{_count_weights(config, folder) / 1e6:.1f}",
        has_weights=any(folder.glob(WEIGHT_FILES)),
        config=config,
        labels=[cell(label) for label in config.label_names],
        config_changes=_config_changes(config),
        dataset=facts.dataset,
        scores=_score_table(scores),
        label_scores=_label_table(scores, config.label_names),
        ensemble_scores=_score_table(ensemble_scores),
        quoted=_quoted_table(facts.quoted_scores.get("rows", [])),
        quoted_source=_link(facts.quoted_scores),
        quoted_link=facts.quoted_scores.get("url"),
        curve=(folder / CURVE_FILE_NAME).is_file(),
        converted_from=record.converted_from,
        started_from=record.started_from,
        averaged_from=record.averaged_from,
        stages=[_told(stage) for stage in record.stages],
        training_note=facts.training_note,
        limits=facts.limits,
        license=facts.license,
        license_note=facts.license_note,
        data_note=facts.data_note,
    )
    metadata = _metadata(repo_id, facts, record, scores, is_spotting(config))
    # empty blocks leave blank lines
    text = re.sub(r"\n{3,}", "\n\n", text)
    return str(ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{text}\n"))


def read_scores(folder: Path, labels: Sequence[str]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Read the `<split>_scores.json` of a folder.

    Returns:
        Split -> official scores of the model, and of the ensemble (`ensemble_<split>_scores.json`).

    Raises:
        InputError: a file is invalid, or has other labels.
    """
    scores, ensemble_scores = {}, {}
    for path in sorted(
        folder.glob(f"*{SCORES_SUFFIX}"),
        key=lambda path: ("val" not in path.name.split("_"), "valid" not in path.name, path.name),
    ):
        content = read_json(path)
        try:
            per_class = {metric: [float(score) for score in of["a_mAP_per_class"]] for metric, of in content.items()}
            read = {
                metric: {"a_mAP": float(of["a_mAP"]), "labels": per_class[metric]} for metric, of in content.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"`{path}` holds no scores; write it with `comedian evaluate --output`") from None
        if any(len(of_labels) != len(labels) for of_labels in per_class.values()):
            raise InputError(f"`{path}` has scores of other labels than the model's {len(labels)}; score it again")
        split = path.name.removesuffix(SCORES_SUFFIX)
        if split.startswith(ENSEMBLE_PREFIX):
            ensemble_scores[split.removeprefix(ENSEMBLE_PREFIX)] = read
        else:
            scores[split] = read
    return scores, ensemble_scores


def check_record(folder: Path, record: ModelRecord, has_scores: bool) -> None:
    """Reject a record, and its scores, of other weights than those in the folder.

    Raises:
        InputError: the weights have changed, or there are scores and nothing says of which weights.
    """
    if not any(folder.glob(WEIGHT_FILES)):
        return
    if record.weights_sha256 is None:
        if has_scores:
            raise InputError(f"`{folder}` has scores but no model_record.json for their weights; remove the scores")
    elif record.weights_sha256 != hash_weights(folder):
        raise InputError(
            f"the weights in `{folder}` are not those that its model_record.json and scores are about; train again, or "
            "delete record and scores"
        )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)  # noqa: S701
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def _metadata(
    repo_id: str, facts: CardFacts, record: ModelRecord, scores: Mapping[str, Mapping[str, dict]], spots: bool
) -> ModelCardData:
    rows: list[tuple[str, str, float, dict]] = [
        (split, metric, 100 * of["a_mAP"], {}) for split, of_split in scores.items() for metric, of in of_split.items()
    ]
    if record.converted_from:
        source = {"source_name": facts.quoted_scores.get("source"), "source_url": facts.quoted_scores.get("url")}
        for row in facts.quoted_scores.get("rows", [])[:1]:
            rows += [(row["split"], metric, row[metric], source) for metric in ("tight", "loose")]
    results = [
        EvalResult(
            task_type=TASK,
            task_name="Action spotting",
            dataset_type=facts.dataset_id or re.sub(r"\W+", "-", facts.dataset.lower()),
            dataset_name=facts.dataset,
            dataset_split=split,
            metric_type="soccernet_average_map",
            metric_config=metric,
            metric_name=f"average-mAP {metric} (%)",
            metric_value=round(float(value), 2),
            **source,
        )
        for split, metric, value, source in rows
    ]
    start = record.started_from
    return ModelCardData(
        license=facts.license,
        library_name="transformers",
        pipeline_tag=TASK if spots else None,
        tags=["action-spotting", "comedian", "sports", "video"],
        datasets=[facts.dataset_id] if facts.dataset_id else None,
        base_model=start if start and "/" in start else None,
        model_name=repo_id.split("/")[-1],
        eval_results=results or None,
    )


def _told(stage: StageRecord) -> dict[str, Any]:
    """The fields of a stage as the card shows them."""
    hours, minutes = divmod(round(stage.train_time_s / 60), 60)
    rows = [
        [cell(split), of["matches"], of["halves"], f"{of['hours']:.2f}", of["events"]]
        for split, of in stage.data.items()
    ]
    return vars(stage) | {
        "epochs": f"{stage.epochs:g}",
        "planned_epochs": f"{stage.planned_epochs:g}",
        "time": f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min"
        if minutes
        else f"{stage.train_time_s:.0f} s",
        "data": _table(["split", "matches", "halves", "hours", "events"], rows),
        "versions": ", ".join(f"{name} {number}" for name, number in stage.versions.items()),
        "settings": _yaml(stage.settings),
    }


def _count_weights(config: ComedianConfig, folder: Path) -> int:
    if config.architectures[0] not in models.__all__:
        # of a subclass, which is not imported to write a card
        count = 0
        for path in folder.glob(WEIGHT_FILES):
            with safe_open(path, "np") as weights:
                count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        return count
    with torch.device("meta"):
        model = getattr(models, config.architectures[0])(config)
    return sum(parameter.numel() for parameter in model.parameters())


def _config_changes(config: ComedianConfig) -> str:
    values, defaults = config.to_dict(), ComedianConfig().to_dict()
    return _yaml({n: v for n, v in values.items() if n not in UNTOLD_FIELDS and v != defaults.get(n)})


def _score_table(scores: Mapping[str, Mapping[str, dict]]) -> str:
    metrics = list(dict.fromkeys(metric for of_split in scores.values() for metric in of_split))
    rows = [[cell(split), *(_percent(of_split, metric) for metric in metrics)] for split, of_split in scores.items()]
    return _table(["split", *metrics], rows) if rows else ""


def _percent(scores: Mapping[str, dict], metric: str) -> str:
    return f"{100 * scores[metric]['a_mAP']:.1f}" if metric in scores else ""


def _label_table(scores: Mapping[str, Mapping[str, dict]], labels: Sequence[str]) -> str:
    columns = {
        f"{split} {metric}": of["labels"] for split, of_split in scores.items() for metric, of in of_split.items()
    }
    rows = [
        [cell(label), *(f"{100 * column[index]:.1f}" for column in columns.values())]
        for index, label in enumerate(labels)
    ]
    return _table(["label", *columns], rows) if columns else ""


def _quoted_table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[row.get("model", ""), row.get("split", ""), row["tight"], row["loose"]] for row in rows]
    return _table(["model", "split", "tight", "loose"], cells) if rows else ""


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _link(quoted: Mapping[str, Any]) -> str:
    source, url = quoted.get("source", ""), quoted.get("url")
    return f"[{source}]({url})" if url else source


def _yaml(values: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(values), sort_keys=True, default_flow_style=None, width=110, allow_unicode=True)
    # a fence within would end the block
    return text.strip().replace("```", "'''") if values else ""


def cell(text: str) -> str:
    """Return a name from a file as text of a page or table: no HTML and no Markdown of its own."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(" ".join(str(text).split())))
