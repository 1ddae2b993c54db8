//! Single values as the API shows them.

use piecework_api::jobs::JobState as ApiJobState;
use piecework_store::JobState;

pub(crate) fn job_state(state: JobState) -> ApiJobState {
    match state {
        JobState::Queued => ApiJobState::Queued,
        JobState::Running => ApiJobState::Running,
        JobState::Succeeded => ApiJobState::Succeeded,
        JobState::Failed => ApiJobState::Failed,
        JobState::TimedOut => ApiJobState::TimedOut,
        JobState::Cancelled => ApiJobState::Cancelled,
        JobState::Expired => ApiJobState::Expired,
    }
}

pub(crate) fn ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
