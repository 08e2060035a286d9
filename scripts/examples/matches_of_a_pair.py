"""What a job found between two images: matches, inliers of their geometry, and how far `import` moved the keypoints.

python scripts/examples/matches_of_a_pair.py workspace A.jpg B.jpg
"""

import sys

import numpy as np

import sfm_match


def main(workspace: str, first: str, second: str) -> None:
    """Prints the counts, and the five surest matches in pixels of the image files."""
    results = sfm_match.open(workspace)
    matches = results.matches(first, second)  # indices (M, 2) uint32, scores (M,) float16
    inliers = results.verified(first, second)  # (V, 2) uint32
    print(f"{first}, {second}: {len(matches.indices)} matches, {len(inliers)} inliers")

    a = results.features(first, descriptors=False).keypoints  # (N, 2) float32, as detected
    b = results.features(second, descriptors=False).keypoints
    for row in np.argsort(-matches.scores)[:5]:
        i, j = matches.indices[row]
        print(f"  {a[i].round(1)} - {b[j].round(1)}  probability {matches.scores[row]:.2f}")

    if len(inliers):
        moved = np.linalg.norm(results.adjusted_keypoints(second) - b, axis=1)[inliers[:, 1]]
        print(f"  import moved the inliers of {second} by {np.median(moved):.2f} pixels in the median")


if __name__ == "__main__":
    main(*sys.argv[1:4])
