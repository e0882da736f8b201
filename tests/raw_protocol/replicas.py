"""Two replicas of examples/replica.py, a writer that makes trouble, and an operator, against a daemon that runs.

usage: replicas.py URI DATABASE API    prints one line of JSON for every document: its id, and the state, version and
clock of each replica; the state as the bytes of its BSON, in hex
"""

import datetime
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

import bson
import pymongo
from bson import Int64, json_util
from pymongo.write_concern import WriteConcern

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from replica import Replica  # noqa: E402

uri, name, api = sys.argv[1:]
database = pymongo.MongoClient(uri)[name]


def pair(document):
    return [Replica(database, api, client, document) for client in ("phone", "tablet")]


def append(document, version, op="update", client="stranger", **body):
    """What a writer does that follows nobody's rules."""
    event = {"_id": {"d": document, "s": Int64(version)}, "client": client, "op": op, **body}
    event["at"] = datetime.datetime.now(datetime.timezone.utc)
    log = database.get_collection("games.events", write_concern=WriteConcern("majority"))
    log.insert_one(event)


def operate(path):
    """What an operator asks for. Documents are noticed, and gaps are old enough, a moment later."""
    for _ in range(300):
        request = urllib.request.Request(f"{api}/v1/collections/games/{path}", b"", method="POST")
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode()
            assert error.code in (404, 409), said
            time.sleep(0.1)
    raise AssertionError(f"{path}: {said}")


def settled(*replicas):
    """Syncs until all of them have sent everything and seen everything."""
    for _ in range(100):
        if all([replica.sync() for replica in replicas]) and len({replica.version for replica in replicas}) == 1:
            return
    raise AssertionError([vars(replica) for replica in replicas])


def tell(document, *replicas):
    for replica in replicas:
        state = None if replica.state is None else bson.encode(replica.state).hex()
        print(json.dumps({"d": document, "state": state, "version": replica.version, "clock": replica.clock}))


def offline_work_meets():
    phone, tablet = pair("meets")
    phone.change("create", state={"gold": 5, "log": []})
    settled(phone, tablet)
    for turn in range(20):
        # Both are offline, and neither knows what the other does.
        phone.change("update", patch={"$inc": {"gold": Int64(2**33)}, "$push": {"log": f"phone {turn}"}})
        tablet.change("update", patch={"$set": {"z": turn, "a": 0.5}, "$push": {"log": f"tablet {turn}"}})
        tablet.change("update", merge={"by": {"tablet": turn, "none": None}})
        if turn % 5 == 4:
            settled(tablet, phone)
    settled(phone, tablet)
    tell("meets", phone, tablet)


def a_lost_answer():
    """The event is in the log, and the phone does not know: it died before it could note the answer."""
    phone, tablet = pair("answer")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    phone.change("update", patch={"$inc": {"n": 1}})
    disk = json_util.dumps(phone.saved, json_options=json_util.CANONICAL_JSON_OPTIONS)
    assert phone.push(phone.queue[0])
    again, _ = pair("answer")
    again.saved = json_util.loads(disk, json_options=json_util.CANONICAL_JSON_OPTIONS)
    # Sent a second time it is recognised, and not appended again.
    assert again.push(again.queue[0]) and len(again.queue) == 1
    settled(again, tablet)
    assert again.state == {"n": 1} and again.version == 2, vars(again)
    # The same where a snapshot hides which events there were.
    tablet.change("update", merge={"seen": True})
    settled(tablet)
    again.change("update", patch={"$inc": {"n": 1}})
    again.pull()
    assert again.push(again.queue[0])
    again.pull(reset=True)
    assert not again.queue and again.state["n"] == 2, vars(again)
    settled(again, tablet)
    tell("answer", again, tablet)


def what_does_not_fit_any_more():
    phone, tablet = pair("unfit")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    phone.change("update", patch={"$set": {"n": "many"}})
    tablet.change("update", patch={"$inc": {"n": 1}})
    tablet.change("update", merge={"kept": True})
    settled(phone, tablet)
    settled(phone)
    assert tablet.state == {"n": "many", "kept": True} and len(tablet.refused) == 1, vars(tablet)
    tell("unfit", phone, tablet)


def operators_that_it_does_not_know():
    phone, tablet = pair("unknown")
    phone.change("create", state={"list": [3, 1, 2]})
    settled(phone, tablet)
    append("unknown", 2, patch={"$push": {"list": {"$each": [0], "$sort": 1}}})
    phone.change("update", patch={"$push": {"list": 9}})
    settled(phone, tablet)
    settled(tablet)
    assert tablet.state == {"list": [0, 1, 2, 3, 9]}, vars(tablet)
    tell("unknown", phone, tablet)


def a_skip_of_what_a_replica_has_applied():
    """The daemon allows a state of 4 KiB, and the phone does not know."""
    phone, tablet = pair("skipped")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    phone.change("update", merge={"large": "x" * 5_000})
    phone.sync()
    assert phone.version == 2 and "large" in phone.state
    # The document is parked: both keep what they do to themselves, and do not try in vain.
    phone.change("update", patch={"$inc": {"n": 1}})
    tablet.change("update", patch={"$inc": {"n": 10}})
    assert not phone.sync() and not tablet.sync()
    assert phone.waits["version"] == tablet.waits["version"] == 2, vars(phone)
    assert len(phone.queue) == len(tablet.queue) == 1
    operate("quarantine/skipped/skip")
    settled(phone, tablet)
    settled(phone)
    assert phone.state == {"n": 11}, vars(phone)
    tell("skipped", phone, tablet)


def a_skip_while_the_replica_is_away():
    """No event is missing afterwards: that one of those it has was skipped, the number of skips alone tells."""
    phone, tablet = pair("away")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    phone.change("update", merge={"large": "x" * 5_000})
    assert phone.sync() and "large" in phone.state
    operate("quarantine/away/skip")
    phone.pull()
    assert phone.state == {"n": 0} and phone.version == 2 and phone.skipped == 1, vars(phone)
    settled(phone, tablet)
    tell("away", phone, tablet)


def a_skip_above_a_gap():
    phone, tablet = pair("gap")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    append("gap", 3, patch={"$inc": {"n": 100}})
    append("gap", 4, patch={"$inc": {"n": 100}})
    phone.change("update", patch={"$inc": {"n": 1}})
    assert not phone.sync() and phone.waits["version"] == 2, vars(phone)
    operate("gaps/gap/fill?skip_above=true")
    settled(phone, tablet)
    settled(tablet)
    assert tablet.state == {"n": 1} and tablet.version == 5, vars(tablet)
    tell("gap", phone, tablet)


def news():
    phone, tablet = pair("news")
    phone.change("create", state={"n": 0})
    settled(phone, tablet)
    assert not tablet.wait_for_news(0)
    phone.change("update", patch={"$inc": {"n": 1}})
    settled(phone)
    assert tablet.wait_for_news()
    settled(tablet)
    phone.change("delete")
    settled(phone, tablet)
    assert tablet.state is None
    tablet.change("create", state={"born": "again"})
    settled(tablet, phone)
    tell("news", phone, tablet)


for scene in (
    offline_work_meets,
    a_lost_answer,
    what_does_not_fit_any_more,
    operators_that_it_does_not_know,
    a_skip_of_what_a_replica_has_applied,
    a_skip_while_the_replica_is_away,
    a_skip_above_a_gap,
    news,
):
    scene()
