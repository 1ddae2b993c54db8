//! Notes of results: begun with a job, due, changed, expired.

use piecework_model::{FunctionId, JobId};

use super::samples::{self, unique};
use piecework_store::{Job, ResultNote, ResultState, Store};

/// Nothing of another test is due so early or expires so late.
const NOW_MS: u64 = 1_000;

fn note(job: JobId, function: FunctionId) -> ResultNote {
    ResultNote {
        job,
        function,
        state: ResultState::Delivering,
        attempts: 0,
        next_at_ms: NOW_MS,
        expires_at_ms: None,
        detail: String::new(),
    }
}

fn job() -> Job {
    samples::finished(unique(), samples::function_id(unique()), samples::account(unique()))
}

pub(super) async fn the_first_note_of_a_job_counts_and_is_read_at_once(store: &dyn Store) {
    let job = job();
    let first = note(job.id, job.function);
    store.begin_result(first.clone()).expect("kept");
    let second = ResultNote {
        detail: "another".into(),
        ..first.clone()
    };
    store.begin_result(second.clone()).expect("dropped");
    assert_eq!(store.result(job.id).await.expect("read").as_ref(), Some(&first));
    store.flush().await.expect("filed");
    store.begin_result(second).expect("dropped");
    store.flush().await.expect("filed");
    assert_eq!(store.result(job.id).await.expect("read"), Some(first));
    assert_eq!(store.result(samples::job_id(unique())).await.expect("read"), None);
}

pub(super) async fn what_is_owed_is_due_when_its_time_comes_and_a_function_can_be_left_out(store: &dyn Store) {
    let (here, other) = (job(), job());
    for job in [&here, &other] {
        store.begin_result(note(job.id, job.function)).expect("kept");
    }
    let due = async |now_ms, but_of: &[FunctionId]| -> Vec<JobId> {
        let due = store.due_results(now_ms, but_of, 100).await.expect("read");
        let ours = due
            .iter()
            .map(|note| note.job)
            .filter(|job| [here.id, other.id].contains(job));
        ours.collect()
    };
    assert!(due(NOW_MS - 1, &[]).await.is_empty());
    assert_eq!(due(NOW_MS, &[]).await.len(), 2);
    assert_eq!(due(NOW_MS, &[other.function]).await, [here.id]);
    let later = ResultNote {
        next_at_ms: NOW_MS + 10,
        attempts: 1,
        detail: "it answered 503".into(),
        ..note(here.id, here.function)
    };
    store.note_result(&later, true).await.expect("noted");
    assert_eq!(store.result(here.id).await.expect("read"), Some(later));
    assert_eq!(due(NOW_MS, &[]).await, [other.id]);
    for job in [&here, &other] {
        let delivered = ResultNote {
            state: ResultState::Delivered,
            ..note(job.id, job.function)
        };
        store.note_result(&delivered, false).await.expect("noted");
    }
    assert!(due(NOW_MS + 10, &[]).await.is_empty());
}

/// Whether it lies beside the record or in it.
pub(super) async fn a_delivered_output_leaves_the_job_and_nothing_else_does(store: &dyn Store) {
    for output in [b"1".to_vec(), vec![b'1'; 4_096]] {
        let job = Job {
            output: Some(output),
            ..job()
        };
        store.begin_result(note(job.id, job.function)).expect("kept");
        store.finish(job.clone()).expect("kept");
        let delivered = ResultNote {
            state: ResultState::Delivered,
            attempts: 1,
            ..note(job.id, job.function)
        };
        store.note_result(&delivered, false).await.expect("noted");
        let bare = Job { output: None, ..job };
        assert_eq!(store.job(bare.id).await.expect("read"), Some(bare));
    }
}

pub(super) async fn what_is_kept_or_was_given_up_on_expires(store: &dyn Store) {
    for (state, expires) in [
        (ResultState::Kept, true),
        (ResultState::Undelivered, true),
        (ResultState::Delivering, false),
        (ResultState::Delivered, false),
        (ResultState::Expired, false),
    ] {
        let job = job();
        let kept = ResultNote {
            state,
            next_at_ms: u64::MAX >> 2,
            expires_at_ms: Some(NOW_MS),
            ..note(job.id, job.function)
        };
        store.begin_result(kept.clone()).expect("kept");
        store.flush().await.expect("filed");
        let is_among = async |now_ms| store.expired_results(now_ms, 100).await.expect("read").contains(&kept);
        assert!(!is_among(NOW_MS - 1).await, "{state:?}");
        assert_eq!(is_among(NOW_MS).await, expires, "{state:?}");
    }
}
