"""A training step of each stage, ViViT-T at 224 pixels: ours against the straightforward way; parts that cost nothing.

python examples/benchmarks/training_step.py --stages 1 2 3

A step is augmentation, forward and backward pass, clipping, AdamW, and what follows: queue and momentum branch. The
straightforward way is what the published implementation does, in its usual vectorised form: attention as two matrix
products around a softmax (the layers of timm 0.6.13), patches embedded by a Conv3d, each sample augmented by itself, the
last spatial layer computed for every patch, stage 2's loss over whole score matrices of the batch, weights of the momentum
branch and of AdamW one after the other; `--fused-attention` gives it our attention. Both in the same precision (bfloat16
autocast where the machine has it), on the same windows. Seconds are CPU time on a CPU, else wall time.
"""

import argparse
import time
from collections.abc import Callable

import torch
from common import augment_one_by_one, default_device, in_published_form, interleaved, machine, peak_bytes
from distillation_loss import straightforward_loss
from torch import Tensor
from torch.nn import functional as F

from comedian.memory import keep_freed_memory
from comedian.models import (
    ComedianConfig,
    ComedianForActionSpotting,
    ComedianForContrastivePretraining,
    ComedianForFeatureDistillation,
)
from comedian.models.modeling_comedian import keep_tubelets
from comedian.models.video_processing_comedian import normalize_frames
from comedian.samples.augmentation import AugmentationSettings, augment, draw_parameters
from comedian.training.contrastive_config import ContrastiveConfig
from comedian.training.distillation_config import DistillationConfig
from comedian.training.spotting_config import SpottingConfig

CLASSES = {1: ComedianForContrastivePretraining, 2: ComedianForFeatureDistillation, 3: ComedianForActionSpotting}
SETTINGS = {1: ContrastiveConfig, 2: DistillationConfig, 3: SpottingConfig}
GLIBC_LIMIT_BYTES = 2**25
AUTOCASTS = torch.cpu._is_avx512_bf16_supported()
MEAN, STD = [0.45] * 3, [0.225] * 3


def augmented(frames: Tensor, settings: AugmentationSettings, straightforward: bool) -> Tensor:
    """Augmented, normalised pixels of uint8 planes `(batch, frames, 3, height, width)`."""
    seeds, num_tubelets = torch.arange(len(frames)), frames.shape[1] // 2
    if straightforward:
        return normalize_frames(augment_one_by_one(frames, seeds, settings, num_tubelets), MEAN, STD, 1.0)
    parameters = draw_parameters(seeds, settings, num_tubelets)
    parameters = {name: values.to(frames.device) for name, values in parameters.items()}
    pixels = normalize_frames(augment(frames, parameters, settings), MEAN, STD, 1.0)
    return pixels.bfloat16() if frames.device.type != "cpu" or AUTOCASTS else pixels


def clock_of(device: str) -> Callable[[], float]:
    """CPU time where the CPU computes, which other work beside it moves less; else wall time."""
    return time.process_time if device == "cpu" else time.perf_counter


