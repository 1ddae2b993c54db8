//! What was said while a version was made.

use piecework_model::{AccountId, FunctionId, FunctionName};

/// Of a deploy, for its developer alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildLog {
    pub owner: AccountId,
    /// The function's, as the deploy had it.
    pub name: FunctionName,
    /// What became of it; `None` of a deploy that failed.
    pub version: Option<(FunctionId, u32)>,
    pub at_ms: u64,
    pub text: String,
}
