"""A corpus of files that nobody should trust: the same bytes for a seed. Names say what is wrong with each."""

import base64
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file, save, save_file

from video_factory import draw_frame, note_turn, truncate, write_video

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{above}'] * 9)}]\n" for above, name in zip("abcdefgh", "bcdefghi")
)
DEEP = "[" * 20_000


class RunsCode:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def flip_bits(content: bytes, random: Random, count: int, begin: int = 0) -> bytes:
    """Turn over `count` bits from the byte `begin` on."""
    content = bytearray(content)
    for _ in range(count):
        content[random.randrange(begin, len(content))] ^= 1 << random.randrange(8)
    return bytes(content)


def bad_videos(folder: Path, seed: int) -> dict[str, bytes]:
    """What is no video, though its name says so."""
    random, good = Random(seed), write_video(folder / "good.mp4", 30)
    sound = write_video(folder / "sound.mkv", 5, audio_s=0.5)
    only_sound = _sound_alone(sound)
    picture = io.BytesIO()
    Image.fromarray(draw_frame(3)).save(picture, "png")
    return {
        "empty": b"",
        "header cut off": truncate(good, 0.4).read_bytes(),
        "text": b"no video at all\n" * 50,
        "noise": random.randbytes(5000),
        "zip": zip_of({"a": b"b"}),
        "only sound": only_sound,
        "playlist that leads out": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "list that leads out": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "header of zeros": b"\x1a\x45\xdf\xa3" + bytes(2000),
    }


def lists(other: Path, address: str) -> dict[str, bytes]:
    """Lists in formats that FFmpeg knows, each of one good video: the file `other`, or what a server has at `address`."""
    places = {
        "HTTP": address,
        "TCP": address.replace("http", "tcp"),
        "beside it": other.name,
        "absolute": str(other),
        "file": other.as_uri(),
        "subfile": f"subfile,,start,0,end,0,,:{other}",
        "concat": f"concat:{other}|{other}",
        "data": f"data:video/mp2t;base64,{base64.b64encode(other.read_bytes()).decode()}",
    }
    end = "#EXT-X-ENDLIST"
    forms = {
        "HLS": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n%s\n{end}\n",
        "HLS of HLS": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n%s\n",
        "key of HLS": f'#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXT-X-KEY:METHOD=AES-128,URI="%s"\n#EXTINF:3,\n{other}\n{end}\n',
        "concat": "ffconcat version 1.0\nfile '%s'\n",
        "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT3S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1" bandwidth="1" codecs="avc1"><BaseURL>%s</BaseURL><SegmentBase/>'
        "</Representation></AdaptationSet></Period></MPD>",
        "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\na=control:%s\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "QuickTime": "<?xml version='1.0'?><?quicktime type='application/x-quicktime-media-link'?><embed src='%s'/>",
    }
    return {
        f"{form} {place}": (text % where).encode() for form, text in forms.items() for place, where in places.items()
    }


def damaged_videos(folder: Path, seed: int) -> dict[str, bytes]:
    """Videos of which some can be decoded, or nothing: either is right, nothing else."""
    random, files = Random(seed), {}
    for ending in ("mkv", "mp4", "ts", "avi"):
        content = write_video(folder / f"whole.{ending}", 30).read_bytes()
        files |= {
            f"bits flipped {number} {ending}": flip_bits(content, random, 2 ** (2 * number)) for number in range(4)
        }
        files[f"cut off {ending}"] = content[: int(len(content) * random.uniform(0.3, 0.9))]
    return files


def odd_videos(folder: Path) -> dict[str, Path]:
    """Good videos that are not what one expects."""
    picture = folder / "picture.mkv"
    Image.fromarray(draw_frame(3)).save(picture, "png")
    return {
        "one frame": write_video(folder / "one.mkv", 1),
        "odd sides": write_video(folder / "odd.mkv", 12, height=33, width=57, pixel_format="yuv444p"),
        "turned": note_turn(write_video(folder / "turned.mp4", 12), 1),
        "variable rate": write_video(folder / "variable.mkv", times_s=[0, 0.1, 0.5, 0.55, 1.3]),
        "negative start": write_video(folder / "negative.ts", 12, start_s=-1.0),
        "many frames per second": write_video(folder / "fast.mkv", 12, fps=500),
        "a picture": picture,
        "1 & <b>.mkv": write_video(folder / "1 & <b>.mkv", 12),
    }


def _sound_alone(video: Path) -> bytes:
    import av

    target = video.with_name("only.mka")
    with av.open(str(video)) as source, av.open(str(target), "w", format="matroska") as alone:
        stream = alone.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = stream
                alone.mux(packet)
    return target.read_bytes()


