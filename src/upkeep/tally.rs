//! What a job has found so far: small enough to be saved with every step, so that whoever takes the job
//! over goes on counting.

use bson::{Bson, Document, RawDocument, doc};

use crate::model::{
    id::{DocumentId, integral},
    job::Kind,
};

/// How many findings a job keeps. There may be more: they are counted.
const FINDINGS_MAX: usize = 100;
/// The longest description of one finding, in characters.
const PROBLEM_CHARS_MAX: usize = 500;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) document: DocumentId,
    /// The version of the row; 0 when there is none.
    pub(super) version: i64,
    pub(super) problem: String,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tally {
    /// Documents that have been compared with their log.
    pub(super) documents: i64,
    /// Events that were folded for that.
    pub(super) events: i64,
    /// Snapshots that were stored.
    pub(super) taken: i64,
    /// Snapshots that were there already.
    pub(super) existed: i64,
    /// Parked documents that wait no more.
    pub(super) healed: i64,
    /// The version that an operation has begun with.
    pub(super) version: i64,
    /// Documents that are not what their log makes of them.
    pub(super) differences: i64,
    /// The first of these.
    pub(super) findings: Vec<Finding>,
}

impl Tally {
    pub(super) fn find(&mut self, document: &DocumentId, version: i64, problem: &str) {
        self.differences += 1;
        if self.findings.len() < FINDINGS_MAX {
            let problem = problem.chars().take(PROBLEM_CHARS_MAX).collect();
            self.findings.push(Finding { document: document.clone(), version, problem });
        }
    }

    /// As it stands in the row of the job: what a job of this kind counts.
    pub(super) fn to_bson(&self, kind: Kind) -> Document {
        if kind == Kind::Retry {
            return doc! { "documents": self.documents, "healed": self.healed };
        } else if kind.is_for_one() {
            return doc! { "version": self.version };
        }
        let mut tally = doc! { "documents": self.documents, "events": self.events };
        if kind == Kind::Snapshot {
            tally.extend(doc! { "taken": self.taken, "existed": self.existed });
        }
        let findings = self.findings.iter().map(|finding| {
            let Finding { document, version, problem } = finding;
            doc! { "document": document.to_bson(), "version": version, "problem": problem }.into()
        });
        tally.insert("differences", self.differences);
        tally.insert("findings", Bson::Array(findings.collect()));
        tally
    }

    /// Reads it back. What is not readable, because the row was inserted like that, is left out.
    pub(super) fn from_raw(raw: &RawDocument) -> Self {
        let count =
            |name: &str| raw.get(name).ok().flatten().and_then(integral).unwrap_or_default().max(0);
        let findings = raw.get_array("findings").ok().into_iter().flatten().flatten();
        Self {
            documents: count("documents"),
            events: count("events"),
            taken: count("taken"),
            existed: count("existed"),
            healed: count("healed"),
            version: count("version"),
            differences: count("differences"),
            findings: findings
                .filter_map(|finding| read(finding.as_document()?))
                .take(FINDINGS_MAX)
                .collect(),
        }
    }
}

fn read(finding: &RawDocument) -> Option<Finding> {
    Some(Finding {
        document: DocumentId::from_raw(finding.get("document").ok()??).ok()?,
        version: finding.get("version").ok().flatten().and_then(integral)?,
        problem: finding.get_str("problem").ok()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawDocumentBuf;

    #[test]
    fn a_tally_is_bounded_and_read_back_as_it_was_written() {
        let mut tally = Tally { documents: 1_000, events: 5, taken: 3, ..Tally::default() };
        for number in 0..300 {
            tally.find(&DocumentId::Integer(number), 3, &"x".repeat(1_000));
        }
        assert_eq!(tally.differences, 300);
        assert_eq!(tally.findings.len(), FINDINGS_MAX);
        let raw = RawDocumentBuf::try_from(&tally.to_bson(Kind::Snapshot)).unwrap();
        assert!(raw.as_bytes().len() < 100_000);
        assert_eq!(Tally::from_raw(&raw), tally);
        let junk = bson::rawdoc! { "documents": "many", "taken": -3, "findings": [1, { "a": 1 }] };
        assert_eq!(Tally::from_raw(&junk), Tally::default());
    }
}
