//! Whether the runs meet what `projector::backlog` is for: daemons that begin with a scan although they have a place to
//! resume from, that die in the middle of it, and tails that are left behind by the writers. What became of the
//! documents is judged in every run anyway.

use super::{
    executor::Owner,
    plan::{Plan, What},
    run::run,
};

/// What the story of a run tells of its first daemon.
#[derive(Debug, Default)]
struct Told {
    /// It scanned a backlog.
    scans: usize,
    /// It ended in the middle of such a scan, and began anew.
    deaths: usize,
    /// It ended its tail by itself to scan.
    left_behind: usize,
}

impl Told {
    /// Of one part only: the calls of several would be mixed.
    fn by(story: &[String]) -> Self {
        let mut told = Self::default();
        let (mut last, mut before) = (String::new(), String::new());
        let (mut scans, mut tails_on) = (false, false);
        let daemon = format!("{:?} ", Owner::Daemon(0));
        for line in story {
            let Some((_, words)) = line.split_once(&daemon) else { continue };
            let Some(call) = words.strip_prefix("sends #").and_then(|call| call.split_once(' '))
            else {
                // Whatever goes wrong, a projection begins anew because of that.
                let goes_wrong = ["fails", "is answered", "is cut", "starts"];
                tails_on &= !goes_wrong.iter().any(|wrong| words.starts_with(wrong));
                told.deaths += usize::from(scans && words.starts_with("starts"));
                scans &= !words.starts_with("starts");
                continue;
            };
            let name = call.1.split(' ').next().unwrap().to_owned();
            let begins = ["load_checkpoints", "rows_id"];
            match name.as_str() {
                "claim_log" if last == "estimated_events" && begins.contains(&before.as_str()) => {
                    told.scans += 1;
                    told.left_behind += usize::from(tails_on);
                    (scans, tails_on) = (true, false);
                }
                "save_checkpoint" => scans = false,
                "estimated_events" if !begins.contains(&last.as_str()) => tails_on = true,
                _ => {}
            }
            before = std::mem::replace(&mut last, name);
        }
        told
    }
}

#[test]
fn backlogs_are_scanned_in_many_runs_and_daemons_die_in_the_middle_of_it() {
    let is_divided = |plan: &Plan| {
        let divides = plan.mishaps.iter().any(|mishap| matches!(mishap.what, What::Divide { .. }));
        divides || plan.parts > 1
    };
    let plans = (0..).map(Plan::new).filter(|plan| !is_divided(plan)).take(600);
    let told: Vec<Told> = plans.map(|plan| Told::by(&run(&plan, true).story)).collect();
    let all = |count: fn(&Told) -> usize| told.iter().map(count).sum::<usize>();
    let (scans, deaths) = (all(|told| told.scans), all(|told| told.deaths));
    let left_behind = all(|told| told.left_behind);
    println!("{scans} scans, {deaths} deaths, {left_behind} left behind");
    assert!(scans > 40 && deaths > 4 && left_behind > 4);
}
