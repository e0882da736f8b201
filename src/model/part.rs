//! Parts of a collection: which of several daemons looks after a document. A stable hash of the
//! canonical id, so that every instance and every version of this program agrees.

use sha2::{Digest, Sha256};

use super::id::DocumentId;

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

#[cfg(test)]
mod tests {
    use super::*;

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
