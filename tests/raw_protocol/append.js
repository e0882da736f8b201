// Appends events with mongosh and nothing else: the protocol of the README, and no code of alluvium.
//
// usage: mongosh --quiet URI/DATABASE append.js
//
// prints one line of JSON for every event: the document's id, its version

const session = db.getMongo().startSession({ causalConsistency: true });
const events = session.getDatabase(db.getName()).getCollection("games.events");

// One bounded range of keys: the form that a clustered collection answers quickly.
function lastVersion(d) {
  const keys = { _id: { $gte: { d, s: 1 }, $lte: { d, s: Number.MAX_SAFE_INTEGER } } };
  const last = events.find(keys, { _id: 1 }).readConcern("majority").sort({ _id: -1 }).limit(1);
  const event = last.toArray()[0];
  return event ? Number(event._id.s) : 0;
}

// Appends one event and decides again whenever somebody else was quicker.
function append(d, client, op, body, number = (version) => version) {
  const id = UUID();
  for (;;) {
    const version = lastVersion(d) + 1;
    const key = { d, s: number(version) };
    const event = { _id: key, client, op, at: new Date(), id, ...body };
    try {
      events.insertOne(event, { writeConcern: { w: "majority", wtimeout: 10000 } });
    } catch (error) {
      if (error.code !== 11000) throw error;
      const taken = events.find({ _id: key }).readConcern("majority").toArray()[0];
      if (!taken || !taken.id || taken.id.toString() !== id.toString()) continue;
    }
    print(JSON.stringify({ d: String(d), version }));
    return;
  }
}

const game = ObjectId("65a000000000000000000002");
const state = { name: "Dragon's Hollow", gold: 0, level: 1, experience: 0, tags: ["new"] };
append(game, "game-server", "create", { state });
append(game, "admin-panel", "update", { patch: { $inc: { gold: 50, experience: 100 } } });
append(game, "mobile-client", "update", { merge: { level: 2 } });
append(game, "admin-panel", "update", { patch: { $push: { tags: { $each: ["rich"] } } } });

// What JavaScript does to integers: small ones become int, those beyond 2^31 and whatever is asked for
// explicitly become double. It is the same document and the same version all the same.
append(8, "a", "create", { state: { n: 0 } }, (version) => Double(version));
append(Double(8), "a", "update", { patch: { $inc: { n: 1 } } }, (version) => Long(version));
append(Long(8), "b", "update", { patch: { $inc: { n: 1 } } });
append(8, "b", "delete", {}, (version) => Double(version));

const far = 2 ** 40;
append(far, "a", "create", { state: { n: 0 } });
append(Long(String(far)), "a", "update", { patch: { $set: { n: 2 ** 33 } } });
