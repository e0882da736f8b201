// Asks for a job with mongosh and nothing else, and waits until it is done.
//
// usage: mongosh --quiet URI/DATABASE job.js
//
// prints one line of JSON: the state, the progress and the result of the job

const jobs = db.getCollection("alluvium.jobs");
const id = jobs.insertOne({ kind: "verify", collection: "games" }).insertedId;
for (let look = 0; look < 300; look++) {
  const { state, progress, result, error } = jobs.findOne({ _id: id });
  if (state === "done" || state === "failed") {
    print(EJSON.stringify({ state, progress, result, error }, { relaxed: true }));
    quit(0);
  }
  sleep(100);
}
quit(1);
