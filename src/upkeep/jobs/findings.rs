//! What a walk over all documents finds wrong: small enough to be saved with every step, so that whoever takes the job
//! over goes on counting.

use bson::{Bson, Document, RawBsonRef, doc};

use super::count;
use crate::model::{
    id::{DocumentId, integral},
    job::{Kind, Order},
};

/// How many findings a job keeps. There may be more: they are counted.
const FINDINGS_MAX: usize = 100;
/// The longest description of one finding, in characters.
const PROBLEM_CHARS_MAX: usize = 500;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
struct Finding {
    /// `None` where it is about an event of no document.
    document: Option<DocumentId>,
    /// The version of the row; 0 when there is none.
    version: i64,
    problem: String,
    /// Whether the row was made again, and is right by now.
    is_repaired: bool,
}

/// How many documents a job has left unlike their log, if it has looked at all of them.
pub(crate) fn left_unlike_log(order: &Order, result: &Document) -> Option<i64> {
    let looks_at_all =
        matches!(order.kind, Kind::Verify | Kind::Rebuild) && order.document.is_none();
    looks_at_all.then(|| count(result, "differences") - count(result, "repaired"))
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Findings {
    /// Documents that have been compared with their log.
    pub(super) documents: i64,
    /// Events that were folded for that.
    pub(super) events: i64,
    /// Documents that are not what their log makes of them.
    differences: i64,
    /// How many of these were made again.
    repaired: i64,
    /// The first of the differences.
    first: Vec<Finding>,
}

impl Findings {
    pub(super) fn find(&mut self, document: &DocumentId, version: i64, problem: &str) {
        self.add(Some(document), version, problem, false);
    }

    /// The same of a document whose row was made again, and is right by now.
    pub(super) fn find_repaired(&mut self, document: &DocumentId, version: i64, problem: &str) {
        self.repaired += 1;
        self.add(Some(document), version, problem, true);
    }

    /// An event of the log belongs to no document. Whoever goes on behind the document before it meets it again.
    pub(super) fn find_stray(&mut self, stray: &str) {
        let is_known =
            |known: &Finding| known.document.is_none() && stray.starts_with(&known.problem);
        if !self.first.iter().any(is_known) {
            self.add(None, 0, stray, false);
        }
    }

    fn add(
        &mut self,
        document: Option<&DocumentId>,
        version: i64,
        problem: &str,
        is_repaired: bool,
    ) {
        self.differences += 1;
        if self.first.len() < FINDINGS_MAX {
            let problem = problem.chars().take(PROBLEM_CHARS_MAX).collect();
            let document = document.cloned();
            self.first.push(Finding { document, version, problem, is_repaired });
        }
    }

    /// As they stand in the row of the job, after what else its kind counts.
    pub(super) fn to_bson(&self, counts: Document) -> Document {
        let mut tally = doc! { "documents": self.documents, "events": self.events };
        tally.extend(counts);
        let findings = self.first.iter().map(|finding| {
            let Finding { document, version, problem, is_repaired } = finding;
            let document = document.as_ref().map_or(Bson::Null, DocumentId::to_bson);
            let mut finding = doc! { "document": document, "version": version, "problem": problem };
            if *is_repaired {
                finding.insert("repaired", true);
            }
            finding.into()
        });
        tally.insert("differences", self.differences);
        if self.repaired > 0 {
            tally.insert("repaired", self.repaired);
        }
        tally.insert("findings", Bson::Array(findings.collect()));
        tally
    }

    /// Reads them back.
    pub(super) fn from_bson(saved: &Document) -> Self {
        let findings = saved.get_array("findings").map(Vec::as_slice).unwrap_or_default();
        let first = findings.iter().filter_map(|finding| read(finding.as_document()?));
        Self {
            documents: count(saved, "documents"),
            events: count(saved, "events"),
            differences: count(saved, "differences"),
            repaired: count(saved, "repaired"),
            first: first.take(FINDINGS_MAX).collect(),
        }
    }
}

fn read(finding: &Document) -> Option<Finding> {
    let raw = bson::RawDocumentBuf::try_from(finding).ok()?;
    let document = match raw.get("document").ok()?? {
        RawBsonRef::Null => None,
        id => Some(DocumentId::from_raw(id).ok()?),
    };
    Some(Finding {
        document,
        version: raw.get("version").ok().flatten().and_then(integral)?,
        problem: finding.get_str("problem").ok()?.to_owned(),
        is_repaired: finding.get_bool("repaired").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_bounded_and_read_back_as_they_were_written() {
        let mut findings = Findings { documents: 1_000, events: 5, ..Findings::default() };
        for _ in 0..2 {
            findings.find_stray(&"y".repeat(1_000));
        }
        findings.find_repaired(&DocumentId::Integer(1), 3, "x");
        for number in 2..300 {
            findings.find(&DocumentId::Integer(number), 3, &"x".repeat(1_000));
        }
        let saved = findings.to_bson(doc! { "taken": 3_i64 });
        assert_eq!((count(&saved, "differences"), count(&saved, "taken")), (300, 3));
        assert_eq!(findings.first.len(), FINDINGS_MAX);
        assert!(bson::RawDocumentBuf::try_from(&saved).unwrap().as_bytes().len() < 100_000);
        assert_eq!(Findings::from_bson(&saved), findings);
        let junk = doc! { "documents": "many", "events": -3, "findings": [1, { "a": 1 }] };
        assert_eq!(Findings::from_bson(&junk), Findings::default());
    }
}
