//! A call from admission to its answer: who may start, where it runs, what came of it, and where its output goes.

pub(crate) mod answer;
pub(crate) mod compare;
pub(crate) mod dispatch;
pub(crate) mod finishing;
pub(crate) mod inflight;
pub(crate) mod invoke;
pub(crate) mod logs;
pub(crate) mod outcome;
pub(crate) mod passing;
pub(crate) mod queue;
pub(crate) mod reference;
pub(crate) mod results;
pub(crate) mod search;
pub(crate) mod streams;
pub(crate) mod upload;
