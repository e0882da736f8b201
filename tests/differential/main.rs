//! Every patch means what MongoDB means: random states and patches go through this crate and through
//! a real server's update command, and the bytes of the results are compared, or that both refuse.
//!
//! The suite runs a fixed set of cases. To run any number, from any seed:
//!
//! ```text
//! ALLUVIUM_CASES=2000000 ALLUVIUM_SEED=7 cargo test --release --test differential
//! ```
//!
//! A divergence is shrunk to the smallest case that still diverges and printed with its seed; the
//! case of one seed alone runs with `ALLUVIUM_CASES=1 ALLUVIUM_SEED=<seed>`.

mod cases;
mod characters;
mod condition;
mod deliberate;
mod flush;
mod generate;
mod named;
mod nasty;
mod patterns;
mod shrink;
mod sides;
mod tree;
mod vectors;

use bson::Document;
use generate::Case;
use sides::{Outcome, Server};

/// Cases per round trip. Large enough that the server's work is what takes the time.
const BATCH: usize = 1_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_mean_what_the_server_means() {
    let mut server = Server::start().await;
    let cases = setting("ALLUVIUM_CASES", 20_000);
    let first = setting("ALLUVIUM_SEED", 1);
    let mut tally = Tally::default();
    for batch in 0..cases.div_ceil(BATCH as u64) {
        let from = first + batch * BATCH as u64;
        let seeds: Vec<_> = (from..(from + BATCH as u64).min(first + cases)).collect();
        let cases: Vec<_> = seeds.iter().map(|seed| Case::from_seed(*seed)).collect();
        let cases: Vec<_> = cases.into_iter().map(operators_only).collect();
        let theirs = server.outcomes(&cases).await;
        for ((seed, case), theirs) in seeds.iter().zip(&cases).zip(&theirs) {
            let ours = sides::ours(case);
            tally.count(case, theirs);
            if !deliberate::agrees(case, &ours, theirs) {
                report(&mut server, *seed, case).await;
                tally.diverged += 1;
            }
            assert!(tally.diverged < setting("ALLUVIUM_DIVERGENCES", 1), "{tally:?}");
        }
    }
    println!("{tally:?}");
    assert_eq!(tally.diverged, 0, "{tally:?}");
    assert!(tally.changed * 2 > tally.cases, "too few patches do something: {tally:?}");
}

#[tokio::test]
async fn named_cases_mean_what_the_server_means() {
    let mut server = Server::start().await;
    let mut diverged = Vec::new();
    for (name, case) in named::regressions().into_iter().chain(named::corners()) {
        let theirs = server.outcomes(std::slice::from_ref(&case)).await.remove(0);
        let ours = sides::ours(&case);
        if !ours.agrees(&theirs) || theirs == Outcome::Crashed {
            diverged.push(format!(
                "{name}\n  ours   {}\n  theirs {}",
                shown(&ours),
                shown(&theirs)
            ));
        }
    }
    assert!(diverged.is_empty(), "{}", diverged.join("\n"));
}

#[tokio::test]
async fn deliberate_differences_are_what_they_are_said_to_be() {
    let mut server = Server::start().await;
    let mut wrong = Vec::new();
    for (name, case, our_way, their_way) in deliberate::differences() {
        let theirs = server.outcomes(std::slice::from_ref(&case)).await.remove(0);
        let ours = sides::ours(&case);
        if !our_way.is(&ours) || !their_way.is(&theirs) {
            wrong.push(format!("{name}\n  ours   {}\n  theirs {}", shown(&ours), shown(&theirs)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The server takes a first name without `$` for a whole document; such cases are covered by name.
fn operators_only(mut case: Case) -> Case {
    if !shrink::is_patch(&case.patch) {
        case.patch = bson::doc! {"$set": {"a": 1}};
    }
    case
}

/// What the cases amounted to.
#[derive(Debug, Default)]
struct Tally {
    cases: u64,
    changed: u64,
    refused: u64,
    crashed: u64,
    diverged: u64,
}

impl Tally {
    fn count(&mut self, case: &Case, theirs: &Outcome) {
        self.cases += 1;
        match theirs {
            Outcome::State(after) => {
                self.changed +=
                    u64::from(Document::try_from(&**after).ok().as_ref() != Some(&case.state));
            }
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Crashed => self.crashed += 1,
        }
    }
}

/// Prints the smallest case that diverges like this one.
async fn report(server: &mut Server, seed: u64, case: &Case) {
    let mut smallest = case.clone();
    'smaller: loop {
        for batch in shrink::candidates(&smallest).chunks(BATCH) {
            let theirs = server.outcomes(batch).await;
            for (case, theirs) in batch.iter().zip(theirs) {
                if !deliberate::agrees(case, &sides::ours(case), &theirs) {
                    smallest = case.clone();
                    continue 'smaller;
                }
            }
        }
        break;
    }
    let theirs = server.outcomes(std::slice::from_ref(&smallest)).await.remove(0);
    println!("diverged: ALLUVIUM_CASES=1 ALLUVIUM_SEED={seed}");
    println!("  state   {:?}\n  patch   {:?}", smallest.state, smallest.patch);
    println!("  filters {:?}", smallest.filters);
    println!("  ours    {}\n  theirs  {}", shown(&sides::ours(&smallest)), shown(&theirs));
}

fn shown(outcome: &Outcome) -> String {
    match outcome {
        Outcome::State(state) => match Document::try_from(&**state) {
            Ok(state) => format!("{state:?}"),
            Err(error) => format!("{state:?}: {error}"),
        },
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Crashed => "crashed".to_owned(),
    }
}
