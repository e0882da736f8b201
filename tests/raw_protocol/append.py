"""Appends events with pymongo and nothing else: the protocol of the README, and no code of alluvium.

usage: append.py URI DATABASE    prints one line of JSON for every event: the document's id, its version
"""

import datetime
import json
import sys
import uuid

import pymongo
from bson import Int64, ObjectId
from pymongo.errors import AutoReconnect, DuplicateKeyError, WTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

client = pymongo.MongoClient(sys.argv[1])
events = client[sys.argv[2]].get_collection(
    "games.events",
    read_concern=ReadConcern("majority"),
    write_concern=WriteConcern("majority", wtimeout=10_000),
)


def last_version(session, d):
    """One bounded range of keys: the form that a clustered collection answers quickly."""
    keys = {"_id": {"$gte": {"d": d, "s": 1}, "$lte": {"d": d, "s": 2**53 - 1}}}
    last = events.find_one(keys, {"_id": 1}, sort=[("_id", -1)], session=session)
    return int(last["_id"]["s"]) if last else 0


def append(session, d, who, op, number=int, **body):
    """Appends one event and decides again whenever somebody else was quicker."""
    mark = str(uuid.uuid4())
    while True:
        version = last_version(session, d) + 1
        now = datetime.datetime.now(datetime.timezone.utc)
        key = {"d": d, "s": number(version)}
        event = {"_id": key, "client": who, "op": op, "at": now, "id": mark, **body}
        for _ in range(5):
            try:
                events.insert_one(event, session=session)
            except DuplicateKeyError:
                if events.find_one({"_id": key}, session=session).get("id") != mark:
                    break
            except (AutoReconnect, WTimeoutError):
                continue
            print(json.dumps({"d": str(d), "version": version}))
            return


with client.start_session(causal_consistency=True) as session:
    game = ObjectId("65a000000000000000000001")
    state = {"name": "Dragon's Hollow", "gold": 0, "level": 1, "experience": 0, "tags": ["new"]}
    append(session, game, "game-server", "create", state=state)
    append(session, game, "admin-panel", "update", patch={"$inc": {"gold": 50, "experience": 100}})
    append(session, game, "mobile-client", "update", merge={"level": 2})
    append(session, game, "admin-panel", "update", patch={"$push": {"tags": {"$each": ["rich"]}}})

    # A number is the same document and the same version whatever type carries it.
    append(session, 7, "a", "create", number=Int64, state={"n": 0})
    append(session, Int64(7), "a", "update", number=float, patch={"$inc": {"n": 1}})
    append(session, 7.0, "b", "update", patch={"$inc": {"n": 1}})
    append(session, 7, "b", "delete", number=float)
