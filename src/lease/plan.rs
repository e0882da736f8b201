//! What to do about leases, decided from what was read and when: pure, so that every rule can be
//! tested without a database or a clock.
//!
//! A lease is free when it was given back, or when its `{epoch, beat}` has not changed for the lease
//! time, on this instance's own monotonic clock. An instance takes its fair share of the free leases:
//! as many as every other living instance has, or one more. What it holds beyond that it gives back. It
//! also gives back the one more when another instance has less than its share and no lease is free.

use std::{collections::BTreeMap, time::Duration};

use crate::store::{Lease, LeaseName, Roster};

/// What this instance has seen of the others, and when.
#[derive(Debug)]
pub(super) struct Observed {
    instance: String,
    lease_time: Duration,
    leases: BTreeMap<LeaseName, (Lease, Duration)>,
    instances: BTreeMap<String, (i64, Duration)>,
}

/// What to do next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Leases to take, with the row to expect, if there is one.
    pub(super) take: Vec<(LeaseName, Option<Lease>)>,
    /// Leases to give back, since others are there to share the work.
    pub(super) give_back: Vec<LeaseName>,
    /// Leases that another has taken.
    pub(super) lost: Vec<LeaseName>,
    /// Instances that have been silent for long: their rows can go.
    pub(super) departed: Vec<String>,
}

impl Observed {
    pub(super) fn new(instance: String, lease_time: Duration) -> Self {
        Self { instance, lease_time, leases: BTreeMap::new(), instances: BTreeMap::new() }
    }

    /// Notes what was read at `now`. Only a change counts as a sign of life.
    pub(super) fn see(&mut self, roster: &Roster, now: Duration) {
        let leases = roster.leases.iter().map(|lease| {
            let since = match self.leases.get(&lease.name) {
                Some((known, since)) if (known.epoch, known.beat) == (lease.epoch, lease.beat) => {
                    *since
                }
                _ => now,
            };
            (lease.name.clone(), (lease.clone(), since))
        });
        self.leases = leases.collect();
        let instances = roster.instances.iter().map(|presence| {
            let since = match self.instances.get(&presence.instance) {
                Some((beat, since)) if *beat == presence.beat => *since,
                _ => now,
            };
            (presence.instance.clone(), (presence.beat, since))
        });
        self.instances = instances.collect();
    }

    /// Decides, for an instance that could lead `wanted` and holds `held` under these epochs.
    pub(super) fn plan(
        &self,
        wanted: &[LeaseName],
        held: &BTreeMap<LeaseName, i64>,
        now: Duration,
    ) -> Plan {
        let mut plan = Plan {
            lost: held
                .iter()
                .filter(|(name, epoch)| self.is_lost(name, **epoch))
                .map(|(name, _)| name.clone())
                .collect(),
            departed: self.departed(now),
            ..Plan::default()
        };
        let mut kept: Vec<LeaseName> =
            held.keys().filter(|name| !plan.lost.contains(name)).cloned().collect();
        // The collection is divided differently by now.
        plan.give_back = kept.extract_if(.., |name| !wanted.contains(name)).collect();
        let shares = self.shares(wanted, now);
        let unheld = wanted.iter().filter(|name| !held.contains_key(*name));
        let free: Vec<&LeaseName> = unheld.filter(|name| self.is_free(name, now)).collect();
        let may_take = |taken: &usize| shares.may_take(kept.len() + taken, free.len() - taken);
        for name in (0..free.len()).take_while(may_take).map(|taken| free[taken]) {
            let seen = self.leases.get(name).map(|(lease, _)| lease.clone());
            plan.take.push((name.clone(), seen));
        }
        let excess = shares.excess(kept.len(), free.len());
        plan.give_back.extend(kept.into_iter().rev().take(excess));
        plan
    }

    /// The last epoch of any lease of a collection.
    pub(super) fn last_epoch(&self, collection: &str) -> i64 {
        let leases = self.leases.values().filter(|(lease, _)| lease.name.collection == collection);
        leases.map(|(lease, _)| lease.epoch).max().unwrap_or_default()
    }

    /// How the `wanted` leases are spread.
    fn shares(&self, wanted: &[LeaseName], now: Duration) -> Shares {
        let others = self.instances.iter().filter(|(name, _)| **name != self.instance);
        let living = others.filter(|(_, (_, since))| !self.is_silent(*since, now));
        let mut held: BTreeMap<&str, usize> =
            living.map(|(instance, _)| (instance.as_str(), 0)).collect();
        for (lease, _) in wanted.iter().filter_map(|name| self.leases.get(name)) {
            if let Some(count) = lease.holder.as_deref().and_then(|by| held.get_mut(by)) {
                *count += 1;
            }
        }
        let least = wanted.len() / (held.len() + 1);
        let most = wanted.len().div_ceil(held.len() + 1);
        let lacking = held.values().map(|held| least.saturating_sub(*held)).sum();
        let before_own = held.iter().filter(|(name, _)| **name < self.instance.as_str());
        let rank = before_own.filter(|(_, held)| **held > least).count();
        Shares { least, most, lacking, rank }
    }