def bad_json(good: dict, entries: str, fields: tuple[str, ...]) -> dict[str, bytes]:
    """A good file of events with one thing wrong; `entries` is the name of the list, `fields` what an entry must have."""
    files = {
        "empty": b"",
        "half of it": json.dumps(good).encode()[:-20],
        "no UTF-8": b"\xff\xfe{}",
        "zero bytes": bytes(100),
        "deep": DEEP.encode(),
        "deep in an entry": json.dumps(good)[:-1].encode() + b', "x": ' + b"[" * 60 + b"]" * 60 + b"}",
        "another thing": b"[1, 2]",
        "number": b"1e999",
        "long number": b"9" * 5000,
        "no list": json.dumps(good | {entries: {"a": 1}}).encode(),
        "entry that is none": json.dumps(good | {entries: [7]}).encode(),
    }
    for field in fields:
        for name, value in {
            "none": None,
            "NaN": float("nan"),
            "infinite": float("inf"),
            "negative": -5,
            "huge": 10**400,
            "list": [[]],
            "long list": [0] * 5000,
            "half a character": "\ud800",
            "escape": "\x1b[2J",
        }.items():
            entry = good[entries][0] | {field: value}
            files[f"{field} {name}"] = json.dumps(good | {entries: [entry]}).encode()
        entry = {key: value for key, value in good[entries][0].items() if key != field}
        files[f"{field} missing"] = json.dumps(good | {entries: [entry]}).encode()
    return files


def bad_csvs() -> dict[str, bytes]:
    """Files of events that a spreadsheet, or somebody else, may write."""
    head = b"video,label,time_s\n"
    rows = {
        "time NaN": b"a.mp4,Goal,nan",
        "time negative": b"a.mp4,Goal,-3",
        "time huge": b"a.mp4,Goal," + b"9" * 400,
        "clock huge": b"a.mp4,Goal," + b"9" * 400 + b":00:00",
        "no label": b"a.mp4,,3",
        "zero byte": b"a.mp4,Go\0al,3",
        "escape": b"a.mp4,Go\x1b[2Jal,3",
        "two lines": b'a.mp4,"Go\nal",3',
        "escape in a name": b"a\x1b[2J.mp4,Goal,3",
        "leads out": b"../../a.mp4,Goal,3",
        "root": b"/etc/passwd,Goal,3",
        "long name": b"x" * 5000 + b".mp4,Goal,3",
        "no such video": b"b.mp4,Goal,3",
        "after the end": b"a.mp4,Goal,3000",
        "twice": b"a.mp4,Goal,1\na.mp4,Goal,1",
        "long field": b"a.mp4," + b"x" * 200_000 + b",3",
        "no event": b"a.mp4",
        "decimal comma": b"a.mp4,Goal,1,5",
    }
    files = {name: head + row + b"\n" for name, row in rows.items()}
    return files | {
        "empty": b"",
        "UTF-16": (head + b"a.mp4,Goal,1\n").decode().encode("utf-16")[:-1],
        "no encoding": head + b"a.mp4,G\x81al,1\n",
        "doubled column": b"video,label,time_s,time_s\na.mp4,Goal,1,2\n",
        "open quote": head + b'a.mp4,"Goal,1\n',
        "other columns": b"file,what,when\na.mp4,Goal,1\n",
        "binary": bytes(range(256)) * 4,
    }


