//! Placeholder until the editable tree lands.
use bson::*;
/// x
#[derive(Clone, Debug)]
pub struct State(RawDocumentBuf);
/// x
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {}
/// x
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StateError;
impl State {
    /// x
    pub fn from_raw(raw: &RawDocument) -> Result<State, StateError> {
        Ok(State(raw.to_owned()))
    }
    /// x
    pub fn to_raw(&self) -> RawDocumentBuf {
        self.0.clone()
    }
    /// x
    pub fn bytes(&self) -> usize {
        self.0.as_bytes().len()
    }
}
impl Limits {
    /// x
    pub fn check(&self, _s: &State) -> Result<(), StateError> {
        Ok(())
    }
}
