"A little labelled set that a small network learns in seconds, prepared as a run: grey noise against the same with a fine stripe."

from pathlib import Path
import numpy as np
from PIL import Image
from fakeface.data.audit import audit
from fakeface.core.labels import LABEL_NAMES
from fakeface.core.seeds import rng
from fakeface.core.files import write_json
from fakeface.data.manifest import build_manifest, write_manifest
from fakeface.data.sources import scan

SMALL = dict(
    preset="demo",
    domains="",
    arch="test_resnet",
    weights="none",
    init="none",
    size=32,
    batch=16,
    precision="fp32",
    channels_last=False,
    workers=0,
    lr=2e-3,
    dropout=0.0,
    epochs=3,
    light_epochs=0,
    bn_batches=4,
    mixup=0.2,
    device="cpu",
)


def pictures(root: Path, n: int = 48, size: int = 40) -> Path:
    "`{domain}/{train,valid,test}/{real,fake}/*.png` below `root`."
    for domain, pattern in (("stripes", lambda i: i[0]), ("dots", lambda i: i.sum(0))):
        for split, k in (("train", n), ("valid", n // 2), ("test", n // 2)):
            for label, name in enumerate(LABEL_NAMES):
                (folder := root / domain / split / name).mkdir(parents=True)
                for i in range(k):
                    x = rng(domain, split, label, i).normal(128, 30, (size, size)) + label * 45 * (
                        pattern(np.indices((size, size))) % 8 < 4
                    )
                    Image.fromarray(np.repeat(x.clip(0, 255).astype(np.uint8)[..., None], 3, 2)).save(
                        folder / f"{i}.png"
                    )
    return root


def prepared(out: Path, run: str = "toy", **kw) -> Path:
    "A run whose `prepare` stage stands as the stage itself would leave it; gives the run's folder."
    folder = out / run / "prepare"
    pictures(folder / "dataset", **kw)
    manifest = build_manifest(scan("tree", folder / "dataset", "toy"), folder, workers=0)
    write_manifest(manifest, folder / "manifest.parquet")
    write_json(folder / "audit.json", audit(manifest))
    return out / run
