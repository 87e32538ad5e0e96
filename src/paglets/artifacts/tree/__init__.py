"""Directories that travel: read on one host, described by a manifest, put in place on another.

A tree is its manifest, then the contents of its files in the manifest's order. Small files together are one blob (a
*pack*), every larger one is a blob of its own, so that a tree of many files costs a few blobs and a large file that did
not change is not sent again. The manifest names the SHA-256 of each blob: its own SHA-256 stands for everything.
"""

from paglets.artifacts.tree.manifest import Chunk, Entry, Kind, Tree
from paglets.artifacts.tree.reading import KnownDigest, Survey, scan
from paglets.artifacts.tree.writing import duplicate, unpack

__all__ = ["Chunk", "Entry", "Kind", "KnownDigest", "Survey", "Tree", "duplicate", "scan", "unpack"]
