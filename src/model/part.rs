//! Parts of a collection: which of several daemons looks after a document. A stable hash of the
//! canonical id, so that every instance and every version of this program agrees.

use std::{cmp::Ordering, fmt};

use sha2::{Digest, Sha256};

use super::{
    id::DocumentId,
    position::{Checkpoint, Position},
};

/// Into how many parts a collection may be divided at most.
pub const PARTS_MAX: u32 = 64;

/// One part out of several of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// Which, from 0.
    pub index: u32,
    /// Of how many; at least 1.
    pub of: u32,
}

impl Part {
    /// The only part of an undivided collection.
    pub const WHOLE: Self = Self { index: 0, of: 1 };

    /// All parts of a collection that is divided into `of`.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (0..of).map(move |index| Self { index, of })
    }

    /// Whether some document may be in both parts, of whatever divisions.
    pub fn overlaps(self, other: Self) -> bool {
        let common = gcd(self.of.max(1), other.of.max(1));
        self.index % common == other.index % common
    }

    /// Whether this part looks after the document: the first eight bytes of the SHA-256 of its canonical
    /// id, as a big-endian number, modulo the number of parts.
    pub fn holds(self, document: &DocumentId) -> bool {
        if self.of <= 1 {
            return true;
        }
        let mut hash = Sha256::new();
        match document {
            DocumentId::Integer(number) => {
                hash.update(b"i");
                hash.update(number.to_be_bytes());
            }
            DocumentId::String(text) => {
                hash.update(b"s");
                hash.update(text.as_bytes());
            }
            DocumentId::Uuid(bytes) => {
                hash.update(b"u");
                hash.update(bytes);
            }
            DocumentId::ObjectId(oid) => {
                hash.update(b"o");
                hash.update(oid.bytes());
            }
        }
        let hash = hash.finalize();
        let number = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.of) == u64::from(self.index)
    }
}

/// A place at which a part may begin: saved checkpoints say that everything before it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vouched<'a> {
    /// The place.
    pub position: &'a Position,
    /// Whether it is the part's own checkpoint that says so.
    pub is_own: bool,
    /// Whether no other place has the same time. If one has, nobody can tell which is earlier, and the
    /// part begins with everything of that time.
    pub is_single: bool,
    /// About how many events the log held up to there, where that is known.
    pub passed_events: Option<u64>,
}

/// The latest place at which `part` may begin, by all `saved` checkpoints of its collection, whatever
/// division they are of and however old.
///
/// What a checkpoint says stays true for ever: every event of its part before its position is in a row,
/// or on record as waiting, and rows only move forward. Take the parts of one division that overlap
/// with `part`. Together they are right about everything before the smallest of their positions. Of
/// several divisions, the one with the latest such position is the best.
pub fn vouched(part: Part, saved: &[(Part, Checkpoint)]) -> Option<Vouched<'_>> {
    let mut divisions: Vec<u32> = saved.iter().map(|(part, _)| part.of).collect();
    divisions.sort_unstable();
    divisions.dedup();
    let by_division = divisions.into_iter().filter_map(|of| smallest(part, of, saved));
    by_division.max_by_key(|vouched| (vouched.position.cluster_time, vouched.is_own))
}

