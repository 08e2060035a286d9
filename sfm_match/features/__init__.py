"""Keypoints and descriptors of images."""
