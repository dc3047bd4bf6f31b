"""Stop strings in text that arrives in pieces."""

from collections import deque
from collections.abc import Sequence


class StopFilter:
    """A filter that passes text on but holds back what may be the beginning of a stop string.

    An automaton of all stop strings (Aho and Corasick 1975) reads each character once, whatever their number. Its state
    is the longest end of the text that begins a stop string: the part to hold back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """Build the automaton of `stops`, none of which may be empty."""
        self._next: list[dict[str, int]] = [{}]
        self._depth = [0]
        self._match = [0]
        """For each state, the length of the longest stop string that the text then ends with; 0 for none."""
        for stop in stops:
            self._insert(stop)
        self._fail = self._links()
        self._state = 0
        self._held = ""
        self.stopped = False
        """Whether a stop string has been seen; everything from its first character on is dropped."""

    def _insert(self, stop: str) -> None:
        state = 0
        for character in stop:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(0)
            state = self._next[state][character]
        self._match[state] = len(stop)

    def _links(self) -> list[int]:
        """Return for each state the state of its longest proper suffix, breadth first, as each needs shorter ones."""
        links = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            self._match[state] = self._match[state] or self._match[links[state]]
            for character, child in self._next[state].items():
                links[child] = self._follow(links, links[state], character)
                queue.append(child)
        return links

    def _follow(self, links: Sequence[int], state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = links[state]
        return self._next[state].get(character, 0)

    def feed(self, text: str) -> str:
        """Add `text`; return the new text that is certain to precede any stop string."""
        if self.stopped:
            return ""
        for place, character in enumerate(text):
            self._state = self._follow(self._fail, self._state, character)
            # The first stop string to be complete counts, so that the result does not depend on the pieces' boundaries.
            if self._match[self._state]:
                self.stopped = True
                whole = self._held + text[: place + 1]
                return whole[: len(whole) - self._match[self._state]]
        self._held += text
        return self._release(len(self._held) - self._depth[self._state])

    def flush(self) -> str:
        """Return the text that was held back, at the end of the input."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        released, self._held = self._held[:length], self._held[length:]
        return released
