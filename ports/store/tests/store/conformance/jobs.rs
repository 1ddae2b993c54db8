//! Jobs, keys, payments, sequences.

use piecework_model::AccountId;

use super::samples::{self, START_MS, unique};
use piecework_store::{
    Accepted, AuditFilter, Change, Job, JobFilter, JobState, JobStep, Payment, Projected, Put, Store, Take,
};

fn function_of(owner: u64) -> piecework_model::FunctionId {
    samples::function_id(owner)
}

fn filter(owner: u64) -> JobFilter {
    JobFilter {
        developer: samples::account(owner),
        function: None,
        state: None,
        before: None,
        limit: 100,
    }
}

fn listed(job: &Job) -> Job {
    Job {
        output: None,
        logs: String::new(),
        ..job.clone()
    }
}

pub(super) async fn a_finished_job_is_read_back_whole(store: &dyn Store) {
    let owner = unique();
    let job = samples::finished(unique(), function_of(owner), samples::account(owner));
    let bare = Job {
        output: None,
        logs: String::new(),
        ..samples::finished(unique(), function_of(owner), samples::account(owner))
    };
    let large = Job {
        logs: "a long line\n".repeat(1_000),
        ..samples::finished(unique(), function_of(owner), samples::account(owner))
    };
    let silent = Job {
        output: None,
        ..large.clone()
    };
    let silent = Job {
        id: samples::job_id(unique()),
        ..silent
    };
    for job in [&job, &bare, &large, &silent] {
        store.finish(job.clone()).expect("kept");
        assert_eq!(store.job(job.id).await.expect("read").as_ref(), Some(job), "at once");
    }
    store.flush().await.expect("filed");
    for job in [&job, &bare, &large, &silent] {
        assert_eq!(store.job(job.id).await.expect("read").as_ref(), Some(job), "once filed");
    }
    assert_eq!(store.logs(job.id).await.expect("read").as_ref(), Some(&job.logs));
    assert_eq!(store.job(samples::job_id(unique())).await.expect("read"), None);
    assert_eq!(store.logs(samples::job_id(unique())).await.expect("read"), None);
}

pub(super) async fn the_first_outcome_counts(store: &dyn Store) {
    let owner = unique();
    let job = samples::finished(unique(), function_of(owner), samples::account(owner));
    let second = Job {
        state: JobState::Failed,
        ..job.clone()
    };
    store.finish(job.clone()).expect("kept");
    store.finish(second.clone()).expect("dropped");
    assert_eq!(store.job(job.id).await.expect("read").as_ref(), Some(&job));
    store.flush().await.expect("filed");
    store.finish(second).expect("dropped");
    store.flush().await.expect("filed");
    assert_eq!(store.job(job.id).await.expect("read"), Some(job));
    let points = store.points(
        piecework_store::MetricScope::Function(function_of(owner)),
        0,
        u64::MAX,
        86_400_000,
    );
    assert_eq!(
        points.await.expect("read").iter().map(|point| point.count).sum::<u64>(),
        1,
        "counted once"
    );
}

pub(super) async fn an_accepted_job_is_unfinished_until_it_ends(store: &dyn Store) {
    let owner = unique();
    let accepted = samples::accepted(unique(), function_of(owner), samples::account(owner));
    assert_eq!(store.accept(accepted.clone()).await.expect("kept"), Accepted::New);
    assert_eq!(store.job(accepted.id).await.expect("read"), Some(accepted.to_job()));
    assert!(store.unfinished().await.expect("read").contains(&accepted));
    let provider = samples::account(unique());
    store
        .set_state(accepted.id, JobState::Running, Some(provider))
        .expect("noted");
    for moment in ["at once", "once filed"] {
        let running = store.job(accepted.id).await.expect("read").expect("there");
        assert_eq!(
            (running.state, running.provider),
            (JobState::Running, Some(provider)),
            "{moment}"
        );
        let page = store.list_jobs(&filter(owner)).await.expect("listed");
        assert_eq!(page.items, [running], "{moment}");
        store.flush().await.expect("filed");
    }
    let another = samples::account(unique());
    store
        .set_state(accepted.id, JobState::Running, Some(another))
        .expect("noted");
    let running = store.job(accepted.id).await.expect("read").expect("there");
    assert_eq!(running.provider, Some(another), "laid over what is filed");
    let job = Job {
        settlement: None,
        ..samples::finished(1, function_of(owner), samples::account(owner))
    };
    let job = Job {
        id: accepted.id,
        created_at_ms: accepted.created_at_ms,
        ..job
    };
    store.finish(job.clone()).expect("kept");
    assert_eq!(store.job(job.id).await.expect("read").as_ref(), Some(&job));
    assert!(!store.unfinished().await.expect("read").contains(&accepted));
    store
        .set_state(job.id, JobState::Running, None)
        .expect("too late, and dropped");
    store.flush().await.expect("filed");
    assert_eq!(store.job(job.id).await.expect("read"), Some(job));
}

