"""A client that keeps a replica of one document, works offline, and catches up exactly. README.md beside this file tells
how.

It plays two parts in one program: the phone, which keeps the replica, and the backend, which appends for it with
pymongo and asks alluvium's HTTP API. A real phone keeps `saved` on its disk, and writes it as one.

usage: replica.py URI DATABASE API CLIENT DOCUMENT    pushes the time to a document of the collection `games`
"""

import datetime
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid

import pymongo
from bson import Int64, json_util
from fold import Refused, Unsupported, fold
from pymongo.errors import AutoReconnect, DuplicateKeyError, WTimeoutError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

ATTEMPTS = 5


class Replica:
    def __init__(self, database, api, client, document, collection="games"):
        self.log = database.get_collection(
            f"{collection}.events",
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", wtimeout=10_000),
        )
        self.url = f"{api}/v1/collections/{collection}/documents/{urllib.parse.quote(document, safe='')}"
        self.document, self.client = document, client
        # What the log has said so far: the state (None: not there), its version and clock, which log, how many skips.
        self.state, self.version, self.clock, self.log_id, self.skipped = None, 0, {}, None, 0
        # Own changes that are not known to be in the log, oldest first, each with its mark.
        self.queue = []
        # Own changes that do not apply any more: the user is to be asked.
        self.refused = []
        # What keeps the document from going on, if anything does: {class, version, reason}.
        self.waits = None

    @property
    def saved(self):
        return self.state, self.version, self.clock, self.log_id, self.skipped, self.queue

    @saved.setter
    def saved(self, saved):
        self.state, self.version, self.clock, self.log_id, self.skipped, self.queue = saved

    def change(self, op, **body):
        """Notes a change, online or not. Raises `Refused` if it does not apply to what the user sees."""
        change = {"op": op, "id": str(uuid.uuid4()), **body}
        fold(self.seen_by_the_user(), change)
        self.queue.append(change)

    def seen_by_the_user(self):
        """The state with all that is in the queue."""
        state = self.state
        for change in self.queue:
            state = fold(state, change)
        return state

    def sync(self):
        """Takes in what is missing and sends the queue. False: something is left; try again when there is news."""
        self.pull()
        while self.queue and not self.waits:
            self.rebase()
            if not self.queue:
                break
            if self.push(self.queue[0]):
                self.take({**self.queue[0], "version": self.version + 1})
                self.clock = {**self.clock, self.client: self.clock.get(self.client, 0) + 1}
                continue
            before = self.version
            self.pull()
            if self.version == before:
                break
        return not self.queue

    def rebase(self):
        """Puts aside what does not apply to the newest state: in the log it would park the document."""
        state, kept = self.state, []
        for change in self.queue:
            try:
                state = fold(state, change)
                kept.append(change)
            except Refused as reason:
                self.refused.append((change, reason))
        self.queue = kept

    def push(self, change):
        """Appends at the replica's own version + 1, and nowhere else. False: somebody else's event has that place."""
        key = {"d": self.document, "s": Int64(self.version + 1)}
        now = datetime.datetime.now(datetime.timezone.utc)
        event = {"_id": key, "client": self.client, "at": now, **change}
        with self.log.database.client.start_session(causal_consistency=True) as session:
            for attempt in range(ATTEMPTS):
                try:
                    self.log.insert_one(event, session=session)
                    return True
                except DuplicateKeyError:
                    taken = self.log.find_one({"_id": key}, session=session)
                    return taken is not None and taken.get("id") == change["id"]
                except (AutoReconnect, WTimeoutError):
                    # It may have happened or not: the same `_id` and `id` again.
                    if attempt == ATTEMPTS - 1:
                        raise
        return False

    def pull(self, reset=False):
        """Takes in everything that the clock lacks, or with `reset` the whole state."""
        more = True
        while more:
            question = {"clock": self.clock, "reset": reset, **({"log": self.log_id} if self.log_id else {})}
            status, answer = self.ask("/missing?ejson=canonical", question)
            if status == 404:
                # Nobody has created it, in this log.
                self.saved = None, 0, {}, None, 0, self.queue
                self.waits = None
                return
            if status == 409:
                # The clock counts an event that does not count: it parks the document, or a backup was restored.
                reset = True
                continue
            try:
                self.take_in(answer)
                reset, more = False, answer["more"]
            except (Refused, Unsupported):
                reset = True
            if not more and self.skipped != skips(answer):
                # An event was skipped after this replica had applied it.
                reset = more = True

    def take_in(self, answer):
        is_same_log = self.log_id == answer["log"]
        self.log_id, self.waits = answer["log"], answer["waits"]
        snapshot = answer.get("snapshot")
        if snapshot:
            sent = snapshot["clock"].get(self.client, 0) - self.clock.get(self.client, 0) if is_same_log else 0
            self.state = None if snapshot["deleted"] else snapshot["state"]
            self.version = snapshot["version"]
            # The first of the queue may be in the log although their answers were lost.
            self.queue = self.queue[max(0, sent):]
        for event in answer["events"]:
            self.take(event)
        if snapshot:
            # Those that come after the snapshot are among them.
            self.skipped = skips(answer)
        self.clock = answer["next_clock"]

    def take(self, event):
        """Takes in the next event. A skipped one counts and changes nothing."""
        if event.get("skipped"):
            self.skipped += 1
        else:
            self.state = fold(self.state, event)
        self.version = event["version"]
        self.queue = [change for change in self.queue if change["id"] != event.get("id")]

    def wait_for_news(self, seconds=30):
        """A long poll. Ask what is missing afterwards, whatever it says."""
        status, _ = self.ask(f"?min_version={self.version + 1}&wait={seconds}s")
        return status == 200

    def ask(self, path, body=None):
        data, head = (json.dumps(body).encode(), {"content-type": "application/json"}) if body else (None, {})
        request = urllib.request.Request(self.url + path, data, head)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read().decode()
                return answer.status, json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (404, 409, 504):
                    return error.code, json.load(error)
                raise RuntimeError(f"{error.code}: {error.read().decode()}") from error


def skips(answer):
    """How many events of the document are skipped. Of very many the newest are named, and a total is told."""
    return answer.get("skips_total", len(answer["skips"]))


def main():
    uri, database, api, client, document = sys.argv[1:]
    replica = Replica(pymongo.MongoClient(uri)[database], api, client, document)
    replica.pull()
    if replica.state is None:
        replica.change("create", state={"seen": []})
    replica.change("update", patch={"$push": {"seen": datetime.datetime.now(datetime.timezone.utc)}})
    print("sent" if replica.sync() else f"queued: {replica.waits}", replica.version, replica.clock, replica.state)


if __name__ == "__main__":
    main()
