"""What an event does to a state, for a client that folds by itself: creates, deletes, merges and the simple update
operators, on values as pymongo has them: int is int32, Int64 is int64, float is a double. README.md beside this file
tells more.
"""

import copy

from bson import Decimal128, Int64

ABSENT = object()


class Refused(Exception):
    """The event does not apply to this state. In the log it would park its document: do not append it."""


class Unsupported(Exception):
    """This program does not know the operator. The daemon does: take the state from it."""


def fold(state, event):
    """The state after an event. `None` stands for a document that is not there."""
    if (event["op"] == "create") != (state is None):
        raise Refused(f"{event['op']}, but the document is {'not ' if state is None else ''}there")
    if event["op"] == "delete":
        return None
    if event["op"] == "create":
        return copy.deepcopy(event["state"])
    state = copy.deepcopy(state)
    if "merge" in event:
        merge(state, event["merge"])
    elif "array_filters" in event:
        raise Unsupported("array_filters")
    else:
        patch(state, event["patch"])
    return state


def merge(target, changes):
    """JSON Merge Patch (RFC 7396): null removes, documents are merged, everything else replaces."""
    for name, value in changes.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(name), dict):
                target[name] = {}
            merge(target[name], value)
        else:
            target[name] = copy.deepcopy(value)


def patch(state, operators):
    """Applies update operators: all paths of a patch in one order, whatever their operators are."""
    steps = [(path.split("."), operator, value)
             for operator, fields in operators.items() for path, value in fields.items()]
    steps.sort(key=lambda step: order(step[0]))
    for (path, _, _), (longer, _, _) in zip(steps, steps[1:]):
        if longer[:len(path)] == path:
            raise Refused(f"two operators at {'.'.join(path)}")
    for path, operator, value in steps:
        if operator not in ("$set", "$unset", "$inc", "$push") or any(name[:1] == "$" for name in path):
            raise Unsupported(f"{operator} {'.'.join(path)}")
        parent = descend(state, path[:-1], creates=operator != "$unset")
        if operator == "$unset":
            unset(parent, path[-1])
        else:
            put(parent, path[-1], changed(get(parent, path[-1]), operator, copy.deepcopy(value)))


def order(path):
    """By bytes, but names that begin with 1 to 9 by their length first: 9 comes before 10."""
    names = [name.encode() for name in path]
    return [(1, len(n), n) if b"1" <= n[:1] <= b"9" else (0 if n < b"1" else 2, 0, n) for n in names]


def index(name):
    return int(name) if name.isascii() and name.isdecimal() else None


def get(parent, name):
    if isinstance(parent, list) and index(name) is not None and index(name) < len(parent):
        return parent[index(name)]
    return parent.get(name, ABSENT) if isinstance(parent, dict) else ABSENT


def put(parent, name, value):
    if isinstance(parent, list) and index(name) is not None:
        if index(name) >= len(parent):
            raise Unsupported("an array that grows by an index")
        parent[index(name)] = value
    elif isinstance(parent, dict):
        parent[name] = value
    else:
        raise Refused(f"there is no document that could have a field {name}")


def descend(target, path, creates):
    for name in path:
        if creates and get(target, name) is ABSENT:
            put(target, name, {})
        target = get(target, name)
    return target


def unset(parent, name):
    """An element of an array becomes null, so that the others keep their places."""
    if isinstance(parent, dict):
        parent.pop(name, None)
    elif get(parent, name) is not ABSENT:
        put(parent, name, None)


def changed(old, operator, value):
    if operator == "$set":
        return value
    if operator == "$inc":
        total = add(0 if old is ABSENT else old, value)
        return value if old is ABSENT else total
    if isinstance(value, dict) and set(value) & {"$position", "$slice", "$sort"}:
        raise Unsupported("$push with more than $each")
    if old is not ABSENT and not isinstance(old, list):
        raise Refused("$push to what is no array")
    each = value["$each"] if isinstance(value, dict) and "$each" in value else [value]
    return [*([] if old is ABSENT else old), *each]


def add(left, right):
    """A double with anything is a double, two int32 stay int32 while the sum fits, everything else is int64."""
    for number in (left, right):
        if isinstance(number, Decimal128):
            raise Unsupported("a decimal128")
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise Refused(f"$inc with {number!r}")
    total = left + right
    if isinstance(total, float):
        return total
    if not -(2**63) <= total < 2**63:
        raise Refused("$inc beyond int64")
    is_small = not isinstance(left, Int64) and not isinstance(right, Int64)
    return int(total) if is_small and -(2**31) <= total < 2**31 else Int64(total)
