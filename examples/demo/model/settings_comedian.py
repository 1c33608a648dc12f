"""The fields of a configuration that inference reads: their time grid, labels, post-processing and checks, without torch or
transformers."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

MAX_NUMBER = 2**53
MERGES = ("max", "mean")
NMS_TYPES = ("soft", "hard")
# control characters break a line or give commands to a terminal; no label has them
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# far beyond any model, and what would take all memory or never end
MAX_SIZES = {
    "spatial_hidden_size": 2**16,
    "spatial_depths": 1000,
    "temporal_depth": 1000,
    "temporal_convolutions": 1000,
    "temporal_kernel_size": 10**4,
    "image_size": 2**14,
    "num_frames": 10**6,
    "fps": 1000,
    "mlp_ratio": 100,
    "num_channels": 1000,
    "scores_per_token": 10**4,
}
# fields that hold for one set of weights, and for no other labels
CHOSEN_ON_VALIDATION = ("label_thresholds", "label_calibration", "label_curves", "label_num_events")
# score from which an event is reported by a model without `label_thresholds`
DEFAULT_THRESHOLD = 0.3


# only its fields are inherited: the subclasses have their own `__init__`, `__repr__` and `__eq__`
@dataclass(init=False, repr=False, eq=False, kw_only=True)
class ComedianSettings:
    """Fields of a configuration that inference reads, with their properties and checks; see [`ComedianConfig`]."""

    model_type = "comedian"

    # input
    image_size: int | list[int] | tuple[int, ...] = (224, 224)
    tubelet_size: int = 2
    num_frames: int = 128
    fps: float | int = 2.0

    # spatial encoder
    spatial_hidden_size: int = 192
    spatial_depths: int | list[int] | tuple[int, ...] = (12,)

    # heads
    scores_per_token: int = 1
    offset_radius_s: float | int | None = None
    sound: bool = False

    # loss
    class_weights: list[list[float | int]] | None = None

    # merging of windows and suppression
    window_stride_s: float | int | None = None
    edge_trim_s: float | int | None = None
    merge: str = "max"
    nms_type: str = "soft"
    nms_window_s: float | int | list[float | int] = 10.0
    nms_threshold: float | int = 0.001
    nms_min_weight: float | int = 0.0

    # chosen on validation
    label_thresholds: list[float | int] | None = None
    label_calibration: list[list[float | int]] | None = None
    label_curves: list[list[list[float | int]]] | None = None
    label_num_events: list[int] | None = None

    # labels
    id2label: dict[int, str] | dict[str, str] | None = None

    if TYPE_CHECKING:
        # each kind of configuration has its own; methods here would come before those of `PreTrainedConfig`
        @property
        def num_labels(self) -> int:
            """Labels of the classifier."""

        @classmethod
        def from_dict(cls, config_dict: Mapping[str, Any]) -> Self:
            """Build from the content of a `config.json`."""

        def to_dict(self) -> dict[str, Any]:
            """Return all fields."""

        def to_json_string(self) -> str:
            """Return all fields as the content of a `config.json`."""

    @property
    def reporting_thresholds(self) -> list[float | int]:
        """Score from which each label's events are reported, in the order of the labels."""
        return self.label_thresholds or [DEFAULT_THRESHOLD] * self.num_labels

    @property
    def hidden_size(self) -> int:
        """Width of spatial and temporal tokens: ViSwin doubles its width from stage to stage."""
        return self.spatial_hidden_size * 2 ** (len(as_list(self.spatial_depths)) - 1)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        height, width = as_list(self.image_size)
        return height, width

    @property
    def num_tokens(self) -> int:
        """Tokens of one window."""
        return self.num_frames // self.tubelet_size

    @property
    def token_rate(self) -> float:
        """Tokens per second."""
        return self.fps / self.tubelet_size

    @property
    def score_rate(self) -> float:
        """Steps of the output per second."""
        return self.token_rate * self.scores_per_token

    @property
    def logits_per_token(self) -> int:
        """Logits of a token for each label: one a step, or one that the offset moves to its step."""
        return self.scores_per_token if self.offset_radius_s is None else 1

    @property
    def window_duration_s(self) -> float:
        """Length of one window in seconds."""
        return self.num_frames / self.fps

    @property
    def window_stride_tokens(self) -> int:
        """Hop between inference windows in tokens, at least 1."""
        if self.window_stride_s is None:
            return max(self.num_tokens // 2, 1)
        return max(round(self.window_stride_s * self.token_rate), 1)

    @property
    def edge_trim_tokens(self) -> int:
        """Tokens dropped at both ends of an inference window."""
        if self.edge_trim_s is None:
            return self.num_tokens * 12 // 64
        return round(self.edge_trim_s * self.token_rate)

    @property
    def label_names(self) -> list[str]:
        """The labels in the order of the logits."""
        labels: Mapping[Any, str] = self.id2label or {}
        return [labels[index] for index in range(self.num_labels)]

    def _check_numbers(self):
        """Refuse whole numbers that no float holds: JSON may have them of any length."""
        for field in fields(self):
            if any(
                isinstance(number, int) and abs(number) > MAX_NUMBER for number in _flat(getattr(self, field.name))
            ):
                raise ValueError(f"`{field.name}` has a number beyond {MAX_NUMBER}")

    def _check_positive(self, fields: str):
        for field in fields.split():
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"`{field}` is {getattr(self, field)}; must be greater than 0")

    def _check_largest(self, fields: Iterable[str]):
        for field in fields:
            value = getattr(self, field)
            if max(value if isinstance(value, list) else [value]) > MAX_SIZES[field]:
                raise ValueError(f"`{field}` is {value}; must be at most {MAX_SIZES[field]}")

    def _check_choice(self, field: str, known: Iterable[str]):
        if getattr(self, field) not in known:
            raise ValueError(f"`{field}` is {getattr(self, field)!r}; must be one of {', '.join(known)}")

    def _check_window(self):
        """Refuse windows that tubelets do not fill."""
        if self.num_frames % self.tubelet_size:
            raise ValueError(f"`num_frames` {self.num_frames} is not a multiple of `tubelet_size` {self.tubelet_size}")

    def _check_output(self):
        """Refuse steps that share no frames out, and offsets of no length."""
        if self.offset_radius_s is not None and not 0 < self.offset_radius_s < math.inf:
            raise ValueError(f"`offset_radius_s` is {self.offset_radius_s}; must be greater than 0, or omitted")
        if self.tubelet_size % self.logits_per_token:
            raise ValueError(
                f"`scores_per_token` {self.scores_per_token} does not divide `tubelet_size` {self.tubelet_size}; "
                "only with `offset_radius_s` it may be any number"
            )

    def _check_inference(self):
        """Refuse stitching settings that leave seconds uncovered, and windows that are no length of time."""
        if self.window_stride_s is not None and not 0 < self.window_stride_s < math.inf:
            raise ValueError(f"`window_stride_s` is {self.window_stride_s}; must be greater than 0")
        if self.edge_trim_s is not None and not 0 <= self.edge_trim_s < math.inf:
            raise ValueError(f"`edge_trim_s` is {self.edge_trim_s}; must be 0 or more")
        stride, kept = self.window_stride_tokens, self.num_tokens - 2 * self.edge_trim_tokens
        if kept < 1 or stride > kept:
            raise ValueError(
                f"`window_stride_s` {self.window_stride_s} and `edge_trim_s` {self.edge_trim_s} leave gaps: a window of "
                f"{self.num_tokens} tokens keeps {kept} of them and the next one starts {stride} later"
            )
        windows = self.nms_window_s if isinstance(self.nms_window_s, list) else [self.nms_window_s]
        if not all(0 <= window < math.inf for window in windows):
            raise ValueError(f"`nms_window_s` is {self.nms_window_s}; must be 0 or more")

    def _check_labels(self):
        """Refuse labels that are not one name an output, and per-label lists of another length."""
        names = self.id2label or {}
        if sorted(names) != list(range(max(len(names), 1))):
            raise ValueError(f"`id2label` has the indices {list(names)}; must be 0, 1, ... without gaps")
        for label in names.values():
            if not isinstance(label, str) or CONTROL.search(label):
                raise ValueError(f"`id2label` has the label {label!r}; must be a line of text")
        if len(set(names.values())) < len(names):
            raise ValueError("`id2label` has a label more than once")
        lists = {name: getattr(self, name) for name in CHOSEN_ON_VALIDATION}
        if isinstance(self.nms_window_s, list):
            lists["nms_window_s"] = self.nms_window_s
        rows = self.class_weights or []
        if any(len(weights) != 1 for weights in rows):
            lists |= {f"class_weights[{row}]": weights for row, weights in enumerate(rows)}
        if self.class_weights is not None and len(self.class_weights) != 2:
            raise ValueError(f"`class_weights` has {len(self.class_weights)} rows; must have 2 (target 0, target 1)")
        for name, values in lists.items():
            if values is not None and len(values) != self.num_labels:
                raise ValueError(f"`{name}` has {len(values)} entries for {self.num_labels} labels")
        for pair in self.label_calibration or []:
            if len(pair) != 2 or not 0 < pair[0] < math.inf or not math.isfinite(pair[1]):
                raise ValueError(f"`label_calibration` holds {pair}; must be a slope greater than 0 and a bias")
        if any(count < 0 for count in self.label_num_events or []):
            raise ValueError(f"`label_num_events` is {self.label_num_events}; must be numbers of events, 0 or more")
        for points in self.label_curves or []:
            if any(len(point) != 3 for point in points):
                raise ValueError("`label_curves` holds a point that is not threshold, precision and recall")


def _flat(value):
    """Yield the items of nested lists, or the value itself."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    else:
        yield value


def as_list(value: int | list[int] | tuple[int, ...]) -> list[int]:
    """Return a whole number as a list of one."""
    return [value] if isinstance(value, int) else list(value)


__all__ = ["ComedianSettings", "as_list"]