pub(super) async fn cancelling_ends_a_job_once(store: &dyn Store) {
    let owner = unique();
    let accepted = samples::accepted(unique(), function_of(owner), samples::account(owner));
    store.accept(accepted.clone()).await.expect("kept");
    let cancelled = store.cancel(accepted.id).await.expect("asked").expect("cancelled");
    assert_eq!(cancelled.state, JobState::Cancelled);
    assert_eq!(store.cancel(accepted.id).await.expect("asked"), None, "ended already");
    assert_eq!(
        store.cancel(samples::job_id(unique())).await.expect("asked"),
        None,
        "unknown"
    );
    store.flush().await.expect("filed");
    assert_eq!(store.job(accepted.id).await.expect("read"), Some(cancelled));
    assert!(!store.unfinished().await.expect("read").contains(&accepted));
}

pub(super) async fn a_key_gives_the_same_job_or_a_conflict(store: &dyn Store) {
    let owner = unique();
    let (function, account) = (function_of(owner), samples::account(owner));
    let key = samples::idempotency("order 1", 1, account);
    let mut accepted = samples::accepted(unique(), function, account);
    accepted.idempotency = Some(key.clone());
    assert_eq!(store.accept(accepted.clone()).await.expect("kept"), Accepted::New);
    let mut again = samples::accepted(unique(), function, account);
    again.idempotency = Some(key.clone());
    let mut other = again.clone();
    other.idempotency = Some(samples::idempotency("order 1", 2, account));
    for moment in ["at once", "once filed", "once ended", "once the end is filed"] {
        let same = store.accept(again.clone()).await.expect("asked");
        assert_eq!(same, Accepted::Existing(accepted.id), "{moment}");
        let conflict = store.accept(other.clone()).await.expect("asked");
        assert_eq!(conflict, Accepted::IdempotencyConflict, "{moment}");
        let reserved = store
            .reserve_idempotency(function, &key, again.id)
            .await
            .expect("asked");
        assert_eq!(reserved, Accepted::Existing(accepted.id), "{moment}");
        match moment {
            "once filed" => {
                let mut job = accepted.to_job();
                job.state = JobState::Succeeded;
                store.finish(job).expect("kept");
            }
            _ => store.flush().await.expect("filed"),
        }
    }
    assert_eq!(
        store.job(again.id).await.expect("read"),
        None,
        "nothing was kept of the repetition"
    );
    let elsewhere = store
        .reserve_idempotency(samples::function_id(unique()), &key, again.id)
        .await;
    assert_eq!(
        elsewhere.expect("asked"),
        Accepted::New,
        "another function's keys are apart"
    );
}

pub(super) async fn a_released_key_is_free(store: &dyn Store) {
    let owner = unique();
    let (function, account) = (function_of(owner), samples::account(owner));
    let key = samples::idempotency("k", 1, account);
    let (first, second) = (samples::job_id(unique()), samples::job_id(unique()));
    assert_eq!(
        store.reserve_idempotency(function, &key, first).await.expect("asked"),
        Accepted::New
    );
    let taken = store.reserve_idempotency(function, &key, second).await.expect("asked");
    assert_eq!(taken, Accepted::Existing(first));
    store.release_idempotency(function, &key, second);
    let taken = store.reserve_idempotency(function, &key, second).await.expect("asked");
    assert_eq!(taken, Accepted::Existing(first), "only its own job gives it back");
    store.release_idempotency(function, &key, first);
    assert_eq!(
        store.reserve_idempotency(function, &key, second).await.expect("asked"),
        Accepted::New
    );
    let mut job = samples::finished(unique(), function, account);
    job.id = second;
    job.idempotency = Some(key.clone());
    store.finish(job).expect("kept");
    store.flush().await.expect("filed");
    store.release_idempotency(function, &key, second);
    let kept = store.reserve_idempotency(function, &key, first).await.expect("asked");
    assert_eq!(kept, Accepted::Existing(second), "an answer is never given back");
}

