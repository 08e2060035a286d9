"""Keypoints below the pixel: patches of verified matches, and the tracks that they form."""
