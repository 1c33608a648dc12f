"""COMEDIAN before spotting: contrastive training of the spatial encoder (stage 1), distillation into both (stage 2)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_comedian import ComedianConfig, ComedianContrastiveConfig, ComedianDistillationConfig
from .encoders_comedian import ComedianUniformLinear
from .loss_comedian import soft_contrastive_loss, token_contrastive_loss
from .modeling_comedian import SPATIAL_ENCODER_CLASSES, ComedianKwargs, ComedianModel, ComedianPreTrainedModel


@dataclass
class ComedianContrastiveOutput(ModelOutput):
    """Output of [`ComedianForContrastivePretraining`].

    Args:
        loss (`torch.Tensor` of shape `()`, returned when a second view is given): soft contrastive loss, mean of both
        ways.
        query_embeddings (`torch.Tensor` of shape `(num_views, batch_size, dim)`): online predictions, L2-normalised.
        key_embeddings (`torch.Tensor` of shape `(num_views, batch_size, dim)`): momentum embeddings, L2-normalised.
        positive_similarity (`torch.Tensor` of shape `()`): mean cosine of a query and its key.
        negative_similarity (`torch.Tensor` of shape `()`): mean cosine of a query and the queue.
        embedding_std (`torch.Tensor` of shape `()`): spread of all processes' queries times `sqrt(dim)`: near 1 where they
            fill the sphere, 0 where they have collapsed.
        hidden_states (`tuple[torch.Tensor]`, returned when `output_hidden_states=True`): patches of the clips of all views
            after each layer of the spatial encoder, as `spatial_hidden_states` of [`ComedianModelOutput`].
        attentions (`tuple[torch.Tensor]`, returned when `output_attentions=True`): its attention weights, as
            `spatial_attentions` there.
    """

    loss: Tensor | None = None
    query_embeddings: Tensor | None = None
    key_embeddings: Tensor | None = None
    positive_similarity: Tensor | None = None
    negative_similarity: Tensor | None = None
    embedding_std: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class ComedianDistillationOutput(ModelOutput):
    """Output of [`ComedianForFeatureDistillation`]; see [`ComedianModelOutput`] for the other fields.

    Args:
        loss (`torch.Tensor` of shape `()`, returned when `teacher_features` are given): token-wise soft contrastive loss.
        token_embeddings (`torch.Tensor` of shape `(batch_size, num_tokens, dim)`): projected tokens, L2-normalised.
        last_hidden_state (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`): temporal tokens.
        positive_similarity (`torch.Tensor` of shape `()`): mean cosine of a token and its feature.
        negative_similarity (`torch.Tensor` of shape `()`): mean cosine of a token and the queue.
        embedding_std (`torch.Tensor` of shape `()`): spread of all processes' tokens times `sqrt(dim)`; 0 where they have
            collapsed.
    """

    loss: Tensor | None = None
    token_embeddings: Tensor | None = None
    last_hidden_state: Tensor | None = None
    positive_similarity: Tensor | None = None
    negative_similarity: Tensor | None = None
    embedding_std: Tensor | None = None
    spatial_tokens: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    spatial_hidden_states: tuple[Tensor, ...] | None = None
    spatial_attentions: tuple[Tensor, ...] | None = None


def first_queue(size: int, dim: int) -> Tensor:
    """Random directions `(size, dim)`, always the same: first steps have negatives everywhere."""
    generator = torch.Generator("cpu").manual_seed(0)
    return F.normalize(torch.randn(size, dim, generator=generator, device="cpu"), dim=1)


def keep_layers(
    hidden_states: tuple[Tensor, ...] | None, wanted: bool | int | list[int]
) -> tuple[Tensor | None, ...] | None:
    """Hidden states of the layers that `output_hidden_states` names, `None` in the place of others; `True` is all.

    transformers takes indices for any model; its own selection covers fields of the name `hidden_states` alone.
    """
    if hidden_states is None or isinstance(wanted, bool):
        return hidden_states
    kept = {index % len(hidden_states) for index in ([wanted] if isinstance(wanted, int) else wanted)}
    return tuple(states if index in kept else None for index, states in enumerate(hidden_states))


class ComedianProjectionHead(nn.Module):
    """Linear layers with GELU between them, no normalisation."""

    def __init__(self, hidden_size: int, sizes: Sequence[int], use_last_bias: bool = True):
        super().__init__()
        widths = [hidden_size, *sizes]
        self.layers = nn.ModuleList(
            ComedianUniformLinear(before, after, bias=use_last_bias or index < len(sizes) - 1)
            for index, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )

    def forward(self, hidden_states: Tensor) -> Tensor:
        """`(..., hidden_size)` to `(..., sizes[-1])`."""
        for layer in self.layers[:-1]:
            hidden_states = F.gelu(layer(hidden_states))
        return self.layers[-1](hidden_states)


class ComedianQueuedPreTrainedModel(ComedianPreTrainedModel):
    """A model that compares its queries with a queue of keys of earlier steps.

    `queue` `(queue_size, dim)` and `queue_ptr` `(1,)`, the next slot to overwrite, are saved with the weights, so that a
    resumed run continues with the same negatives. Training passes hold their keys back until [`update_queue`] is
    called after the optimizer's step: gradient accumulation neither fills the queue with keys of half a step nor shows
    a step its own.
    """

    def make_queue(self, queue_size: int, dim: int) -> None:
        """Register the queue and fill it."""
        queue = torch.empty(queue_size, dim)
        self.register_buffer("queue", queue if queue.is_meta else queue.copy_(first_queue(queue_size, dim)))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self._waiting_keys: list[Tensor] = []

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Also fill the queue, which a checkpoint may lack."""
        super()._init_weights(module)
        if module is self:
            init.copy_(self.queue, first_queue(*self.queue.shape))
            init.zeros_(self.queue_ptr)

    def hold_keys(self, keys: Tensor) -> None:
        """Keep the keys of a training pass, `(num_groups, num_keys, dim)`, for the next [`update_queue`].

        Without a call of it, no more passes are kept than fill the queue.
        """
        self._waiting_keys.append(keys.detach().float())
        count = sum(len(held) * held.shape[1] for held in self._waiting_keys[1:])
        while count >= len(self.queue) and len(self._waiting_keys) > 1:
            self._waiting_keys.pop(0)
            count -= len(self._waiting_keys[0]) * self._waiting_keys[0].shape[1]

    @torch.no_grad()
    def update_queue(self) -> None:
        """Write the keys held since the last call over the oldest ones; of more than `queue_size`, the last ones stay.

        Call it once after each optimizer step; [`QueuedTrainer`] does.
        """
        if not self._waiting_keys:
            return
        # the groups of all micro-batches side by side: the order of one large batch
        keys = torch.cat(self._waiting_keys, dim=1).flatten(0, 1)
        self._waiting_keys = []
        size = len(self.queue)
        slots = (self.queue_ptr + torch.arange(len(keys), device=keys.device)) % size
        self.queue[slots[-size:]] = keys[-size:]
        self.queue_ptr.add_(len(keys)).remainder_(size)


def gather_keys(keys: Tensor) -> tuple[Tensor, int]:
    """Collect constant keys `(num_keys, ...)` of all processes, in order of rank, and the index where this one's begin."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return keys, 0
    gathered = keys.new_empty(torch.distributed.get_world_size() * len(keys), *keys.shape[1:])
    torch.distributed.all_gather_into_tensor(gathered, keys.contiguous())
    return gathered, torch.distributed.get_rank() * len(keys)


@torch.no_grad()
def embedding_diagnostics(queries: Tensor, keys: Tensor, queue: Tensor) -> dict[str, Tensor]:
    """Similarities and spread of queries and keys `(num, dim)`, all L2-normalised."""
    queries, keys = queries.float(), keys.float()
    return {
        "positive_similarity": (queries * keys).sum(dim=1).mean(),
        # the mean over all pairs is the product of the means
        "negative_similarity": queries.mean(dim=0) @ queue.mean(dim=0),
        # the mean of each process's spread would be smaller than the spread of all
        "embedding_std": gather_keys(queries)[0].std(dim=0, correction=0).mean() * queries.shape[1] ** 0.5,
    }


class ComedianForContrastivePretraining(ComedianQueuedPreTrainedModel):
    """Stage 1: contrastive pre-training of the spatial encoder on one-second clips (momentum contrast with soft targets).

    The temporal encoder lies there untrained: what is published is the backbone's spatial part alone.
    """

    def __init__(self, config: ComedianConfig):
        super().__init__(config)
        if config.contrastive_config is None:
            config.contrastive_config = ComedianContrastiveConfig()
        settings = config.contrastive_settings
        self.comedian = ComedianModel(config)
        self.projector = ComedianProjectionHead(config.hidden_size, settings.projector_sizes)
        self.predictor = ComedianProjectionHead(settings.projector_sizes[-1], settings.predictor_sizes, False)
        self.momentum_encoder = SPATIAL_ENCODER_CLASSES[config.spatial_encoder](config)
        self.momentum_projector = ComedianProjectionHead(config.hidden_size, settings.projector_sizes)
        self.make_queue(settings.queue_size, settings.projector_sizes[-1])
        self.post_init()
        self.train()

    def _momentum_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights of the momentum branch, and those of the online branch that they follow."""
        momentum = [*self.momentum_encoder.parameters(), *self.momentum_projector.parameters()]
        return momentum, [*self.comedian.spatial_encoder.parameters(), *self.projector.parameters()]

    def _momentum_buffers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Buffers of the momentum branch, such as a batch norm's statistics, and those of the online branch."""
        return zip(self.momentum_encoder.buffers(), self.comedian.spatial_encoder.buffers(), strict=True)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Also start the momentum branch as a copy; weights that a checkpoint brought stay as they are."""
        super()._init_weights(module)
        # the model itself comes after its modules, so the online branch is settled
        if module is self:
            for target, source in [*zip(*self._momentum_pairs(), strict=True), *self._momentum_buffers()]:
                init.copy_(target, source)

    def reset_momentum_branch(self) -> None:
        """Make the momentum branch a copy of the online one."""
        self.update_momentum_branch(0.0)

    @torch.no_grad()
    def update_momentum_branch(self, ema_momentum: float) -> None:
        """Move the momentum branch to `ema_momentum * itself + (1 - ema_momentum) * online`, after an optimizer step."""
        momentum, online = self._momentum_pairs()
        torch._foreach_lerp_(momentum, online, 1.0 - ema_momentum)
        for target, source in self._momentum_buffers():
            target.copy_(source)

    def train(self, mode: bool = True):
        """Set the mode; the momentum branch stays deterministic and, with the temporal encoder, without gradients.

        Loading replaces parameters by ones that require gradients, and ends with a call of this method.
        """
        super().train(mode)
        for frozen in (self.momentum_encoder, self.momentum_projector):
            frozen.eval().requires_grad_(False)
        self.comedian.temporal_encoder.requires_grad_(False)
        return self

    def encode_clips(self, pixel_values_videos: Tensor) -> Tensor:
        """Spatial tokens `(batch_size, hidden_size)` of clips of one tubelet each, as [`forward`] takes them."""
        return self.comedian.encode_spatial(self._one_tubelet(pixel_values_videos))[:, 0]

    def _one_tubelet(self, clips: Tensor) -> Tensor:
        if clips.ndim != 5 or clips.shape[1] != self.config.tubelet_size:
            raise ValueError(
                f"clips have the shape {tuple(clips.shape)}; they must be (batch, {self.config.tubelet_size}, channels, "
                "height, width): one tubelet each"
            )
        return clips

    @torch.no_grad()
    def compute_keys(self, clips: Tensor) -> Tensor:
        """Momentum embeddings of clips, `(batch_size, dim)`, L2-normalised."""
        return F.normalize(self.momentum_projector(self.momentum_encoder(self._one_tubelet(clips))).float(), dim=1)

    def compute_queries(self, clips: Tensor) -> Tensor:
        """Online predictions for clips, `(batch_size, dim)`, L2-normalised."""
        return self.project_queries(self.encode_clips(clips))

    def project_queries(self, clip_tokens: Tensor) -> Tensor:
        """Online predictions for spatial tokens `(batch_size, hidden_size)`, `(batch_size, dim)`, L2-normalised."""
        return F.normalize(self.predictor(self.projector(clip_tokens)).float(), dim=1)

    def compute_contrastive_loss(self, queries: Tensor, keys: Tensor, first_key: int = 0) -> Tensor:
        """Loss of both ways.

        Args:
            queries (`torch.Tensor` of shape `(2, batch_size, dim)`): of both views.
            keys (`torch.Tensor` of shape `(2, num_keys, dim)`): of both views, of all processes.
            first_key (`int`): index in a view's keys of the first query's own.

        Returns:
            `torch.Tensor` of shape `()`.
        """
        settings = self.config.contrastive_settings
        ways = [
            soft_contrastive_loss(
                query,
                key,
                self.queue,
                temperature=settings.temperature,
                momentum_temperature=settings.momentum_temperature,
                contrastive_weight=settings.contrastive_weight,
                use_batch_keys=settings.use_batch_keys,
                first_key=first_key,
            )
            for query, key in zip(queries, keys.flip(0), strict=True)
        ]
        return torch.stack(ways).mean()

    @can_return_tuple
    def forward(
        self, pixel_values_videos: Tensor, second_view: Tensor | None = None, **kwargs: Unpack[ComedianKwargs]
    ) -> ComedianContrastiveOutput:
        """Embed clips; with a second view of each, compare the views with each other and the queue.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, tubelet_size, channels, height, width)`): normalised
                pixels of clips of one tubelet.
            second_view (`torch.Tensor` of the same shape, *optional*): the same clips, augmented otherwise.
            kwargs: `output_hidden_states` and `output_attentions`.

        Returns:
            [`ComedianContrastiveOutput`]

        Raises:
            ValueError: clips of another length or size.
        """
        views = [pixel_values_videos] if second_view is None else [pixel_values_videos, second_view]
        clips = torch.cat(views)
        wanted = kwargs.get("output_hidden_states", self.config.output_hidden_states) or False
        encoded = self.comedian.forward_spatial(
            self._one_tubelet(clips),
            output_hidden_states=False,
            output_attentions=False,
            output_spatial_hidden_states=wanted is not False,
            output_spatial_attentions=kwargs.get("output_attentions", self.config.output_attentions),
            return_dict=True,
        )
        recorded = {
            "hidden_states": keep_layers(encoded.spatial_hidden_states, wanted),
            "attentions": encoded.spatial_attentions,
        }
        queries = self.project_queries(encoded.spatial_tokens[:, 0]).unflatten(0, (len(views), -1))
        keys = self.compute_keys(clips).unflatten(0, (len(views), -1))
        if second_view is None:
            return ComedianContrastiveOutput(query_embeddings=queries, key_embeddings=keys, **recorded)
        (first_keys, first_key), (second_keys, _) = map(gather_keys, keys)
        all_keys = torch.stack([first_keys, second_keys])
        if self.training:
            self.hold_keys(all_keys)
        return ComedianContrastiveOutput(
            loss=self.compute_contrastive_loss(queries, all_keys, first_key),
            query_embeddings=queries,
            key_embeddings=keys,
            **embedding_diagnostics(queries.flatten(0, 1), keys.flip(0).flatten(0, 1), self.queue),
            **recorded,
        )


class ComedianForFeatureDistillation(ComedianQueuedPreTrainedModel):
    """Stage 2: contrastive distillation: each temporal token is matched with the teacher's features of its own second."""

    def __init__(self, config: ComedianConfig):
        super().__init__(config)
        if config.distillation_config is None:
            config.distillation_config = ComedianDistillationConfig()
        settings = config.distillation_settings
        self.comedian = ComedianModel(config)
        self.projector = ComedianProjectionHead(config.hidden_size, settings.projector_sizes)
        self.make_queue(settings.queue_size, settings.projector_sizes[-1])
        self.post_init()

    def start_temporal_encoder(self) -> None:
        """Start the temporal layers and norm as copies of the spatial ones, if `config.copies_spatial_layers` is true.

        For a model whose spatial encoder comes from stage 1 and whose temporal encoder was never trained.
        """
        if not self.config.copies_spatial_layers:
            return
        spatial, temporal = self.comedian.spatial_encoder, self.comedian.temporal_encoder
        for target, source in zip(temporal.layers, spatial.layers, strict=False):
            target.load_state_dict(source.state_dict())
        temporal.norm.load_state_dict(spatial.norm.state_dict())

    def compute_distillation_loss(
        self, tokens: Tensor, features: Tensor, all_features: Tensor, first_window: int = 0
    ) -> Tensor:
        """Loss of the configuration, see [`token_contrastive_loss`]."""
        settings = self.config.distillation_settings
        return token_contrastive_loss(
            tokens,
            features,
            self.queue,
            temperature=settings.temperature,
            momentum_temperature=settings.momentum_temperature,
            contrastive_weight=settings.contrastive_weight,
            negatives=settings.negatives,
            positive_radius=settings.positive_radius,
            use_aligned=settings.use_aligned,
            all_features=all_features,
            first_window=first_window,
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor,
        teacher_features: Tensor | None = None,
        kept_tubelets: Tensor | None = None,
        **kwargs: Unpack[ComedianKwargs],
    ) -> ComedianDistillationOutput:
        """Project every token of windows of video; with a teacher's features, compare.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(batch_size, num_frames, channels, height, width)`): normalised
                pixels of at most one window.
            teacher_features (`torch.Tensor` of shape `(batch_size, num_tokens, dim)`, *optional*): of each token's second;
                `dim` is the projector's last size. They are L2-normalised here.
            kept_tubelets (`torch.LongTensor` of shape `(batch_size, num_kept)`, *optional*): see [`ComedianModel`].
            kwargs: see [`ComedianModel`].

        Returns:
            [`ComedianDistillationOutput`]

        Raises:
            ValueError: features of another shape than the projected tokens.
        """
        outputs = self.comedian(pixel_values_videos, kept_tubelets=kept_tubelets, return_dict=True, **kwargs)
        tokens = F.normalize(self.projector(outputs.last_hidden_state).float(), dim=2)
        if teacher_features is None:
            return ComedianDistillationOutput(token_embeddings=tokens, **outputs)
        if teacher_features.shape != tokens.shape:
            raise ValueError(
                f"`teacher_features` has the shape {tuple(teacher_features.shape)}; the projected tokens have "
                f"{tuple(tokens.shape)}: reduce the features or change `projector_sizes`"
            )
        features = F.normalize(teacher_features.detach().float(), dim=2)
        all_features, first_window = gather_keys(features)
        if self.training:
            self.hold_keys(all_features.flatten(0, 1)[None])
        return ComedianDistillationOutput(
            loss=self.compute_distillation_loss(tokens, features, all_features, first_window),
            token_embeddings=tokens,
            **outputs,
            **embedding_diagnostics(tokens.flatten(0, 1), features.flatten(0, 1), self.queue),
        )


__all__ = ["ComedianForContrastivePretraining", "ComedianForFeatureDistillation"]
