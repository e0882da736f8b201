//! Placeholder until the operators land.
use super::state::*;
use bson::*;
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct PatchError;
impl PatchError {
    /// x
    pub fn is_too_large(&self) -> bool {
        false
    }
}
/// x
pub fn apply(
    _s: &mut State,
    _p: &RawDocument,
    _f: Option<&RawArray>,
    _at: DateTime,
    _l: &Limits,
) -> Result<(), PatchError> {
    Ok(())
}
/// x
pub fn merge(_s: &mut State, _p: &RawDocument, _l: &Limits) -> Result<(), PatchError> {
    Ok(())
}