/// The smallest position of the parts, out of `of`, that overlap with `part`. `None` if one of them has
/// none.
fn smallest(part: Part, of: u32, saved: &[(Part, Checkpoint)]) -> Option<Vouched<'_>> {
    let mut smallest: Option<Vouched<'_>> = None;
    for other in Part::all(of).filter(|other| other.overlaps(part)) {
        let (_, checkpoint) = saved.iter().find(|(saved, _)| *saved == other)?;
        let position = checkpoint.position.as_ref()?;
        let passed_events = checkpoint.passed_events;
        let this = Vouched { position, is_own: other == part, is_single: true, passed_events };
        smallest = Some(match smallest {
            None => this,
            Some(known) => match known.position.cluster_time.cmp(&position.cluster_time) {
                Ordering::Less => known,
                Ordering::Greater => this,
                Ordering::Equal => {
                    let is_single = known.is_single && known.position == position;
                    Vouched { is_single, ..known }
                }
            },
        });
    }
    smallest
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::position::LogId;
    use bson::{RawBson, Timestamp, Uuid};

    fn saved(index: u32, of: u32, time: u32, token: i32) -> (Part, Checkpoint) {
        let cluster_time = Timestamp { time, increment: 1 };
        let position = Position { token: RawBson::Int32(token), cluster_time };
        let position = Some(position).filter(|_| time > 0);
        let log = LogId(Uuid::from_bytes([1; 16]));
        (
            Part { index, of },
            Checkpoint { position, log, epoch: 1, passed_events: None, rows: None },
        )
    }

    /// The time at which a part begins, and whether its place is the only one at that time.
    fn begins(index: u32, of: u32, saved: &[(Part, Checkpoint)]) -> Option<(u32, bool)> {
        let found = vouched(Part { index, of }, saved)?;
        Some((found.position.cluster_time.time, found.is_single))
    }

    #[test]
    fn parts_overlap_when_a_document_is_in_both() {
        for (of, other_of) in [(1, 4), (2, 4), (2, 3), (4, 6), (6, 9), (3, 3)] {
            for part in Part::all(of) {
                for other in Part::all(other_of) {
                    let both =
                        |number: u32| number % of == part.index && number % other_of == other.index;
                    let shared = (0..of * other_of).any(both);
                    assert_eq!(part.overlaps(other), shared, "{part:?} {other:?}");
                }
            }
        }
    }

    #[test]
    fn a_part_begins_at_its_own_checkpoint() {
        assert_eq!(begins(1, 2, &[saved(0, 2, 3, 1), saved(1, 2, 9, 1)]), Some((9, true)));
        assert_eq!(begins(0, 1, &[saved(0, 1, 9, 1)]), Some((9, true)));
        assert_eq!(begins(0, 1, &[]), None);
        assert_eq!(begins(0, 1, &[saved(0, 1, 0, 1)]), None);
    }

    #[test]
    fn a_new_part_begins_at_the_smallest_position_of_those_that_its_documents_come_from() {
        let two = [saved(0, 2, 5, 1), saved(1, 2, 8, 1)];
        assert_eq!(begins(0, 1, &two), Some((5, true)));
        assert_eq!(begins(1, 3, &two), Some((5, true)));
        // Of the odd parts of four, every document was in the second of two.
        assert_eq!(begins(3, 4, &two), Some((8, true)));
        assert_eq!(begins(2, 4, &two), Some((5, true)));
    }

    #[test]
    fn nobody_vouches_for_a_part_while_one_that_it_comes_from_has_no_position() {
        assert_eq!(begins(0, 1, &[saved(0, 2, 5, 1)]), None);
        assert_eq!(begins(0, 1, &[saved(0, 2, 5, 1), saved(1, 2, 0, 1)]), None);
        assert_eq!(begins(0, 4, &[saved(0, 2, 5, 1), saved(1, 2, 0, 1)]), Some((5, true)));
    }

    #[test]
    fn of_several_divisions_the_one_that_has_come_furthest_counts() {
        let mut all = vec![saved(0, 1, 6, 1), saved(0, 2, 7, 1), saved(1, 2, 5, 1)];
        assert_eq!(begins(0, 1, &all), Some((6, true)));
        all.extend([saved(0, 3, 9, 1), saved(1, 3, 9, 1), saved(2, 3, 8, 1)]);
        assert_eq!(begins(0, 1, &all), Some((8, true)));
        assert_eq!(begins(0, 2, &all), Some((8, true)));
        all.pop();
        assert_eq!(begins(0, 2, &all), Some((7, true)));
    }

    #[test]
    fn of_two_places_at_one_time_nobody_can_tell_the_earlier() {
        assert_eq!(begins(0, 1, &[saved(0, 2, 5, 1), saved(1, 2, 5, 2)]), Some((5, false)));
        assert_eq!(begins(0, 1, &[saved(0, 2, 5, 1), saved(1, 2, 5, 1)]), Some((5, true)));
        let three = [saved(0, 3, 5, 1), saved(1, 3, 5, 2), saved(2, 3, 4, 1)];
        assert_eq!(begins(0, 1, &three), Some((4, true)));
    }

    #[test]
    fn every_document_is_in_exactly_one_part_and_parts_are_of_similar_size() {
        let mut sizes = [0; 4];
        for number in 0..4_000 {
            let id = DocumentId::Integer(number);
            let holders: Vec<Part> = Part::all(4).filter(|part| part.holds(&id)).collect();
            assert_eq!(holders.len(), 1);
            sizes[holders[0].index as usize] += 1;
        }
        assert!(sizes.iter().all(|size| (900..1_100).contains(size)), "{sizes:?}");
    }

    #[test]
    fn the_hash_is_the_same_in_every_version_of_this_program() {
        let part = |id: DocumentId| Part::all(16).find(|part| part.holds(&id)).unwrap().index;
        assert_eq!(part(DocumentId::Integer(5)), PINNED[0]);
        assert_eq!(part(DocumentId::String("5".into())), PINNED[1]);
        assert_eq!(part(DocumentId::Uuid([5; 16])), PINNED[2]);
    }

    /// Computed by another program; a change would scatter the documents of every divided collection.
    const PINNED: [u32; 3] = [1, 8, 0];
}