    fn is_lost(&self, name: &LeaseName, epoch: i64) -> bool {
        let Some((lease, _)) = self.leases.get(name) else { return true };
        lease.epoch != epoch || lease.holder.as_deref() != Some(&self.instance)
    }

    fn is_free(&self, name: &LeaseName, now: Duration) -> bool {
        match self.leases.get(name) {
            None => true,
            Some((lease, since)) => match &lease.holder {
                None => true,
                // This run has taken it, and the answer was lost.
                Some(holder) if *holder == self.instance => true,
                Some(_) => self.is_silent(*since, now),
            },
        }
    }

    fn is_silent(&self, since: Duration, now: Duration) -> bool {
        now.saturating_sub(since) >= self.lease_time
    }

    /// Instances without a sign of life for twenty lease times: nothing but their row is left of them.
    fn departed(&self, now: Duration) -> Vec<String> {
        let silent = |since: Duration| now.saturating_sub(since) >= self.lease_time * 20;
        let others = self.instances.iter().filter(|(name, _)| **name != self.instance);
        others.filter(|(_, (_, since))| silent(*since)).map(|(name, _)| name.clone()).collect()
    }
}

/// How leases are spread over the instances that live.
struct Shares {
    /// How many each of them should hold at least.
    least: usize,
    /// How many each of them may hold at most: as many, or one more.
    most: usize,
    /// How many leases the others lack in all to have the least.
    lacking: usize,
    /// How many of the others hold more than the least and give that back before this instance does.
    rank: usize,
}

impl Shares {
    /// Whether this instance, which holds `own`, may take another one of those that are `free`. It
    /// takes one more than the least only if nobody else needs that one. Otherwise an instance that has
    /// just given a lease back would take it again.
    fn may_take(&self, own: usize, free: usize) -> bool {
        own < self.least || (own < self.most && free > self.lacking)
    }