def bad_events() -> dict[str, tuple[str, str, bytes]]:
    """Files of events of every format with one thing wrong: format, ending, content."""
    event, annotation = {"label": "Goal"}, {"label": "Goal", "gameTime": "1 - 00:05", "position": "5000"}
    video = {"video": "a.mp4", "fps": 25.0}

    def of_json(**fields):
        return {"labels": [], "videos": [video | {"events": [event | {"time_s": 1} | fields]}]}

    def of_e2e(of_event: dict, **fields):
        return [video | {"num_frames": 50, "events": [event | {"frame": 5} | of_event]} | fields]

    def of_osl(of_event: dict, **fields):
        entry = {"inputs": [{"type": "video", "path": "a.mp4"}], "events": [event | {"position_ms": 5} | of_event]}
        return {"data": [entry | fields]}

    odd = (None, True, -5, float("nan"), float("inf"), 10**400, 2**70, [[]], {"a": 1}, "x", "9" * 400, "\ud800")
    trees = {
        "json": [of_json(time_s=value) for value in odd]
        + [of_json(label=value) for value in odd[:9]]
        + [{"videos": value} for value in odd]
        + [{"videos": [{"video": value}]} for value in odd[:9]]
        + [{"videos": [video | {"half": value}]} for value in odd[1:]]
        + [{"videos": [video | {"duration_s": value}]} for value in odd[1:]]
        + [{"videos": [video], "labels": ["a", "a"]}, {"videos": [video], "labels": [1]}],
        "soccernet": [{"annotations": value} for value in odd]
        + [{"annotations": [annotation | {"position": value}]} for value in odd]
        + [{"annotations": [annotation | {"gameTime": value}]} for value in odd]
        + [{"annotations": [annotation | {"visibility": value}]} for value in odd]
        + [{"annotations": [annotation], "UrlLocal": "\x1b[2J"}],
        "e2e-spot": [of_e2e({"frame": value}) for value in odd]
        + [of_e2e({"label": value}) for value in odd[:9]]
        + [of_e2e({}, fps=value) for value in odd if value is not True]
        + [of_e2e({}, num_frames=value) for value in odd[1:]]
        + [of_e2e({}, events=value) for value in odd],
        "osl": [of_osl({"position_ms": value}) for value in odd]
        + [of_osl({"label": value}) for value in odd[:9]]
        + [of_osl({"confidence": value}) for value in odd[1:] if value not in (-5, 2**70)]
        + [of_osl({}, inputs=value) for value in odd]
        + [of_osl({}, inputs=[{"path": value}]) for value in odd[:9]]
        + [of_osl({}, inputs=[{"path": "\x1b[2J"}])]
        + [of_osl({}, events=value) for value in odd]
        + [{"data": [], "labels": {"action": value}} for value in odd[1:] if value != {"a": 1}]
        + [{"data": value} for value in odd],
    }
    trees["soccernet-ball"] = trees["soccernet"]
    files = {
        f"{source} {number} {str(tree)[:120]}": (source, "json", json.dumps(tree).encode())
        for source, listed in trees.items()
        for number, tree in enumerate(listed)
    }
    other = {
        "empty": b"",
        "binary": bytes(range(256)),
        "deep": DEEP.encode(),
        "number": b"7",
        "zip": zip_of({"a": b"b"}),
    }
    for source in ("csv", *trees):
        files |= {f"{source} {name}": (source, "csv", content) for name, content in other.items()}
    return files


def bad_yamls() -> dict[str, bytes]:
    """Recipes that are none."""
    return {
        "empty": b"",
        "aliases": ALIASES.encode(),
        "aliases in a section": b"model: &a {config: x}\ndata: *a\n",
        "deep": DEEP.encode(),
        "code": b"model: !!python/object/apply:os.mkdir [canary]\n",
        "no day": b"model: 2001-02-31\n",
        "list": b"- 1\n",
        "binary": bytes(range(256)),
        "section that is a number": b"model: 7\n",
        "unknown field": b"model: {nonsense: 1}\n",
        "number for a path": b"model: {config: 7}\n",
        "leads nowhere": b"model: {config: nowhere.json}\n",
        "training that is a list": b"model: {config: config.json}\ntraining: [1]\n",
        "keys that are numbers": b"model: {config: config.json}\ntraining: {1: 2}\n",
    }


def zip_of(members: dict[str, bytes]) -> bytes:
    """A zip of some files; a name that ends in `->` makes a link."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            entry = zipfile.ZipInfo(name.removesuffix("->"))
            entry.compress_type = zipfile.ZIP_DEFLATED
            if name.endswith("->"):
                entry.external_attr = 0o120777 << 16
            archive.writestr(entry, member)
    return content.getvalue()


def two_of_a_name(name: str, content: bytes) -> bytes:
    """A zip of two files of one name, of which readers take the first or the last."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(name, content)
        archive.writestr(name, content)
    return file.getvalue()


def bad_zips(match: str, file_name: str, good: bytes) -> dict[str, bytes]:
    """Zips of predictions that lead out, are cut off, encrypted or grow without end."""
    whole = zip_of({f"{match}/{file_name}": good})
    encrypted = bytearray(whole)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.index(signature) + offset] |= 1
    return {
        "empty": b"",
        "cut off": whole[:-30],
        "bits flipped": flip_bits(whole, Random(0), 30, begin=40),
        "leads out": zip_of({f"../../{file_name}": good}),
        "link": zip_of({f"{match}/{file_name}->": b"/etc/passwd"}),
        "bomb": zip_of({f"{match}/{file_name}": good + b" " * (65 * 2**20)}),
        "encrypted": bytes(encrypted),
        "no JSON": zip_of({f"{match}/{file_name}": b"nothing"}),
        "deep": zip_of({f"{match}/{file_name}": DEEP.encode()}),
        "no member": zip_of({}),
        "member twice": two_of_a_name(f"{match}/{file_name}", good),
        "two spellings of a member": zip_of({f"{match}/{file_name}": good, f"./{match}//{file_name}": good}),
    }


