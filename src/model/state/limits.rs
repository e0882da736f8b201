//! What one document may grow to. A patch beyond a limit is refused as a whole, so that no event,
//! however hostile, takes more memory than these numbers allow.

/// Limits on the result of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest encoded state, in bytes. While one patch is being applied the state may pass through
    /// up to twice this size, as long as it ends below it.
    pub state_bytes_max: usize,
    /// Deepest level of a field; a field of the root is at level 1. The server stores 180 levels,
    /// and a projected document keeps its state one level below its root.
    pub depth_max: usize,
    /// Most nulls that one operator may add to an array to reach an index beyond its end. The
    /// server's own number.
    pub padding_max: usize,
    /// Most steps that one patch may take: a field's name compared, an element tested against one
    /// condition. The default is a few seconds' worth; without a limit a patch of a few megabytes
    /// on an array of a few megabytes could take hours.
    pub steps_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            state_bytes_max: 15 * 1024 * 1024,
            depth_max: 179,
            padding_max: 1_500_000,
            steps_max: 1_000_000_000,
        }
    }
}
