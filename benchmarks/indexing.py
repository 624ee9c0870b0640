"""Pictures a second: the daemon beside a plain loop, and beside what this machine could do at best.

    python benchmarks/indexing.py                       # 100 photos of eleven megapixels, ViT-B-16
    python benchmarks/indexing.py --small --json result.json

Four measurements in one run, one after the other, on the same made-up photos and the same made-up weights
(speed does not depend on what weights are):

- *plain loop*: open, convert, OpenCLIP's own transform, fp32, one picture at a time, EXIF by exifread: what a
  script does. A few pictures are enough for its rate.
- *decode alone*: what a decoder process does with a picture, one after the other in one process.
- *model alone*: batches of random pixels, in the dtype that the daemon chooses; the best of some sizes.
- *daemon*: from `root add` to the end of `wait`, its model loaded before.

The limit is `1 / (decode alone / cores + model alone)`: as if decoding took all cores, then the model all of
them, with no gap between. Compare rates with each other, not with those of another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

from photos import SIZES, draw_photos, made_up_model
from report import apart, measured, say, timed

MODEL_BATCHES = (4, 8, 16, 32)
MODEL_SECONDS = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--small", action="store_true", help="pictures of 640 x 480 instead of 4000 x 2750")
    parser.add_argument("--architecture", default="ViT-B-16")
    parser.add_argument("--loop", type=int, default=20, help="how many of them the plain loop is given")
    parser.add_argument("--rounds", type=int, default=3, help="runs of the daemon; the median counts")
    measured(parser, measure, print_rates)


def measure(home: str, wanted: argparse.Namespace) -> dict[str, Any]:
    checkpoint, gallery = os.path.join(home, "model"), os.path.join(home, "gallery")
    say("making a model…")
    apart(made_up_model, wanted.architecture, checkpoint)
    say("drawing photos…")
    paths = apart(draw_photos, gallery, wanted.pictures, SIZES["small" if wanted.small else "large"])
    result: dict[str, Any] = {
        "pictures": len(paths),
        "megabytes": sum(os.path.getsize(path) for path in paths) / 1e6,
        "cores": len(os.sched_getaffinity(0)),
    }
    say("plain loop…")
    result["loop"] = apart(plain_loop, checkpoint, paths[: wanted.loop])
    say("model alone…")
    result["model"] = apart(model_alone, checkpoint)
    say("decode alone…")
    result["decode"] = apart(decode_alone, checkpoint, paths)
    result["limit"] = 1 / (1 / result["decode"] / result["cores"] + 1 / result["model"]["rate"])
    rounds = []
    for number in range(wanted.rounds):
        say(f"daemon, round {number + 1}…")
        rounds.append(daemon(os.path.join(home, f"r{number}"), gallery, checkpoint))
    result["rounds"] = rounds
    result["daemon"] = statistics.median(each["rate"] for each in rounds)
    return result


def plain_loop(checkpoint: str, paths: list[str]) -> float:
    """Pictures a second, without loading and without the first picture."""
    import exifread
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    model.eval()

    def one(path: str) -> None:
        with open(path, "rb") as file:
            exifread.process_file(file, details=False)
        with Image.open(path) as image, torch.inference_mode():
            pixels = preprocess(image.convert("RGB")).unsqueeze(0)
            features = model.encode_image(pixels)
            (features / features.norm(dim=-1, keepdim=True)).numpy()

    one(paths[0])
    return len(paths) / timed(lambda: [one(path) for path in paths])[0]


def model_alone(checkpoint: str) -> dict[str, Any]:
    """The best batch size with its rate in pictures a second, and the dtype."""
    import numpy as np

    from imagedbd.openclip import OpenClip

    model = OpenClip(f"local-dir:{checkpoint}")
    side = model.info.preprocess
    rates = {}
    for size in MODEL_BATCHES:
        batch = np.random.default_rng(1).integers(
            255, size=(size, side.height, side.width, 3), dtype=np.uint8
        )
        model.embed_pictures(batch)
        started, done = time.perf_counter(), 0
        while time.perf_counter() - started < MODEL_SECONDS:
            model.embed_pictures(batch)
            done += size
        rates[size] = done / (time.perf_counter() - started)
    best = max(rates, key=lambda size: rates[size])
    return {"rate": rates[best], "batch": best, "rates": rates, "dtype": model.dtype, "device": model.device}


def decode_alone(checkpoint: str, paths: list[str]) -> float:
    """Pictures a second that one decoder process decodes, hash and metadata included."""
    from imagedbd.datatypes import Limits, Preprocess
    from imagedbd.decoder_worker import decode_file

    with open(os.path.join(checkpoint, "open_clip_config.json"), encoding="utf-8") as file:
        config = json.load(file)
    side = config["model_cfg"]["vision_cfg"]["image_size"]
    preprocess = Preprocess(side, side, mean=(0.5,) * 3, std=(0.5,) * 3)
    decode_file(paths[0], frozenset(), preprocess, Limits())
    seconds, _ = timed(lambda: [decode_file(path, frozenset(), preprocess, Limits()) for path in paths])
    return len(paths) / seconds


def daemon(home: str, gallery: str, checkpoint: str) -> dict[str, Any]:
    """Rate from the root's coming to the last picture's being searchable, and the memory of it all."""
    from private import PrivateDaemon

    with PrivateDaemon(home, f"local-dir:{checkpoint}") as private:
        private.client.load_model()
        started = time.perf_counter()
        private.cli("root", "add", gallery)
        private.client.wait()
        seconds = time.perf_counter() - started
        status = private.client.status()
        if status["failed"] or status["embeds_total"] != status["indexed"]:
            raise SystemExit(f"not all went well: {status}")
        return {
            "rate": status["indexed"] / seconds,
            "seconds": seconds,
            "peak_memory": private.peak_memory(),
        }


def print_rates(result: dict[str, Any]) -> None:
    loop, limit = result["loop"], result["limit"]
    model = result["model"]
    print(
        f"{result['pictures']} pictures, {result['megabytes']:.0f} MB, {result['cores']} cores, "
        f"{model['dtype']} on {model['device']}, batches of {model['batch']}"
    )
    rows = [
        ("plain loop, fp32", loop),
        ("decode alone, one process", result["decode"]),
        ("model alone", model["rate"]),
        ("limit", limit),
        ("daemon", result["daemon"]),
    ]
    print(f"{'':28}{'pictures/s':>12}{'of the loop':>14}{'of the limit':>14}")
    for name, rate in rows:
        print(f"{name:28}{rate:12.1f}{rate / loop:13.1f}x{rate / limit:13.0%}")
    peak = max(each["peak_memory"] for each in result["rounds"])
    print(f"memory of the daemon and its processes, at most: {peak / 1e6:.0f} MB (PSS)")


if __name__ == "__main__":
    main()
