"""Models on OpenVINO as `scoring` takes them, for CPUs and without torch: folders of `comedian export --format
openvino`."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import local
from types import ModuleType
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from comedian.errors import InputError
from comedian.inference.inference_config import InferenceConfig
from comedian.inference.model_names import FoundModel
from comedian.inference.scoring import MAX_WORKERS, Result, map_in_threads
from comedian.sharing import cores_of_process

SPATIAL_GRAPH, TEMPORAL_GRAPH = "spatial_encoder", "temporal_encoder"
# beside each `.xml`, the weights
GRAPH_SUFFIXES = (".xml", ".bin")
# tubelets of one run of the graph: of 1 to 16, the fewest CPU seconds a tubelet
TUBELETS_PER_RUN = 4
# tubelets that a thread is given at once
TUBELETS_PER_BATCH = 16


class OpenVinoModel:
    """A spotting model on OpenVINO, see `scoring.SpottingModel`; bfloat16 on CPUs with such instructions, else float32.

    Args:
        graphs: graph -> its `.xml`, with its `.bin` beside it.
        config: the model's.
        name: what to call it in messages.
        float32: compute in float32 also where bfloat16 is fast.

    Raises:
        InputError: OpenVINO is not installed, or a graph cannot be read.
    """

    def __init__(self, graphs: Mapping[str, Path], config: InferenceConfig, name: str, float32: bool = False):
        self.graphs, self.config, self.name = dict(graphs), config, name
        self.tubelets_per_batch = TUBELETS_PER_BATCH
        num_cores = cores_of_process()
        self.num_streams = min(num_cores, MAX_WORKERS)
        self.decoder_threads = max(1, num_cores // 4)
        self._core = import_openvino().Core()
        fast = not float32 and "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._options = {
            # a stream of its own threads for each batch: two of one thread beat one of two
            "NUM_STREAMS": self.num_streams,
            "INFERENCE_NUM_THREADS": num_cores,
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
            # the decoder needs the cores, too
            "ENABLE_CPU_PINNING": False,
        }
        if cache := cache_folder():
            self._options["CACHE_DIR"] = str(cache)
        size = [config.tubelet_size, *config.frame_size, 3]
        self._spatial = self._compile(SPATIAL_GRAPH, [TUBELETS_PER_RUN, *size])
        # for what is left of a batch, such as the tubelets of a stream as they come
        self._spatial_single = self._compile(SPATIAL_GRAPH, [1, *size])
        self._temporal = self._compile(TEMPORAL_GRAPH)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """See `scoring.FrameEncoder`.

        Raises:
            InputError: the frames have another size than the graph's.
        """
        config = self.config
        if frames.shape[1:3] != config.frame_size:
            height, width = config.frame_size
            raise InputError(
                f"`{self.name}` takes frames of {height} x {width} pixels, not {frames.shape[1]} x {frames.shape[2]}; scale "
                "them first, as `iter_frames` does"
            )
        tubelets = frames.reshape(-1, config.tubelet_size, *frames.shape[1:])
        whole = len(tubelets) - len(tubelets) % TUBELETS_PER_RUN
        runs = [
            self._spatial(tubelets[first : first + TUBELETS_PER_RUN]) for first in range(0, whole, TUBELETS_PER_RUN)
        ]
        runs += [self._spatial_single(tubelets[index : index + 1]) for index in range(whole, len(tubelets))]
        return np.concatenate([tokens for (tokens,) in runs])

    def encode_windows(self, windows: np.ndarray) -> np.ndarray:
        """See `scoring.FrameEncoder`."""
        return self._run_windows(windows, None)[0]

    def score(self, windows: np.ndarray, sound: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """See `scoring.SpottingModel`."""
        _, scores, *offsets_s = self._run_windows(windows, sound)
        return scores, offsets_s[0] if offsets_s else None

    def map(self, work: Callable[[np.ndarray], Result], batches: Iterable[np.ndarray]) -> Iterator[Result]:
        """See `scoring.FrameEncoder`."""
        return map_in_threads(work, batches, self.num_streams)

    def hash_weights(self) -> str:
        """Hash of the weights that the graphs were exported from, as of the model on PyTorch."""
        return self.config.other_fields["openvino"]["weights"]

    def fingerprint(self) -> str:
        """See `scoring.SpottingModel`: what was folded into the graphs, or rounded, is part of them."""
        digest = hashlib.sha256(self.config.to_json_string().encode())
        for path in self.graphs.values():
            for suffix in GRAPH_SUFFIXES:
                digest.update(path.with_suffix(suffix).read_bytes())
        return digest.hexdigest()

    def _run_windows(self, windows: np.ndarray, sound: np.ndarray | None) -> list[np.ndarray]:
        """Temporal tokens, scores, and displacements of a model that has them."""
        if not self.config.sound:
            return self._temporal(windows)
        if sound is None:
            # a window with a NaN has no sound
            sound = np.full((*windows.shape[:2], *self._temporal.shape_of(1)[2:]), np.nan, np.float32)
        return self._temporal(windows, sound)

    def _compile(self, name: str, shape: list[int] | None = None) -> "_Graph":
        path = self.graphs[name]
        try:
            graph = self._core.read_model(path)
            if shape is not None:
                graph.reshape(shape)
            return _Graph(self._core.compile_model(graph, "CPU", self._options))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"`{path}` cannot be loaded: {reason}; export the model again") from error


class _Graph:
    """A compiled graph that is called with arrays; each thread uses a separate inference request."""

    def __init__(self, compiled: Any):
        self.compiled, self.requests = compiled, local()

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self.requests, "own"):
            self.requests.own = self.compiled.create_infer_request()
        found = self.requests.own.infer([np.ascontiguousarray(array) for array in arrays])
        # the request's memory is written again by the next run
        return [found[index].copy() for index in range(len(self.compiled.outputs))]

    def shape_of(self, index: int) -> list[int]:
        """Sizes of an input; -1 where they are free."""
        shape = self.compiled.input(index).get_partial_shape()
        return [size.get_length() if size.is_static else -1 for size in shape]


def load_openvino_model(found: FoundModel, device: Any = None, float32: bool = False) -> OpenVinoModel:
    """Load a model that `find_models` found.

    Args:
        found: a folder, or a repository, of `comedian export --format openvino`.
        device: `None` or `cpu`.
        float32: compute in float32 also where bfloat16 is fast.

    Raises:
        InputError: another device, a missing file or package, or a graph or configuration that cannot be read.
    """
    if device is not None and str(device) != "cpu":
        raise InputError(
            f"`{found.name}` holds OpenVINO graphs, which run on the CPU; device `{device}`: give cpu, or none"
        )
    import_openvino()
    try:
        config = InferenceConfig.from_dict(found.config)
        config.other_fields["openvino"]["weights"]
    except (StrictDataclassError, KeyError, TypeError) as error:
        raise InputError(f"`{found.name}` has a broken config.json: {str(error).splitlines()[-1].strip()}") from error
    graphs = {}
    for name in (SPATIAL_GRAPH, TEMPORAL_GRAPH):
        graph, constants = (found.find(name + suffix) for suffix in GRAPH_SUFFIXES)
        if graph is None or constants is None:
            lacking = GRAPH_SUFFIXES[0 if graph is None else 1]
            raise InputError(f"`{found.name}` lacks {name}{lacking}; export the model again")
        graphs[name] = graph
    return OpenVinoModel(graphs, config, found.name, float32)


def cache_folder() -> Path | None:
    """Where compiled graphs are kept, in the user's cache; `None` where nothing can be written there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comedian" / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


@contextmanager
def unreported() -> Iterator[None]:
    """Have OpenVINO and NNCF send no statistics of use, of an import either; they do except in CI, and wait when offline."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        del os.environ["CI"]
        if before is not None:
            os.environ["CI"] = before


def import_openvino() -> ModuleType:
    """OpenVINO, imported when a model needs it.

    Raises:
        InputError: it is not installed.
    """
    try:
        with unreported():
            import openvino
    except ImportError as error:
        raise InputError('OpenVINO is not installed; `pip install "comedian[openvino]"`') from error
    return openvino