def pickles(canary: Path) -> dict[str, bytes]:
    """Checkpoints that are none, two of which would make the folder `canary` if they were trusted."""
    saved = io.BytesIO()
    torch.save({"state_dict": RunsCode(canary)}, saved)
    bare = io.BytesIO()
    torch.save([1, 2], bare)
    return {
        "pickle with code": pickle.dumps(RunsCode(canary)),
        "checkpoint with code": saved.getvalue(),
        "no tensors": bare.getvalue(),
        "cut off": saved.getvalue()[:-50],
        "empty": b"",
        "text": b"nothing",
    }


def bad_models(good: Path, folder: Path, canary: Path) -> dict[str, Path]:
    """Copies of a model's folder with something wrong with its configuration or weights."""
    models = {}

    def spoil(name: str, spoiler: Callable[[Path], None]) -> None:
        copy = folder / name
        copy.mkdir(parents=True)
        for file in good.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        spoiler(copy)
        models[name] = copy

    def config(**fields):
        def write(path: Path) -> None:
            content = json.loads((path / "config.json").read_text()) | fields
            (path / "config.json").write_text(json.dumps(content))

        return write

    def weights(change: Callable[[dict], dict]):
        def write(path: Path) -> None:
            save_file(change(load_file(path / "model.safetensors")), path / "model.safetensors", {"format": "pt"})

        return write

    def content(name: str, data: bytes):
        return lambda path: (path / name).write_bytes(data)

    spoil("no configuration", lambda path: (path / "config.json").unlink())
    spoil("broken configuration", content("config.json", b"{"))
    spoil("configuration of zeros", content("config.json", bytes(50)))
    spoil("deep configuration", content("config.json", DEEP.encode()))
    spoil("wide", config(spatial_hidden_size=10**12))
    spoil("endless", config(temporal_depth=10**9))
    spoil("long window", config(num_frames=10**12))
    spoil("huge number", config(fps=10**400))
    spoil("huge stride", config(window_stride_s=10**400))
    spoil("type that is a list", config(dtype=[1]))
    spoil("NaN", config(fps=float("nan")))
    spoil("text for a size", config(patch_size="x"))
    spoil("unknown type", config(dtype="nonsense"))
    spoil("labels in a list", config(id2label=["a", "b", "c"]))
    spoil("label twice", config(id2label={"0": "a", "1": "a", "2": "b"}))
    spoil("label with an escape", config(id2label={"0": "\x1b[2J", "1": "a", "2": "b"}))
    spoil("another model", config(model_type="bert"))
    spoil("weights of another shape", config(spatial_hidden_size=32))
    spoil("no weights", lambda path: (path / "model.safetensors").unlink())
    spoil("empty weights", content("model.safetensors", b""))
    spoil("weights of text", content("model.safetensors", b"nothing" * 20))
    spoil("weights with a huge header", content("model.safetensors", struct.pack("<Q", 2**62) + b"{}"))
    spoil("weights cut off", lambda path: truncate(path / "model.safetensors", 0.5))
    spoil("weights of other names", weights(lambda tensors: {f"x.{name}": value for name, value in tensors.items()}))
    spoil("a weight of another shape", weights(lambda tensors: {n: v.reshape(-1) for n, v in tensors.items()}))

    def pickled(path: Path) -> None:
        (path / "model.safetensors").unlink()
        torch.save({"x": RunsCode(canary)}, path / "pytorch_model.bin")

    spoil("weights with code", pickled)
    return models


def bad_scores(good: bytes, shape: tuple[int, int]) -> dict[str, bytes]:
    """Files of scores, or of features, that are none; `good` is a safetensors file with `shape` tensors."""
    length = struct.unpack("<Q", good[:8])[0]
    header = json.loads(good[8 : 8 + length])
    words = header["__metadata__"]
    [name] = set(header) - {"__metadata__"}

    def of(array: np.ndarray, **changed: str) -> bytes:
        return save({name: array}, words | changed)

    plain = np.full(shape, 0.5, np.float32)
    files = {
        "empty": b"",
        "cut off": good[: len(good) // 2],
        "text": b"nothing",
        "huge header": struct.pack("<Q", 2**62) + good[8:],
        "other axes": of(plain.reshape(-1)),
        "whole numbers": of(plain.astype(np.int32)),
        "no rows": of(plain[:0]),
        "other format": of(plain, format="x"),
        "no metadata": save({name: plain}),
    }
    for value in (np.nan, np.inf):
        spoiled = plain.copy()
        spoiled[:, -1] = value
        files[f"a value is {value}"] = of(spoiled)
    return files
