"""Has a stream of windows changed? Detectors on means that were brought to one scale.

Read `windows.py`, then `cusum.py`, then `stream.py`.
"""
