"""Which windows of a half training draws, and the targets of their tokens.

Lengths, windows and starts are integers in one unit of the caller's choice, frames or tokens. A start is the index of a
window's first element. A half shorter than the window has the one start 0, and the caller pads.
"""

import numpy as np

from comedian.models.time_grid_comedian import (
    TIME_EPSILON_S,
    frame_timestamps_s,
    last_start,
    require_positive,
    token_timestamps_s,
)


def random_starts(length: int, window: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw jittered starts: one uniform start in each of `count` equal parts of the possible starts.

    Neighbours may overlap, and the seconds at the edges of a half are seen less often than its middle.

    Args:
        length (`int`): elements of the half.
        window (`int`): elements of a window.
        count (`int`): windows to draw; where the half has fewer possible starts, some are drawn more than once.
        rng (`np.random.Generator`): source of randomness.

    Returns:
        `np.ndarray` of shape `(count,)`, int64: ascending starts.

    Raises:
        ValueError: a value below 1.
    """
    require_positive(length=length, window=window, count=count)
    last = last_start(length, window)
    starts = ((np.arange(count) + rng.random(count)) * ((last + 1) / count)).astype(np.int64)
    return np.minimum(starts, last)  # the product may round up to last + 1


def edge_starts(length: int, window: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw starts as [`random_starts`] does, from a half longer by half a window at both ends, and move them inside.

    So the half's edges are in about as many windows as its middle. Few windows of [`random_starts`] hold the first seconds,
    and a model hardly ever sees the kick-off of a half.

    Args:
        length (`int`): elements of the half.
        window (`int`): elements of a window.
        count (`int`): windows to draw.
        rng (`np.random.Generator`): source of randomness.

    Returns:
        `np.ndarray` of shape `(count,)`, int64: ascending starts.

    Raises:
        ValueError: a value below 1.
    """
    require_positive(length=length, window=window, count=count)
    reach = window // 2
    starts = random_starts(length + 2 * reach, window, count, rng) - reach
    return np.clip(starts, 0, last_start(length, window))


def disjoint_starts(length: int, window: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw both edges of the half and, between them, windows that do not overlap each other.

    Source: COMEDIAN's stage 3, 25 windows per half: one at 0, one flush with the end, 23 at random starts at least half a
    window away from both. Every arrangement of these is equally likely. They may overlap the edges.

    A half with room for fewer windows is gone over again, with new arrangements, until there are `count`. With `count` 2
    there are the edges alone; with 1, a window at random, at the edges as often as elsewhere.

    Args:
        length (`int`): elements of the half.
        window (`int`): elements of a window.
        rng (`np.random.Generator`): source of randomness.
        count (`int`): windows to draw.

    Returns:
        `np.ndarray` of shape `(count,)`, int64: starts, the edges first.

    Raises:
        ValueError: a value below 1.
    """
    require_positive(length=length, window=window, count=count)
    last = last_start(length, window)
    if count == 1:
        return np.clip(rng.integers(-window, last + window, size=1, endpoint=True), 0, last)
    edges = np.unique([0, last])

    def arrange() -> np.ndarray:
        inner = _side_by_side(window // 2, last - (window + 1) // 2, window, count - len(edges), rng)
        return np.append(edges, inner)

    starts = arrange()
    while len(starts) < count:
        starts = np.append(starts, rng.permutation(arrange())[: count - len(starts)])
    return starts


def part_starts(length: int, window: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one window inside each of `count` equal parts of the half, so that no two overlap.

    Source: COMEDIAN's stage 2, 38 windows per half: a half of `D` is cut into parts of `D / 38`, and a window starts
    uniformly in `[0, D / 38 - window]` of its part.

    A half whose parts would be shorter than a window has no such arrangement; see [`disjoint_starts`] for what is drawn.

    Args:
        length (`int`): elements of the half.
        window (`int`): elements of a window.
        count (`int`): windows to draw.
        rng (`np.random.Generator`): source of randomness.

    Returns:
        `np.ndarray` of shape `(count,)`, int64: starts.

    Raises:
        ValueError: a value below 1.
    """
    require_positive(length=length, window=window, count=count)
    if count * window > length:
        return disjoint_starts(length, window, rng, count)
    # rounded down to whole elements: the first and the last start of each part
    first, last = np.arange(count) * length // count, np.arange(1, count + 1) * length // count - window
    return rng.integers(first, last, endpoint=True)


def _side_by_side(low: int, high: int, window: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` windows without overlap, or as many as fit, with starts in `[low, high]`; all arrangements are equally
    likely."""
    count = min(count, (high - low) // window + 1) if high >= low else 0
    room = max(high - low - (count - 1) * window, 0)
    # a choice of `count` of `room + count` places, less the places before each: how much of the room lies before it
    before = np.sort(rng.choice(room + count, size=count, replace=False)) - np.arange(count)
    return low + np.arange(count) * window + before


def token_targets(
    event_times_s: np.ndarray,
    event_labels: np.ndarray,
    num_tokens: int,
    num_labels: int,
    fps: float,
    tubelet_size: int,
    radius_s: float = 0.5,
    falloff_s: float = 0.0,
) -> np.ndarray:
    """Return the targets of a half: 1 where a frame of the token is within `radius_s` of an event of the label.

    Source: COMEDIAN's stage 3 (radius 0.5 s, closed interval; a token is the OR of its frames). Beyond the radius, targets
    may fall linearly; of several events, and of several frames, the highest target counts.

    Args:
        event_times_s (`np.ndarray` of shape `(num_events,)`, float): seconds from the first frame; any order, events
            outside the half count where they reach into it.
        event_labels (`np.ndarray` of shape `(num_events,)`, int): index of each event's label.
        num_tokens (`int`): tokens of the half.
        num_labels (`int`): labels.
        fps (`float`): frames per second.
        tubelet_size (`int`): frames of a token.
        radius_s (`float`, defaults to 0.5): seconds around an event.
        falloff_s (`float`, defaults to 0.0): seconds beyond the radius in which the target falls from 1 to 0.

    Returns:
        `np.ndarray` of shape `(num_tokens, num_labels)`, float32 in [0, 1].
    """
    times_s = np.asarray(event_times_s, dtype=np.float64)
    distances_s = np.abs(times_s[:, None] - frame_timestamps_s(num_tokens * tubelet_size, fps))
    # (num_events, num_tokens): a token's nearest frame
    beyond_s = distances_s.reshape(len(times_s), num_tokens, tubelet_size).min(axis=2) - radius_s - TIME_EPSILON_S
    heights = np.clip(1 - beyond_s / falloff_s, 0, 1) if falloff_s else beyond_s <= 0
    targets = np.zeros((num_labels, num_tokens), dtype=np.float32)
    np.maximum.at(targets, np.asarray(event_labels, dtype=np.int64), heights.astype(np.float32))
    return np.ascontiguousarray(targets.T)


def token_offsets_s(
    event_times_s: np.ndarray,
    event_labels: np.ndarray,
    num_tokens: int,
    num_labels: int,
    fps: float,
    tubelet_size: int,
    radius_s: float,
) -> np.ndarray:
    """Return how far the nearest event of each label lies from each token, where that is at most `radius_s`.

    Args:
        event_times_s (`np.ndarray` of shape `(num_events,)`, float): seconds from the first frame, any order.
        event_labels (`np.ndarray` of shape `(num_events,)`, int): index of each event's label.
        num_tokens (`int`): tokens of the half.
        num_labels (`int`): labels.
        fps (`float`): frames per second.
        tubelet_size (`int`): frames of a token.
        radius_s (`float`): the farthest that counts.

    Returns:
        `np.ndarray` of shape `(num_tokens, num_labels)`, float32: seconds from token to event, of two as near the later
        one's; NaN where none is near.
    """
    tokens_s = token_timestamps_s(num_tokens, fps, tubelet_size)
    offsets_s = np.full((num_tokens, num_labels), np.nan, dtype=np.float32)
    for label in np.unique(event_labels):
        times_s = np.sort(np.asarray(event_times_s, dtype=np.float64)[np.asarray(event_labels) == label])
        later = np.searchsorted(times_s, tokens_s)
        # before the first event and after the last one, both are the distance to it, with either sign
        before_s = tokens_s - times_s[np.maximum(later - 1, 0)]
        after_s = times_s[np.minimum(later, len(times_s) - 1)] - tokens_s
        nearest_s = np.where(after_s <= before_s, after_s, -before_s)
        near = np.abs(nearest_s) <= radius_s + TIME_EPSILON_S
        offsets_s[near, label] = nearest_s[near]
    return offsets_s
