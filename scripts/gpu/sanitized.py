"""A short run of nano that compute-sanitizer looks on: `python -m gpu.sanitized ENGINE [DEVICE]`."""

import sys
from collections import Counter

from gpu import bare, plan
from gpu.processes import die_with_parent


def main() -> None:
    die_with_parent()  # compute-sanitizer is between this and the task
    bare.stand_in()
    import numpy as np

    from gpu import networks
    from sfm_match.job.progress import Clock
    from sfm_match.matching.on_device import BlockMatcher
    from sfm_match.store.features import Features

    name = plan.NANO_MODEL
    device = sys.argv[2] if len(sys.argv) > 2 else "cuda"
    settings = plan.Settings(device, True, (name,), (128,), (1, 2), (256,), 256, 0.1)
    work = plan.Work(settings, sys.argv[1], name, set(), print)
    loaded = networks.images((192, 128), 2, 64, padded=True)
    extractor = networks.extractor(work, name, half=work.cuda, batch=2, buckets=Counter({(192, 128): 2}))
    for _ in range(2):
        found = extractor.features(loaded, Clock())
    views = [one.descriptors for one in found.values() if isinstance(one, Features)]
    engine = networks.runtime(work.engine, settings)
    matcher = BlockMatcher(engine, 0.01, 20.0, images=2, keypoints=256, dimension=64)
    pairs = np.array([(0, 1)], np.int32)
    matches = [matcher.match_images(views, pairs) for _ in range(2)][-1]
    networks.wait(work)
    print(f"features and matches: {sum(map(len, views))} and {len(matches[0].indices)}")


if __name__ == "__main__":
    main()
