"""transformers' own `VideoProcessingTestMixin` on the processor; `run.py` puts this file into its test suite."""

import unittest

from comedian.models import ComedianVideoProcessor

from ...test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs


class ComedianVideoProcessingTester:
    batch_size, num_frames, num_channels = 5, 8, 3
    size = {"height": 20, "width": 24}

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, self.size["height"], self.size["width"]


class ComedianVideoProcessingTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = ComedianVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = ComedianVideoProcessingTester()

    @property
    def video_processor_dict(self):
        return {
            "do_resize": True,
            "size": self.video_processor_tester.size,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_convert_rgb": True,
        }

    # sizes are height and width by default, as VJEPA2's tester has it
    def test_video_processor_from_dict_with_kwargs(self):
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict)
        self.assertEqual(processor.size, {"height": 20, "width": 24})
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=42, crop_size=84)
        self.assertEqual(processor.size, {"height": 42, "width": 42})
        self.assertEqual(processor.crop_size, {"height": 84, "width": 84})

    def test_video_processor_properties(self):
        processor = self.fast_video_processing_class(**self.video_processor_dict)
        for name in ("size", "do_center_crop", "crop_size", *self.video_processor_dict):
            self.assertTrue(hasattr(processor, name), name)