class Step:
    """One stage's training step, ours or straightforward."""

    def __init__(
        self, stage: int, batch: int, straightforward: bool, fused_attention: bool = False, device: str = "cpu"
    ):
        torch.manual_seed(0)
        config = ComedianConfig(num_labels=17)
        self.stage, self.straightforward, self.device = stage, straightforward, device
        self.model = CLASSES[stage](config).train().to(device)
        if straightforward:
            in_published_form(self.model, fused_attention)
        self.settings = SETTINGS[stage](output_dir="unused", use_cpu=True)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.05, foreach=not straightforward)
        shape = (batch, 2 if stage == 1 else config.num_frames, 3, *config.image_size)
        self.frames = torch.randint(0, 256, shape, dtype=torch.uint8)
        self.features = torch.randn(batch, config.num_tokens, 512)
        self.labels = (torch.rand(batch, config.num_tokens, 17) < 0.05).float()
        noise = torch.rand(batch, config.num_tokens)
        self.kept = keep_tubelets(noise, config.temporal_mask_ratio).to(device)
        self.frames, self.features, self.labels = (x.to(device) for x in (self.frames, self.features, self.labels))
        self.clock_s = clock_of(device)
        self.times_s: dict[str, float] = {}

    def __call__(self) -> None:
        """Do one step; the straightforward one with the memory settings that a process has of its own accord."""
        keep_freed_memory(*([GLIBC_LIMIT_BYTES] if self.straightforward else []))
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device != "cpu" or AUTOCASTS):
            loss = {1: self.clips, 2: self.tokens, 3: self.labelled}[self.stage]()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=not self.straightforward)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.stage < 3:
            self.timed("queue", self.model.update_queue)
        if self.stage == 1:
            self.timed("momentum branch", self.move_momentum_branch)

    def timed(self, name: str, work: Callable[[], object]) -> object:
        """Note what a part takes."""
        start_s = self.clock_s()
        result = work()
        if self.device != "cpu":
            torch.accelerator.synchronize()
        self.times_s[name] = self.clock_s() - start_s
        return result

    def clips(self) -> Tensor:
        """Loss of stage 1."""
        views = [
            augmented(self.frames, settings, self.straightforward) for settings in self.settings.view_augmentations
        ]
        return self.model(views[0], second_view=views[1]).loss

    def tokens(self) -> Tensor:
        """Loss of stage 2."""
        pixels = augmented(self.frames, self.settings.augmentation, self.straightforward)
        if not self.straightforward:
            return self.model(pixels, teacher_features=self.features, kept_tubelets=self.kept).loss
        queries = self.model(pixels, kept_tubelets=self.kept).token_embeddings
        features = F.normalize(self.features, dim=2)
        self.model.hold_keys(features.flatten(0, 1)[None])
        return straightforward_loss(queries, features, self.model.queue)

    def labelled(self) -> Tensor:
        """Loss of stage 3."""
        pixels = augmented(self.frames, self.settings.augmentation, self.straightforward)
        return self.model(pixels, labels=self.labels, kept_tubelets=self.kept).loss

    @torch.no_grad()
    def move_momentum_branch(self) -> None:
        """All weights at once, or one after the other."""
        if not self.straightforward:
            self.model.update_momentum_branch(0.99)
            return
        for momentum, online in zip(*self.model._momentum_pairs(), strict=True):
            momentum.mul_(0.99).add_(online, alpha=0.01)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3], choices=(1, 2, 3))
    parser.add_argument("--clips", type=int, default=32, help="batch of stage 1")
    parser.add_argument("--windows", type=int, default=2, help="batch of stages 2 and 3")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--fused-attention", action="store_true", help="in the straightforward way too")
    args = parser.parse_args()
    print("| stage | batch | straightforward, s | ours, s | ratio | straightforward, GB | ours, GB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    parts = {}
    for stage in args.stages:
        batch = args.clips if stage == 1 else args.windows
        usual = Step(stage, batch, True, args.fused_attention, args.device)
        ours = Step(stage, batch, False, device=args.device)
        times_s = interleaved({"usual": usual, "ours": ours}, args.repeats, clock_s=clock_of(args.device))
        usual_gb, ours_gb = (peak_bytes(step, args.device) / 1e9 for step in (usual, ours))
        ratio = times_s["usual"] / times_s["ours"]
        print(
            f"| {stage} | {batch} | {times_s['usual']:.2f} | {times_s['ours']:.2f} | {ratio:.2f} "
            f"| {usual_gb:.2f} | {ours_gb:.2f} | {ours_gb / usual_gb:.2f} |"
        )
        noise = torch.rand(batch, 64)
        masking = {"mask": lambda noise=noise: keep_tubelets(noise, 0.25)}
        mask_s = interleaved(masking, 20, clock_s=clock_of(args.device))["mask"]
        shares = ours.times_s | ({} if stage == 1 else {"temporal mask": mask_s})
        parts[stage] = {name: 100 * part_s / times_s["ours"] for name, part_s in shares.items()}
    for stage, shares in parts.items():
        print(
            f"\nstage {stage}, per cent of our step: " + ", ".join(f"{n} {share:.3f}" for n, share in shares.items())
        )
    print(f"\nqueue of 65 536; {machine(args.device)}")


if __name__ == "__main__":
    main()
