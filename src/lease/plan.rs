//! What to do about leases, decided from what was read and when: pure, so that every rule can be
//! tested without a database or a clock.
//!
//! A lease is up for taking when it was given back, or when its `{epoch, beat}` has not changed for the
//! lease time on this instance's own monotonic clock. An instance takes no more than its fair share of
//! the leases among the instances that live, and gives back what it holds beyond that.

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
        let mut holding = held.len() - plan.lost.len();
        let share = wanted.len().div_ceil(self.living(now));
        for name in wanted.iter().filter(|name| !held.contains_key(*name)) {
            if holding < share && self.is_free(name, now) {
                plan.take
                    .push((name.clone(), self.leases.get(name).map(|(lease, _)| lease.clone())));
                holding += 1;
            }
        }
        let excess = holding.saturating_sub(share);
        let kept = held.keys().filter(|name| !plan.lost.contains(name));
        plan.give_back = kept.rev().take(excess).cloned().collect();
        plan
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
                // Taken by this very run, whose answer was lost.
                Some(holder) if *holder == self.instance => true,
                Some(_) => self.is_silent(*since, now),
            },
        }
    }

    fn is_silent(&self, since: Duration, now: Duration) -> bool {
        now.saturating_sub(since) >= self.lease_time
    }

    /// How many instances live, this one among them.
    fn living(&self, now: Duration) -> usize {
        let others = self.instances.iter().filter(|(name, _)| **name != self.instance);
        1 + others.filter(|(_, (_, since))| !self.is_silent(*since, now)).count()
    }

    /// Twenty lease times without a sign: long enough that only its row is left of it.
    fn departed(&self, now: Duration) -> Vec<String> {
        let silent = |since: Duration| now.saturating_sub(since) >= self.lease_time * 20;
        let others = self.instances.iter().filter(|(name, _)| **name != self.instance);
        others.filter(|(_, (_, since))| silent(*since)).map(|(name, _)| name.clone()).collect()
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
