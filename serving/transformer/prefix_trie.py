"""A radix trie: values by text, and the values of all texts with which another text begins.

Edges are parts of texts, so a file's text is stored once however many carets in it have a value, and a look-up compares
whole edges instead of single characters. The libraries that we know store a node per character or component (pygtrie),
cannot be changed (marisa-trie), or are limited to alphabets (datrie).
"""

import sys
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

V = TypeVar("V")

NODE_BYTES: Final = 400
"""Bytes of a node without its edge: the object, its dictionary of children, and its place in its parent's."""


class TrieNode(Generic[V]):
    """A place in the trie: the end of a text that has a value, or a fork."""

    __slots__ = ("children", "edge", "parent", "value")

    def __init__(self, edge: str, parent: "TrieNode[V] | None") -> None:
        self.edge = edge
        """The text between the parent and this node."""
        self.parent = parent
        self.children: dict[str, TrieNode[V]] = {}
        """Children by the first character of their edge."""
        self.value: V | None = None

    def __len__(self) -> int:
        """Return the number of bytes of memory, without the value's."""
        return NODE_BYTES + sys.getsizeof(self.edge)


class PrefixTrie(Generic[V]):
    """Values by text."""

    def __init__(self) -> None:
        self._root = TrieNode[V]("", None)
        self.memory = 0
        """Bytes of memory of all nodes, without the values'."""

    def put(self, text: str, value: V) -> TrieNode[V]:
        """Set the value of `text`; return its node, which `remove` takes."""
        node, place = self._root, 0
        while place < len(text):
            child = node.children.get(text[place])
            if child is None:
                node = self._add(node, text[place:])
                break
            shared = _shared(child.edge, text, place)
            node = child if shared == len(child.edge) else self._split(child, shared)
            place += shared
        node.value = value
        return node

    def along(self, text: str) -> Iterator[tuple[int, TrieNode[V]]]:
        """Yield length and node of each text with a value with which `text` begins, the shortest first."""
        node, place = self._root, 0
        while True:
            if node.value is not None:
                yield place, node
            child = node.children.get(text[place]) if place < len(text) else None
            if child is None or not text.startswith(child.edge, place):
                return
            node, place = child, place + len(child.edge)

    def remove(self, node: TrieNode[V]) -> None:
        """Remove a node's value, and every node that neither has a value nor is a fork."""
        node.value = None
        while node.parent is not None and node.value is None and not node.children:
            del node.parent.children[node.edge[0]]
            self.memory -= len(node)
            node = node.parent
        if node.parent is not None and node.value is None and len(node.children) == 1:
            self._join(node)

    def _add(self, parent: TrieNode[V], edge: str) -> TrieNode[V]:
        node = parent.children[edge[0]] = TrieNode(edge, parent)
        self.memory += len(node)
        return node

    def _split(self, node: TrieNode[V], shared: int) -> TrieNode[V]:
        """Return a new node between `node` and its parent, after the first `shared` characters of the edge."""
        assert node.parent is not None
        self.memory -= len(node)
        fork = self._add(node.parent, node.edge[:shared])
        node.edge, node.parent = node.edge[shared:], fork
        fork.children[node.edge[0]] = node
        self.memory += len(node)
        return fork

    def _join(self, fork: TrieNode[V]) -> None:
        """Replace a node by its only child."""
        assert fork.parent is not None
        (node,) = fork.children.values()
        self.memory -= len(fork) + len(node)
        node.edge, node.parent = fork.edge + node.edge, fork.parent
        fork.parent.children[node.edge[0]] = node
        self.memory += len(node)


def _shared(edge: str, text: str, place: int) -> int:
    """Return the number of characters of `edge` that follow in `text` at `place`; edges are compared by halves."""
    if text.startswith(edge, place):
        return len(edge)
    same, different = 0, len(edge)
    while different - same > 1:
        middle = (same + different) // 2
        if text.startswith(edge[same:middle], place + same):
            same = middle
        else:
            different = middle
    return same
