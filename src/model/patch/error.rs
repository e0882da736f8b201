//! Why a patch is refused. Every refusal names the operator and the path, and says what to do.

use thiserror::Error;

use crate::model::state::Malformed;

/// A patch that cannot be applied. The state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The bytes of the patch, or of the part of the state that it touches, are not BSON.
    #[error("the patch cannot be read: {0}; write the event again with a MongoDB driver")]
    Malformed(#[from] Malformed),
    /// The operator does not exist, or has no place in an event.
    #[error("{operator:?} cannot be used in a patch: {reason}")]
    Operator {
        /// The operator as written.
        operator: String,
        /// Why, and what to write instead.
        reason: &'static str,
    },
    /// The path cannot be one.
    #[error("{operator} {path:?}: {reason}")]
    Path {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// Why, and what to write instead.
        reason: &'static str,
    },
    /// What the operator was given makes no sense for it.
    #[error("{operator} {path:?}: {reason}")]
    Argument {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// Two operators want the same field, or a field and something inside it.
    #[error(
        "{operator} {path:?} conflicts with {other:?} in the same patch; \
         write them as two events, or as one operator on the longer path's parent"
    )]
    Conflict {
        /// The operator that came second.
        operator: &'static str,
        /// Its path.
        path: String,
        /// The path it conflicts with.
        other: String,
    },
    /// The state has something else at the path than the operator needs.
    #[error("{operator} {path:?}: the state has {found} there; {reason}")]
    Mismatch {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// The type that was found.
        found: &'static str,
        /// What the operator needs.
        reason: &'static str,
    },
    /// An array filter is missing, unused or wrong.
    #[error("array filter {name:?}: {reason}")]
    ArrayFilter {
        /// The filter's identifier.
        name: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// The state would become larger than allowed.
    #[error(
        "the state would take {bytes} bytes, more than the {max} that are allowed; \
         split the document, or raise the limit"
    )]
    TooLarge {
        /// Encoded size in bytes that the patch leads to.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The state would nest deeper than allowed.
    #[error("{operator} {path:?}: the state would nest deeper than {max} levels; flatten it")]
    TooDeep {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// The limit in levels.
        max: usize,
    },
    /// The patch would take too long.
    #[error(
        "{operator} {path:?}: the patch takes more than {max} steps on this state; \
         split it into several events"
    )]
    TooMuchWork {
        /// The operator during which the limit was reached.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// The limit in steps.
        max: usize,
    },
    /// A regular expression cannot say whether a text of the state matches.
    #[error("{operator} {path:?}: {reason}")]
    Pattern {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// An array would have to be filled up with too many nulls.
    #[error(
        "{operator} {path:?}: reaching that index needs more than {max} nulls before it; \
         append with $push, or use a document with the numbers as names"
    )]
    TooMuchPadding {
        /// The operator.
        operator: &'static str,
        /// The path as written.
        path: String,
        /// The limit in elements.
        max: usize,
    },
}

impl PatchError {
    /// Whether a limit on size, depth or growth was exceeded: the patch is well-formed and would be
    /// accepted on a smaller document. Every other refusal is a mistake in the patch.
    #[must_use]
    pub fn too_large(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. }
                | Self::TooDeep { .. }
                | Self::TooMuchWork { .. }
                | Self::TooMuchPadding { .. }
        )
    }
}

/// What a type is called in a message.
pub(crate) fn type_name(tag: u8) -> &'static str {
    use crate::model::state::raw::tag;
    match tag {
        tag::DOUBLE => "a double",
        tag::STRING => "a string",
        tag::DOCUMENT => "a document",
        tag::ARRAY => "an array",
        tag::BINARY => "binary data",
        tag::UNDEFINED => "undefined",
        tag::OBJECT_ID => "an ObjectId",
        tag::BOOLEAN => "a boolean",
        tag::DATE => "a date",
        tag::NULL => "null",
        tag::REGEX => "a regular expression",
        tag::DB_POINTER => "a DBPointer",
        tag::CODE => "code",
        tag::SYMBOL => "a symbol",
        tag::CODE_WITH_SCOPE => "code with scope",
        tag::INT32 => "an int",
        tag::TIMESTAMP => "a timestamp",
        tag::INT64 => "a long",
        tag::DECIMAL128 => "a decimal",
        tag::MIN_KEY => "MinKey",
        tag::MAX_KEY => "MaxKey",
        _ => "a value of unknown type",
    }
}
