//! Where this crate differs from the server on purpose. The list with its reasons is in the
//! documentation of `model::patch`; here is what each side does.

use bson::{Bson, Document, RawDocumentBuf, doc};

use crate::generate::Case;
use crate::sides::{self, Outcome};

/// Whether both sides came out alike, or differ as they should about the positional `$`: here it is
/// always refused, and the server ignores it where no element leads to it.
pub(crate) fn agrees(case: &Case, ours: &Outcome, theirs: &Outcome) -> bool {
    ours.agrees(theirs)
        || without_positional(case).is_some_and(|ignored| {
            matches!(ours, Outcome::Refused(_)) && sides::ours(&ignored).agrees(theirs)
        })
}

/// The case without paths that have a positional `$`; nothing when there are none.
fn without_positional(case: &Case) -> Option<Case> {
    let mut found = false;
    let mut paths = String::new();
    let mut patch = Document::new();
    for (operator, fields) in &case.patch {
        let Bson::Document(fields) = fields else { return None };
        let mut kept = Document::new();
        for (path, argument) in fields {
            let positional = |path: &str| path.split('.').any(|component| component == "$");
            if positional(path)
                || operator == "$rename" && argument.as_str().is_some_and(positional)
            {
                found = true;
            } else {
                paths.push_str(path);
                kept.insert(path, argument.clone());
            }
        }
        patch.insert(operator, kept);
    }
    // A filter that only the ignored paths use counts as used.
    let used = |filter: &&Document| {
        let name = filter.keys().next().and_then(|key| key.split('.').next());
        name.is_some_and(|name| paths.contains(&format!("$[{name}]")))
    };
    let filters = case.filters.iter().filter(used).cloned().collect();
    found.then_some(Case { state: case.state.clone(), patch, filters })
}

/// What one side makes of a case.
pub(crate) enum Expected {
    Refused,
    State(Document),
}

impl Expected {
    pub(crate) fn is(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Refused, Outcome::Refused(_)) => true,
            (Self::State(expected), Outcome::State(state)) => {
                RawDocumentBuf::try_from(expected).is_ok_and(|expected| expected == *state)
            }
            _ => false,
        }
    }
}

/// A difference by name: the case, what this crate makes of it, and what the server does.
pub(crate) type Difference = (&'static str, Case, Expected, Expected);

/// A patch that is refused here, and what the server turns the state into.
fn refused(name: &'static str, state: Document, patch: Document, theirs: Document) -> Difference {
    let case = Case { state, patch, filters: Vec::new() };
    (name, case, Expected::Refused, Expected::State(theirs))
}

/// Pulling by a pattern that is refused here.
fn pattern(name: &'static str, texts: [&str; 2], pattern: &str) -> Difference {
    let patch = doc! {"$pull": {"a": {"$regex": pattern}}};
    refused(name, doc! {"a": [texts[0], texts[1]]}, patch, doc! {"a": [texts[1]]})
}

/// Every difference that a single update can show, but for times.
pub(crate) fn differences() -> Vec<Difference> {
    let nothing = Case { state: doc! {"a": 1}, patch: doc! {}, filters: Vec::new() };
    vec![
        (
            "an empty patch changes nothing, where the server takes it for an empty document",
            nothing,
            Expected::State(doc! {"a": 1}),
            Expected::State(doc! {}),
        ),
        refused("a whole document is no patch", doc! {"a": 1}, doc! {"b": 2}, doc! {"b": 2}),
        refused(
            "the positional $ is refused even where no element leads to it",
            doc! {"a": []},
            doc! {"$pop": {"a.$[].b.$": 1}, "$set": {"b": 1}},
            doc! {"a": [], "b": 1},
        ),
        refused(
            "_id is refused even where nothing would change",
            doc! {"a": 1},
            doc! {"$unset": {"_id.a": ""}},
            doc! {"a": 1},
        ),
        pattern("a pattern that calls a group", ["aa", "b"], "(a)(?1)"),
        pattern("a pattern that looks behind at a choice", ["ab", "xb"], "(?<=(?:a|c))b"),
        pattern("a pattern with a script", ["a", "1"], "\\p{Latin}"),
        pattern("a pattern with a verb", ["a", "b"], "(*COMMIT)a"),
        pattern("a pattern with properties everywhere", ["é", "-"], "(*UCP)\\w"),
        pattern("a pattern with clusters", ["a", ""], "\\X"),
        pattern("a pattern with ends of lines", ["a\n", "b"], "a\\R"),
        pattern("a pattern with an escape that is none", ["j", "b"], "\\j"),
        pattern(
            "a pattern with a character that the server does not know",
            ["\u{1c80}", "b"],
            "(?i)\u{1c80}",
        ),
        refused(
            "a text whose case the server does not know",
            doc! {"a": ["\u{1c80}"]},
            doc! {"$pull": {"a": {"$regex": "в", "$options": "i"}}},
            doc! {"a": ["\u{1c80}"]},
        ),
        refused(
            "a text of a kind that the server does not know",
            doc! {"a": ["\u{1f9ff}"]},
            doc! {"$pull": {"a": {"$regex": "\\p{S}"}}},
            doc! {"a": ["\u{1f9ff}"]},
        ),
        refused(
            "a pattern that the server gives up, which it takes for no match",
            doc! {"a": ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaac"]},
            doc! {"$pull": {"a": {"$regex": "^(a|aa)+$|c"}}},
            doc! {"a": ["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaac"]},
        ),
        refused(
            "a geographic condition",
            doc! {"a": [{"p": [0, 0]}, {"p": [9, 9]}]},
            doc! {"$pull": {"a": {"p": {"$geoWithin": {"$center": [[0, 0], 1]}}}}},
            doc! {"a": [{"p": [9, 9]}]},
        ),
        refused(
            "a condition of chance",
            doc! {"a": [{}]},
            doc! {"$pull": {"a": {"$sampleRate": 1.0}}},
            doc! {"a": []},
        ),
    ]
}
