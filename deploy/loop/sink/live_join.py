"""The join of lists and events while they come in, over the lists that are still open. Pure.

The rules are those of `model.online.attribution`: it sees all rows of a log together, this one sees them one by one in
the order in which they are read. What a merge or an erasure changes afterwards is taken back from the tallies.

What one subject may cost is bounded: a program can be shown thousands of lists, and send thousands of events for one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count

from deploy.loop.sink.fast_clicks import FastClicks
from deploy.loop.sink.open_list import Identity, LiveEvent, OpenList, Row
from deploy.loop.sink.tallies import Tallies
from model.online.attribution import BY_REQUEST, INFERRED, NAMED, UNMATCHED

DUPLICATE, LATE = "duplicate", "late"
# Open lists of one subject; sessions of one user, and users of one session, that merges are remembered of.
SUBJECT_MOST = 1000
# Events of one list.
EVENTS_MOST = 1000

# By session or by user: when they became one, and the other.
_Merges = OrderedDict[str, list[tuple[int, str]]]


class LiveJoin:
    """Joins rows as they come.

    Attributes:
        closed_early: Lists that were closed because too many were open, of all subjects or of one.
    """

    def __init__(self, tallies: Tallies, *, open_most: int, window_ms: int) -> None:
        """Creates an empty join.

        Args:
            tallies: What is told of every list, and of every change of one.
            open_most: Lists that are open at a time, and events without a list that are remembered.
            window_ms: How much older than an event that names neither list nor request its list may be.
        """
        self._tallies, self._most, self._window_ms = tallies, open_most, window_ms
        self._open: OrderedDict[str, OpenList] = OrderedDict()
        self._by_viewer: dict[str, list[OpenList]] = {}
        self._seen: dict[str, dict[Identity, LiveEvent]] = {}
        self._loose: OrderedDict[LiveEvent, None] = OrderedDict()
        self._merges: _Merges = OrderedDict()
        self._sessions: _Merges = OrderedDict()
        self._erased: OrderedDict[str, int] = OrderedDict()
        self._fast = FastClicks(subjects_most=open_most)
        self._numbers = count()
        self.closed_early = 0

    def __len__(self) -> int:
        return len(self._open)

    def add_list(self, row: Row) -> None:
        """Takes a list; one that is known, or erased, is left out."""
        subject, time_ms = row["subject"], row["time_ms"]
        if row["list_id"] in self._open or self._erased.get(subject, -1) >= time_ms:
            return
        positions: dict[str, int] = {}
        for place, item in enumerate(row["items"], 1):
            positions.setdefault(item, place)
        groups = self._tallies.groups_of(row)
        one = OpenList(row["list_id"], row.get("request_id"), subject, time_ms, positions, groups)
        owner = self._owner(subject, time_ms)
        if owner is not None:
            if self._erased.get(owner[1], -1) >= owner[0]:
                return
            one.merged_ms, one.owner = owner
        one.made = self._fast.on(one.cluster, time_ms)
        self._open[one.list_id] = one
        self._tallies.add(one)
        for viewer in one.viewers:
            if one.list_id in self._open:  # a late one is the oldest of its subject, and may be closed at once
                self._show(viewer, one)
        while len(self._open) > self._most:
            self._close(next(iter(self._open.values())))
            self.closed_early += 1

    def add_event(self, row: Row) -> str:
        """Takes an event, and returns how it came to its list, or why it belongs to none."""
        subject, received_ms = row["subject"], row["received_ms"]
        if self._is_erased(subject, received_ms):
            return UNMATCHED
        identity: Identity
        keeper = subject
        if row.get("event_id"):
            identity = (row["event_id"],)
            owner = self._owner(subject, received_ms)
            keeper = owner[1] if owner is not None else subject
        else:
            identity = (row["item_id"], row["type"], row["time_ms"], row.get("query"))
        seen = self._seen.setdefault(keeper, {})
        if identity in seen:
            return DUPLICATE
        event = LiveEvent(row, keeper, identity, next(self._numbers))
        seen[identity] = event
        mark = self._place(event)
        if row["type"] in self._fast.types and keeper and self._fast.add(keeper, row["time_ms"]):
            self._mark(keeper)
        if event.list is not None:
            return mark
        self._remember_loose(event)
        return LATE if mark == LATE or (row.get("list_id") and row["list_id"] not in self._open) else UNMATCHED

    def merge(self, session: str, user: str, merged_ms: int) -> None:
        """Makes what a session was shown, and did, a user's from now on."""
        self._remember_merge(self._merges, session, (merged_ms, user))
        self._remember_merge(self._sessions, user, (merged_ms, session))
        for one in list(self._by_viewer.get(session, ())):
            if one.subject == session and one.owner is None and one.time_ms <= merged_ms:
                self._tallies.remove(one)
                one.owner, one.merged_ms = user, merged_ms
                one.made = one.made or self._fast.on(user, one.time_ms)
                self._tallies.add(one)
                self._show(user, one)
        for event in list(self._seen.get(session, {}).values()):
            if len(event.identity) == 1 and event.received_ms <= merged_ms:
                self._move(event, user)

    def erase(self, subject: str, erased_ms: int) -> None:
        """Takes back the lists that a subject was shown until then, and the events received until then."""
        self._erased[subject] = max(erased_ms, self._erased.pop(subject, 0))
        while len(self._erased) > self._most:
            self._erased.popitem(last=False)
        self._fast.forget(subject)
        left: list[LiveEvent] = []
        gone = self._events_of(subject, erased_ms)
        for event in gone:
            self._loose.pop(event, None)
            self._leave_list(event)
            self._forget(event)
            left += self._successor(event)
        for one in list(self._by_viewer.get(subject, ())):
            own = one.subject == subject and one.time_ms <= erased_ms
            merged = one.owner == subject and one.merged_ms is not None and one.merged_ms <= erased_ms
            if own or merged:
                self._tallies.remove(one)
                left += one.events
                one.events = {}
                self._close(one)
        for event in left:  # they are somebody else's, and may belong to another list
            self._place(event)
            if event.list is None:
                self._remember_loose(event)

    def close_before(self, time_ms: int) -> None:
        """Closes the lists that are older; what came of them stays in the tallies."""
        while self._open:
            one = next(iter(self._open.values()))
            if one.time_ms >= time_ms:
                return
            self._close(one)

    def _events_of(self, subject: str, erased_ms: int) -> list[LiveEvent]:
        """The events that an erasure takes: the subject's own, and those of sessions that were merged into it."""
        found = [one for one in self._seen.get(subject, {}).values() if one.received_ms <= erased_ms]
        for _, user in self._merges.get(subject, ()):
            theirs = self._seen.get(user, {}).values()
            found += [one for one in theirs if one.row["subject"] == subject and one.received_ms <= erased_ms]
        for merged_ms, session in self._sessions.get(subject, ()):
            if merged_ms <= erased_ms:
                theirs = self._seen.get(session, {}).values()
                found += [one for one in theirs if self._owner(session, one.received_ms) == (merged_ms, subject)]
        return list(dict.fromkeys(found))

    def _place(self, event: LiveEvent) -> str:
        """Puts an event into the newest list that it can belong to, if there is one; returns by which rule."""
        found, mark = self._find(event.row)
        if found is not None and len(found.events) >= EVENTS_MOST:
            found, mark = None, LATE
        event.list = found
        if found is not None:
            self._loose.pop(event, None)
            event.position = None if _whole(event.row) else found.positions[event.row["item_id"]]
            self._tallies.remove(found)
            found.put(event)
            self._tallies.add(found)
        return mark

    def _find(self, row: Row) -> tuple[OpenList | None, str]:
        """The newest list that the event can belong to."""
        whole, item, time_ms = _whole(row), row.get("item_id"), row["time_ms"]
        mark = NAMED if row.get("list_id") else BY_REQUEST if row.get("request_id") else INFERRED
        if mark == INFERRED and whole:
            return None, mark
        for one in self._candidates(row):
            if mark == INFERRED and one.time_ms < time_ms - self._window_ms:
                return None, mark
            if one.time_ms > time_ms or not (whole or item in one.positions):
                continue
            if one.subject != row["subject"] and (one.merged_ms is None or one.merged_ms > row["received_ms"]):
                continue
            if mark == BY_REQUEST and one.request_id != row["request_id"]:
                continue
            return one, mark
        return None, mark

    def _candidates(self, row: Row) -> Iterator[OpenList]:
        """The list that an event names; or else the lists of its subject until then, the newest first."""
        if row.get("list_id"):
            named = self._open.get(row["list_id"])
            if named is not None and row["subject"] in named.viewers:
                yield named
            return
        shelf = self._by_viewer.get(row["subject"], [])
        for place in range(bisect_right(shelf, row["time_ms"], key=lambda one: one.time_ms) - 1, -1, -1):
            yield shelf[place]

    def _owner(self, session: str, time_ms: int) -> tuple[int, str] | None:
        """The first merge of a session at this time or later."""
        merges = self._merges.get(session, [])
        place = bisect_left(merges, (time_ms, ""))
        return merges[place] if place < len(merges) else None

    def _is_erased(self, subject: str, time_ms: int) -> bool:
        if self._erased.get(subject, -1) >= time_ms:
            return True
        owner = self._owner(subject, time_ms)
        return owner is not None and self._erased.get(owner[1], -1) >= owner[0]

    def _show(self, viewer: str, one: OpenList) -> None:
        """Puts a list on the shelf of a viewer, whose oldest is closed if there are too many."""
        shelf = self._by_viewer.setdefault(viewer, [])
        insort(shelf, one)
        if len(shelf) > SUBJECT_MOST:
            self._close(shelf[0])
            self.closed_early += 1

    def _mark(self, subject: str) -> None:
        """Marks the open lists of a subject that clicks too fast."""
        for one in self._by_viewer.get(subject, ()):
            if not one.made and one.cluster == subject and self._fast.on(subject, one.time_ms):
                self._tallies.remove(one)
                one.made = True
                self._tallies.add(one)

    def _remember_merge(
        self, known: OrderedDict[str, list[tuple[int, str]]], name: str, merge: tuple[int, str]
    ) -> None:
        merges = known.setdefault(name, [])
        if merge not in merges:
            insort(merges, merge)
        del merges[:-SUBJECT_MOST]
        while len(known) > self._most:
            known.popitem(last=False)

    def _move(self, event: LiveEvent, user: str) -> None:
        """Makes an event a user's; of two with one identity the one received first counts."""
        self._forget(event)
        other = self._seen.get(user, {}).get(event.identity)
        event.keeper = user
        if other is not None and other.order < event.order:
            self._leave_list(event)
            other.precede(event)
            return
        if other is not None:
            self._leave_list(other)
            event.precede(other)
        self._seen.setdefault(user, {})[event.identity] = event

    def _successor(self, erased: LiveEvent) -> list[LiveEvent]:
        """The event that counts in the place of an erased one: the next with its identity that was not erased."""
        later = [one for one in erased.later if not self._is_erased(one.row["subject"], one.received_ms)]
        if not later:
            return []
        first = min(later, key=lambda one: one.order)
        first.later = tuple(one for one in later if one is not first)
        self._seen.setdefault(first.keeper, {})[first.identity] = first
        return [first]

    def _leave_list(self, event: LiveEvent) -> None:
        one, event.list = event.list, None
        if one is not None and one.list_id in self._open:
            self._tallies.remove(one)
            one.take_out(event)
            self._tallies.add(one)

    def _close(self, one: OpenList) -> None:
        self._open.pop(one.list_id, None)
        for viewer in one.viewers:
            shelf = self._by_viewer.get(viewer)
            if shelf is not None and one in shelf:
                shelf.remove(one)
                if not shelf:
                    del self._by_viewer[viewer]
        for event in one.events:
            event.list = None
            self._forget(event)

    def _forget(self, event: LiveEvent) -> None:
        theirs = self._seen.get(event.keeper)
        if theirs is not None and theirs.get(event.identity) is event:
            del theirs[event.identity]
            if not theirs:
                del self._seen[event.keeper]

    def _remember_loose(self, event: LiveEvent) -> None:
        """Keeps the identity of an event that belongs to no list, as long as there is room."""
        self._loose[event] = None
        while len(self._loose) > self._most:
            event, _ = self._loose.popitem(last=False)
            if event.list is None:
                self._forget(event)


def _whole(row: Row) -> bool:
    """Whether an event is about its list as a whole."""
    return bool(row["type"] == "impression") and row.get("item_id") is None