pub(super) async fn jobs_are_listed_newest_first_in_pages(store: &dyn Store) {
    let owner = unique();
    let developer = samples::account(owner);
    let functions = [samples::function_id(unique()), samples::function_id(unique())];
    let mut expected = Vec::new();
    for index in 0..9 {
        let job = samples::finished(unique(), functions[index % 2], developer);
        expected.insert(0, listed(&job));
        store.finish(job).expect("kept");
        if index == 4 {
            // Some are filed, some pending.
            store.flush().await.expect("filed");
        }
    }
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = JobFilter {
            before,
            limit: 4,
            ..filter(owner)
        };
        let page = store.list_jobs(&page).await.expect("listed");
        all.extend(page.items);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(all, expected);
    let of_one = JobFilter {
        function: Some(functions[1]),
        ..filter(owner)
    };
    let of_one = store.list_jobs(&of_one).await.expect("listed");
    expected.retain(|job| job.function == functions[1]);
    assert_eq!((of_one.items, of_one.next), (expected, None));
    let in_state = async |state| {
        let filter = JobFilter {
            state: Some(state),
            ..filter(owner)
        };
        let page = store.list_jobs(&filter).await.expect("listed");
        page.items.into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let mut failed = samples::finished(unique(), functions[0], developer);
    failed.state = JobState::Failed;
    store.finish(failed.clone()).expect("kept");
    assert_eq!(in_state(JobState::Failed).await, [failed.id], "pending");
    store.flush().await.expect("filed");
    assert_eq!(in_state(JobState::Failed).await, [failed.id], "filed");
    assert_eq!(in_state(JobState::Succeeded).await.len(), 9);
    assert_eq!(in_state(JobState::Running).await, []);
    let stranger = JobFilter {
        developer: samples::account(unique()),
        function: Some(functions[1]),
        ..filter(owner)
    };
    assert!(
        store.list_jobs(&stranger).await.expect("listed").items.is_empty(),
        "not the stranger's"
    );
}

fn paying(payment: Payment, height: u64) -> Projected {
    Projected {
        payments: vec![payment],
        ..Projected::at(height)
    }
}

pub(super) async fn a_job_is_unsettled_until_it_is_paid(store: &dyn Store) {
    let owner = unique();
    let job = samples::finished(unique(), function_of(owner), samples::account(owner));
    store.finish(job.clone()).expect("kept");
    let unsettled = store.unsettled().await.expect("read");
    let found = unsettled
        .iter()
        .find(|other| other.id == job.id)
        .expect("to be settled");
    assert_eq!(*found, listed(&job));
    assert_eq!(found.receipt(), job.receipt());
    let payment = Payment {
        job: job.id,
        height: 42,
        commission_ucr: 7,
    };
    for _ in 0..2 {
        store.project(&paying(payment, 43)).await.expect("written");
        let paid = store.job(job.id).await.expect("read").expect("there");
        assert_eq!(
            (paid.paid, paid.paid_height, paid.commission_ucr),
            (true, Some(42), Some(7))
        );
    }
    assert_eq!(store.projected_height().await.expect("read"), 43);
    assert!(
        store
            .unsettled()
            .await
            .expect("read")
            .iter()
            .all(|other| other.id != job.id)
    );
    let unknown = Payment {
        job: samples::job_id(unique()),
        ..payment
    };
    store
        .project(&paying(unknown, 44))
        .await
        .expect("another controller's job is passed over");
    assert_eq!(store.projected_height().await.expect("read"), 44);
}

pub(super) async fn pruning_keeps_what_is_unsettled(store: &dyn Store) {
    let owner = unique();
    let developer = samples::account(owner);
    // Long before every other sample.
    let old = |number: u64| {
        let random = samples::account(owner).0[..10].try_into().expect("ten bytes");
        let id = piecework_model::JobId::new(1_000 + number, random);
        Job {
            id,
            created_at_ms: 1_000 + number,
            ..samples::finished(unique(), function_of(owner), developer)
        }
    };
    let unsettled = old(1);
    let done = Job {
        settlement: None,
        ..old(2)
    };
    for job in [&unsettled, &done] {
        store.finish(job.clone()).expect("kept");
    }
    store.flush().await.expect("filed");
    assert_eq!(store.prune(START_MS / 2).await.expect("pruned"), 1);
    assert_eq!(store.job(done.id).await.expect("read"), None);
    assert_eq!(store.job(unsettled.id).await.expect("read"), Some(unsettled));
}

pub(super) async fn sequences_never_go_back(store: &dyn Store) {
    let (lease, provider) = (samples::lease(unique()), samples::account(unique()));
    assert_eq!(store.sequence_high_water(lease, provider), 0);
    store.reserve_sequences(lease, provider, 1_000).await.expect("reserved");
    store
        .reserve_sequences(lease, provider, 500)
        .await
        .expect("no less than before");
    assert_eq!(store.sequence_high_water(lease, provider), 1_000);
    assert_eq!(
        store.sequence_high_water(lease, samples::account(unique())),
        0,
        "lanes are apart"
    );
}

pub(super) async fn the_first_height_of_a_step_stands(store: &dyn Store) {
    let job = samples::job_id(unique());
    assert_eq!(store.steps(job).await.expect("read"), []);
    for (step, height) in [(JobStep::Opened, 7), (JobStep::Received, 9), (JobStep::Opened, 8)] {
        let read = Projected {
            steps: vec![(job, step)],
            ..Projected::at(height)
        };
        store.project(&read).await.expect("written");
    }
    assert_eq!(
        store.steps(job).await.expect("read"),
        [(JobStep::Opened, 7), (JobStep::Received, 9)]
    );
}

pub(super) async fn a_block_is_written_with_its_place(store: &dyn Store) {
    let (space, owner) = (format!("block-{}", unique()), samples::account(unique()));
    let put = |key: &str, value: &[u8]| Put {
        space: space.clone(),
        key: key.to_owned(),
        value: value.to_vec(),
    };
    let take = |key: &str| Take {
        space: space.clone(),
        key: key.to_owned(),
        change: Some(Change {
            at_ms: 1,
            actor: None,
            owner,
            action: "lease.closed".to_owned(),
            target: key.to_owned(),
            detail: "{}".to_owned(),
        }),
    };
    let job = samples::finished(unique(), function_of(unique()), owner);
    store.finish(job.clone()).expect("kept");
    store.put_value(&space, "gone", b"0").await.expect("put");
    let payment = Payment {
        job: job.id,
        height: 90,
        commission_ucr: 1,
    };
    let read = Projected {
        height: 90,
        payments: vec![payment],
        steps: vec![(job.id, JobStep::Received)],
        puts: vec![put("a", b"1"), put("b", b"2"), put("a", b"3")],
        takes: vec![take("gone"), take("never")],
    };
    // Repeated after a crash, it changes nothing more.
    for _ in 0..2 {
        store.project(&read).await.expect("written");
        assert_eq!(store.projected_height().await.expect("read"), 90);
        let values = store.list_values(&space, "", None, 10).await.expect("listed").items;
        assert_eq!(
            values,
            [("a".to_owned(), b"3".to_vec()), ("b".to_owned(), b"2".to_vec())]
        );
        assert_eq!(store.job(job.id).await.expect("read").map(|job| job.paid), Some(true));
        assert_eq!(store.steps(job.id).await.expect("read"), [(JobStep::Received, 90)]);
        let recorded = store.audit(&of_owner(owner)).await.expect("read").items;
        let targets: Vec<&str> = recorded.iter().map(|entry| entry.change.target.as_str()).collect();
        assert_eq!(targets, ["gone"], "recorded once, and only of what was there");
    }
}

fn of_owner(owner: AccountId) -> AuditFilter {
    AuditFilter {
        account: Some(owner),
        limit: 10,
        ..AuditFilter::default()
    }
}
