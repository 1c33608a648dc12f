"""What inference reads of a model's `config.json`, for models that run without torch."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError

from comedian.models.settings_comedian import MERGES, NMS_TYPES, ComedianSettings, as_list


@strict
@dataclass
class InferenceConfig(ComedianSettings):
    """The fields of `ComedianConfig` that inference reads, with the same defaults, properties and checks.

    Raises:
        StrictDataclassError: a field of the wrong type, or an invalid combination.
    """

    # of the architecture and of training: kept, as scores on disk hold the whole configuration
    other_fields: dict = field(default_factory=dict)

    def __post_init__(self):
        try:
            self.spatial_depths, self.image_size = as_list(self.spatial_depths), as_list(self.image_size)
            if len(self.image_size) == 1:
                self.image_size = self.image_size * 2
            labels = {0: "LABEL_0", 1: "LABEL_1"} if self.id2label is None else self.id2label
            self.id2label = {int(index): label for index, label in labels.items()}
        except (TypeError, ValueError) as error:
            raise StrictDataclassClassValidationError(validator="fields", cause=error) from error

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any]) -> "InferenceConfig":
        """Build from the content of a `config.json`."""
        names = {item.name for item in fields(cls)} - {"other_fields"}
        known = {name: value for name, value in config_dict.items() if name in names}
        return cls(**known, other_fields={name: config_dict[name] for name in config_dict.keys() - known.keys()})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, those of the architecture too, as [`from_dict`] takes them."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "other_fields"}
        return copy.deepcopy(self.other_fields | own)

    def to_json_string(self) -> str:
        """Return all fields as the content of a `config.json`."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    @property
    def num_labels(self) -> int:
        """Labels of the classifier."""
        return len(self.id2label or {})

    def validate_settings(self):
        """Reject the values of these fields that `ComedianConfig` rejects."""
        self._check_numbers()
        self._check_choice("merge", MERGES)
        self._check_choice("nms_type", NMS_TYPES)
        self._check_positive("spatial_hidden_size tubelet_size num_frames fps scores_per_token")
        self._check_largest(
            ("spatial_hidden_size", "spatial_depths", "image_size", "num_frames", "fps", "scores_per_token")
        )
        self._check_window()
        self._check_output()
        self._check_inference()
        self._check_labels()