    /// How many this instance, which holds `own`, has to give back.
    fn excess(&self, own: usize, free: usize) -> usize {
        let gives_one = own > self.least && self.rank < self.lacking.saturating_sub(free);
        own.saturating_sub(self.most).max(usize::from(gives_one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::part::Part, store::Presence};

    const LEASE_TIME: Duration = Duration::from_secs(10);

    fn name(part: u32) -> LeaseName {
        LeaseName { collection: "games".into(), part: Part { index: part, of: 4 } }
    }

    fn lease(part: u32, holder: Option<&str>, epoch: i64, beat: i64) -> Lease {
        Lease { name: name(part), holder: holder.map(str::to_owned), epoch, beat }
    }

    fn roster(leases: &[Lease], instances: &[(&str, i64)]) -> Roster {
        let presence =
            |(instance, beat): &(&str, i64)| Presence { instance: (*instance).into(), beat: *beat };
        Roster { leases: leases.to_vec(), instances: instances.iter().map(presence).collect() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn holds(parts: &[(u32, i64)]) -> BTreeMap<LeaseName, i64> {
        parts.iter().map(|(part, epoch)| (name(*part), *epoch)).collect()
    }

    #[test]
    fn a_lease_that_nobody_ever_held_is_taken() {
        let observed = Observed::new("me".into(), LEASE_TIME);
        assert_eq!(observed.plan(&[name(0)], &holds(&[]), seconds(0)).take, [(name(0), None)]);
    }

    #[test]
    fn a_lease_is_taken_only_after_the_lease_time_without_a_beat_on_the_own_clock() {
        let mut observed = Observed::new("me".into(), LEASE_TIME);
        let row = lease(0, Some("other"), 3, 7);
        observed.see(&roster(std::slice::from_ref(&row), &[]), seconds(100));
        observed.see(&roster(std::slice::from_ref(&row), &[]), seconds(109));
        assert_eq!(observed.plan(&[name(0)], &holds(&[]), seconds(109)).take, []);
        observed.see(&roster(std::slice::from_ref(&row), &[]), seconds(110));
        assert_eq!(
            observed.plan(&[name(0)], &holds(&[]), seconds(110)).take,
            [(name(0), Some(row))]
        );
        observed.see(&roster(&[lease(0, Some("other"), 3, 8)], &[]), seconds(111));
        assert_eq!(observed.plan(&[name(0)], &holds(&[]), seconds(111)).take, []);
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let mut observed = Observed::new("me".into(), LEASE_TIME);
        let row = lease(0, None, 3, 7);
        observed.see(&roster(std::slice::from_ref(&row), &[]), seconds(100));
        assert_eq!(
            observed.plan(&[name(0)], &holds(&[]), seconds(100)).take,
            [(name(0), Some(row))]
        );
    }

    #[test]
    fn an_instance_takes_no_more_than_its_share_and_gives_back_the_rest() {
        let wanted = [name(0), name(1), name(2)];
        let mut observed = Observed::new("me".into(), LEASE_TIME);
        let free: Vec<Lease> = (0..3).map(|part| lease(part, None, 1, 1)).collect();
        observed.see(&roster(&free, &[("me", 1), ("other", 1)]), seconds(0));
        assert_eq!(observed.plan(&wanted, &holds(&[]), seconds(0)).take.len(), 2);
        let mine: Vec<Lease> = (0..3).map(|part| lease(part, Some("me"), 1, 1)).collect();
        observed.see(&roster(&mine, &[("me", 2), ("other", 2)]), seconds(1));
        let plan = observed.plan(&wanted, &holds(&[(0, 1), (1, 1), (2, 1)]), seconds(1));
        assert_eq!(plan.give_back, [name(2)]);
        // A silent instance has no share.
        observed.see(&roster(&mine, &[("me", 3), ("other", 2)]), seconds(11));
        assert_eq!(
            observed.plan(&wanted, &holds(&[(0, 1), (1, 1), (2, 1)]), seconds(11)).give_back,
            []
        );
    }

    /// Lets instances look in turn, each at its own pace, until nobody wants anything else.
    fn settled(parts: usize, instances: &[&str]) -> BTreeMap<String, usize> {
        let wanted: Vec<LeaseName> = (0..parts as u32)
            .map(|index| LeaseName {
                collection: "games".into(),
                part: Part { index, of: parts as u32 },
            })
            .collect();
        // The first one was alone, and leads everything.
        let mut leases: BTreeMap<LeaseName, Lease> = BTreeMap::new();
        for name in &wanted {
            let holder = Some(instances[0].to_owned());
            leases.insert(name.clone(), Lease { name: name.clone(), holder, epoch: 1, beat: 0 });
        }
        let presences: Vec<(&str, i64)> = instances.iter().map(|name| (*name, 1)).collect();
        for turn in 0..200 {
            let me = instances[turn % instances.len()];
            let mut observed = Observed::new(me.into(), LEASE_TIME);
            let rows: Vec<Lease> = leases.values().cloned().collect();
            observed.see(&roster(&rows, &presences), seconds(0));
            let mine = rows.iter().filter(|lease| lease.holder.as_deref() == Some(me));
            let held = mine.map(|lease| (lease.name.clone(), lease.epoch)).collect();
            let plan = observed.plan(&wanted, &held, seconds(0));
            assert_eq!(plan.lost, []);
            for name in plan.give_back {
                leases.get_mut(&name).unwrap().holder = None;
            }
            for (name, _) in plan.take {
                leases.get_mut(&name).unwrap().holder = Some(me.into());
            }
        }
        assert!(leases.values().all(|lease| lease.holder.is_some()), "{leases:?}");
        let count =
            |me: &str| leases.values().filter(|lease| lease.holder.as_deref() == Some(me)).count();
        instances.iter().map(|me| ((*me).to_owned(), count(me))).collect()
    }

    #[test]
    fn every_instance_comes_to_lead_as_many_as_any_other_or_one_more() {
        for parts in 1..=9 {
            for instances in [&["b"][..], &["b", "a"], &["b", "a", "c"], &["d", "a", "c", "b"]] {
                let counts = settled(parts, instances);
                let (least, most) = (parts / instances.len(), parts.div_ceil(instances.len()));
                let fair = counts.values().all(|count| (least..=most).contains(count));
                assert!(fair, "{parts} parts: {counts:?}");
            }
        }
    }

    #[test]
    fn a_lease_of_a_division_that_is_gone_is_given_back_and_its_epoch_is_remembered() {
        let mut observed = Observed::new("me".into(), LEASE_TIME);
        observed.see(&roster(&[lease(0, Some("me"), 7, 1)], &[("me", 1)]), seconds(0));
        let whole = LeaseName { collection: "games".into(), part: Part::WHOLE };
        let plan = observed.plan(std::slice::from_ref(&whole), &holds(&[(0, 7)]), seconds(0));
        assert_eq!((plan.give_back, plan.take), (vec![name(0)], vec![(whole, None)]));
        assert_eq!((observed.last_epoch("games"), observed.last_epoch("users")), (7, 0));
    }

    #[test]
    fn a_lease_with_another_epoch_holder_or_none_at_all_is_lost() {
        let mut observed = Observed::new("me".into(), LEASE_TIME);
        let rows =
            [lease(0, Some("me"), 4, 1), lease(1, Some("other"), 1, 1), lease(2, Some("me"), 1, 1)];
        observed.see(&roster(&rows, &[]), seconds(0));
        let plan = observed.plan(&[], &holds(&[(0, 3), (1, 1), (2, 1), (3, 1)]), seconds(0));
        assert_eq!(plan.lost, [name(0), name(1), name(3)]);
    }
}
