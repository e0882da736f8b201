//! What one document may grow to. A patch beyond a limit is refused as a whole, so that no event,
//! however hostile, takes more memory than these numbers allow.

/// Limits on the result of a patch, and on what it takes to find it.
///
/// With the defaults no event of up to 16 MiB takes more than 512 MiB while it is being applied, whatever
/// it asks for and whatever the state holds. That is about 25 bytes for each byte of the event (a patch
/// may consist of a million paths) and 20 for each byte of the state (an array of nulls), and half a MiB for
/// each of at most 64 regular expressions. `tests/hostile` holds the process to it.
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
    /// condition, 16 bytes of a value looked through, a branch of a match with a pattern. What a match will take
    /// is not known before, so it is counted as the most that it may take: 32 branches for every byte of the text, and
    /// more when these do not suffice. The default is a few seconds' worth; without a limit a patch of a few
    /// kilobytes could take for ever.
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
