//! What is made of a run's streams, with a provider that does as the test says.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use piecework_model::{
    AccountId, Code, Counters, Digest, FunctionId, JobId, JobStatus, Language, LeaseId, Limits, Prices, Receipt,
    Rejection, Seal, SecretKey, Ticket,
};
use piecework_queue::{Delivery, Load, Order, Profile, ProviderLink, Unsealed, Work};
use piecework_sandbox::{BackendName, CancellationToken, Finished, Head, LoadError, Logs, Outcome, Outlet, Sent};
use tokio::sync::mpsc;

use super::*;
use crate::calls::{
    outcome::judge,
    passing::{self, Passed},
};

/// What the provider does with its order.
#[derive(Clone)]
enum Does {
    /// Sends these parts one after the other, until somebody stops it.
    Sends(Vec<Sent>),
    /// Sends a chunk, then is silent until somebody stops it.
    FallsSilent,
    /// Reads the body, and sends it back.
    Echoes,
    /// Sends a chunk; then its link is cut, which ends the run. Its receipt covers this.
    IsCut(&'static [u8]),
}

struct Double {
    does: Does,
    profile: Profile,
}

#[async_trait]
impl ProviderLink for Double {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn is_warm(&self, _: FunctionId, _: u32) -> bool {
        false
    }

    async fn check(&self, _: Arc<Work>) -> Result<(), LoadError> {
        Ok(())
    }

    async fn run(&self, order: Order) -> Result<Delivery, Rejection> {
        let outcome = tokio::select! {
            biased;
            () = order.cancel.cancelled() => Outcome::Stopped,
            () = self.act(&order) => Outcome::Streamed,
        };
        let Does::IsCut(covered) = self.does else {
            return Ok(delivery(outcome));
        };
        let stopped = delivery(Outcome::Stopped);
        Ok(Delivery {
            is_cut: true,
            receipt: Receipt {
                output: Digest::of(covered),
                ..stopped.receipt.clone()
            },
            ..stopped
        })
    }

    async fn accept_seal(&self, _: Seal, _: Vec<u64>) -> Result<(), Rejection> {
        Ok(())
    }

    async fn seal_receipts(&self, _: (LeaseId, AccountId), _: Vec<Unsealed>) -> Result<Seal, Rejection> {
        Err(Rejection::new(Code::ReceiptNotMine, "nothing is sealed here"))
    }

    fn forget(&self, _: FunctionId, _: u32) {}
}

impl Double {
    async fn act(&self, order: &Order) {
        match &self.does {
            Does::Sends(parts) => {
                for part in parts {
                    // Without a pause between them a stop is only seen at the end.
                    tokio::task::yield_now().await;
                    order.outlet.send(part.clone()).await.expect("it is read to its end");
                }
            }
            Does::IsCut(_) => order.outlet.send(chunk(b"ab")).await.expect("it is read"),
            Does::FallsSilent => {
                order.outlet.send(chunk(b"a")).await.expect("it is read");
                std::future::pending().await
            }
            Does::Echoes => {
                let mut body = order.body.as_ref().and_then(Inlet::take).expect("a body");
                while let Some(part) = body.recv().await {
                    order.outlet.send(Sent::Chunk(part)).await.expect("it is read");
                }
            }
        }
    }
}

fn chunk(bytes: &'static [u8]) -> Sent {
    Sent::Chunk(Bytes::from_static(bytes))
}

fn delivery(outcome: Outcome) -> Delivery {
    let status = match outcome {
        Outcome::Stopped => JobStatus::Cancelled,
        _ => JobStatus::Ok,
    };
    let ticket = ticket(0);
    Delivery {
        receipt: Receipt {
            lease: ticket.lease,
            provider: ticket.provider,
            sequence: 0,
            job: ticket.job,
            code: ticket.code,
            input: ticket.input,
            output: Digest::of(b""),
            status,
            counters: Counters::default(),
            price_ucr: 0,
            duration_us: 0,
        },
        mark: [0; 32],
        finished: Finished {
            outcome,
            logs: Logs::default(),
            counters: Counters::default(),
            memory_peak_bytes: 0,
            duration: Duration::ZERO,
            reusable: true,
        },
        cold: false,
        pull_us: 0,
        is_cut: false,
    }
}

fn ticket(output_bytes: u64) -> Ticket {
    Ticket {
        lease: LeaseId([1; 20]),
        provider: AccountId([2; 20]),
        sequence: 0,
        job: JobId([3; 16]),
        code: Digest::of(b"code"),
        input: Digest::of(b"input"),
        limits: Limits {
            output_bytes,
            ..Limits::DEFAULT
        },
        prices: Prices::default(),
        price_max_ucr: 0,
        deadline_ms: 0,
        replaces: None,
    }
}

/// What comes of an order to a provider that does this, with an output limit of 8 bytes.
async fn seen(does: Does, streams: &Streams, allowed_bytes: u64) -> (Delivery, Seen) {
    let (delivered, seen) = carried_out(does, streams, allowed_bytes).await;
    (delivered.expect("it ran"), seen)
}

async fn carried_out(does: Does, streams: &Streams, allowed_bytes: u64) -> (Result<Delivery, Rejection>, Seen) {
    let ticket = ticket(8);
    let profile = Profile {
        account: ticket.provider,
        name: "double".into(),
        prices: Prices::default(),
        cores: 1,
        memory_bytes: 1 << 30,
        slots: 1,
        region: String::new(),
        labels: Vec::new(),
        probes: Vec::new(),
        egress: None,
        free_for: None,
    };
    let work = Work {
        owner: None,
        function: FunctionId([4; 12]),
        version: 1,
        name: "f".into(),
        language: Language::Python,
        code: ticket.code,
        handler: None,
        env: Default::default(),
        limits: ticket.limits,
        egress: Default::default(),
        backend: BackendName::Wasm,
    };
    let order = Order {
        ticket,
        payer: SecretKey::from_seed([5; 32]).public(),
        exposure_ucr: 0,
        seal: None,
        work: Arc::new(work),
        event: Bytes::from_static(b"null"),
        parameters: Bytes::from_static(b"null"),
        salt: None,
        is_tentative: false,
        cancel: CancellationToken::new(),
        body: None,
        outlet: Outlet::nowhere(),
    };
    let double = Double { does, profile };
    let ran = carry_out(&double, order, streams, allowed_bytes);
    tokio::time::timeout(Duration::from_secs(5), ran)
        .await
        .expect("it ends")
}

fn code(delivery: &Delivery, seen: &Seen) -> Option<Code> {
    let verdict = judge(delivery, &ticket(8).limits, seen);
    verdict.error.and_then(|error| error.code.known())
}

#[tokio::test]
async fn a_stream_that_is_collected_becomes_the_output() {
    let table: [(&[&'static [u8]], &str); 4] = [
        (&[b"ab", b"c\"d"], r#""abc\"d""#),
        (&[b"\xc3", b"\xa9"], r#""é""#),
        (&[b"\xff\xfe"], r#"{"$bytes":"//4="}"#),
        (&[], r#""""#),
    ];
    for (chunks, output) in table {
        let mut parts = vec![Sent::Head(Head::default())];
        parts.extend(chunks.iter().copied().map(chunk));
        let (delivery, seen) = seen(Does::Sends(parts), &Streams::default(), 100).await;
        let whole = chunks.concat();
        assert_eq!(
            (seen.streamed.digest, seen.streamed.bytes),
            (Digest::of(&whole), whole.len() as u64)
        );
        let verdict = judge(&delivery, &ticket(8).limits, &seen);
        assert_eq!(verdict.output.as_deref(), Some(output.as_bytes()));
    }
}

#[tokio::test]
async fn a_stream_that_is_too_long_to_collect_is_stopped_and_counted_to_its_end() {
    let parts: Vec<Sent> = (0..1_000).map(|_| chunk(b"123")).collect();
    let (delivery, seen) = seen(Does::Sends(parts), &Streams::default(), 1_000_000).await;
    assert_eq!(delivery.finished.outcome, Outcome::Stopped);
    assert_eq!(seen.output, Collected::TooLarge);
    assert_eq!(code(&delivery, &seen), Some(Code::FunctionOutputTooLarge));
    let counted = b"123".repeat(usize::try_from(seen.streamed.bytes).expect("small") / 3);
    assert!((9..3_000).contains(&seen.streamed.bytes), "{:?}", seen.streamed);
    assert_eq!(seen.streamed.digest, Digest::of(&counted));
}

#[tokio::test]
async fn a_provider_that_sends_more_than_its_ticket_allows_is_stopped() {
    let discard = Streams {
        answer: Answering::Discard,
        body: None,
    };
    let parts: Vec<Sent> = (0..1_000).map(|_| chunk(b"123")).collect();
    let (delivery, seen) = seen(Does::Sends(parts), &discard, 10).await;
    assert_eq!((delivery.finished.outcome, seen.is_over), (Outcome::Stopped, true));
    assert_eq!(seen.streamed.bytes, 9);
}

/// Streams that pass the answer on, and what the caller sees of it, as long as he does not go after so many parts.
fn passed_on(leaves_after: usize) -> (Streams, tokio::task::JoinHandle<Vec<Passed>>) {
    let (passing, mut passed): (_, mpsc::Receiver<Passed>) = passing::channel(false);
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < leaves_after {
            match passed.recv().await {
                Some(part) => got.push(part),
                None => break,
            }
        }
        got
    });
    let streams = Streams {
        answer: Answering::Pass(passing),
        body: None,
    };
    (streams, reading)
}

#[tokio::test]
async fn what_is_passed_on_ends_only_when_the_job_is_written_down() {
    let (streams, reading) = passed_on(usize::MAX);
    assert!(!streams.is_spent());
    let parts = vec![Sent::Head(Head::default()), chunk(b"a"), chunk(b"b")];
    let (delivery, seen) = seen(Does::Sends(parts), &streams, 100).await;
    assert!(
        streams.has_passed() && streams.is_spent(),
        "nobody else can begin it anew"
    );
    assert_eq!((code(&delivery, &seen), seen.output), (None, Collected::Nothing));
    streams.end().await;
    drop(streams);
    let got = reading.await.expect("no panic");
    assert!(matches!(
        got.as_slice(),
        [Passed::Head(_), Passed::Chunk(_), Passed::Chunk(_), Passed::End]
    ));
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_a_run_that_is_silent() {
    let (streams, reading) = passed_on(2);
    let (delivery, seen) = seen(Does::FallsSilent, &streams, 100).await;
    assert_eq!(code(&delivery, &seen), Some(Code::JobCancelled));
    assert_eq!(seen.streamed.digest, Digest::of(b"a"), "and what it sent is paid");
    assert_eq!(reading.await.expect("no panic").len(), 2);
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_end_the_counting() {
    let (streams, _reading) = passed_on(2);
    let parts: Vec<Sent> = (0..1_000).map(|_| chunk(b"123")).collect();
    let (delivery, seen) = seen(Does::Sends(parts), &streams, 1_000_000).await;
    assert_eq!(delivery.finished.outcome, Outcome::Stopped);
    let counted = b"123".repeat(usize::try_from(seen.streamed.bytes).expect("small") / 3);
    assert_eq!(seen.streamed.digest, Digest::of(&counted));
}

#[tokio::test]
async fn a_head_that_is_none_fails_the_job_before_anybody_has_seen_it() {
    let (streams, reading) = passed_on(usize::MAX);
    let head = Head {
        status: 101,
        headers: Vec::new(),
    };
    let (delivery, seen) = seen(Does::Sends(vec![Sent::Head(head), chunk(b"a")]), &streams, 100).await;
    assert_eq!(code(&delivery, &seen), Some(Code::FunctionOutputInvalid));
    assert!(!streams.has_passed());
    drop(streams);
    assert_eq!(reading.await.expect("no panic"), vec![]);
}

fn with_body(parts: Vec<Result<Bytes, Box<Refusal>>>, bytes_max: u64) -> Streams {
    Streams {
        answer: Answering::Collect,
        body: Some(Upload::new(Box::pin(futures::stream::iter(parts)), bytes_max)),
    }
}

#[tokio::test]
async fn a_body_goes_in_while_the_answer_comes_out() {
    let parts = vec![Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"d"))];
    let streams = with_body(parts, 4);
    assert_eq!(streams.allowance(&ticket(8).limits, 100), 8 + 4);
    let (delivery, seen) = seen(Does::Echoes, &streams, 12).await;
    assert_eq!(code(&delivery, &seen), None);
    assert_eq!(seen.output, Collected::Whole(b"abcd".to_vec()));
    assert_eq!((seen.streamed.bytes, seen.streamed.body_bytes), (4, 4));
}

#[tokio::test]
async fn a_body_that_breaks_off_stops_the_run() {
    let broken = Box::new(Refusal::new(Code::BodyMalformed, "the body did not arrive whole"));
    let streams = with_body(vec![Ok(Bytes::from_static(b"abc")), Err(broken)], 100);
    let (delivery, seen) = seen(Does::Echoes, &streams, 1_000).await;
    assert_eq!(
        delivery.finished.outcome,
        Outcome::Stopped,
        "it must not take a part for the whole"
    );
    assert_eq!(code(&delivery, &seen), Some(Code::BodyMalformed));
}

#[tokio::test]
async fn a_stream_that_lost_a_part_on_its_way_is_a_lost_job() {
    let (delivered, _) = carried_out(Does::IsCut(b"ab"), &Streams::default(), 100).await;
    assert_eq!(delivered.expect_err("another can run it").code, Code::ProviderLost);
    let (streams, _read) = passed_on(usize::MAX);
    let (delivered, _) = carried_out(Does::IsCut(b"abc"), &streams, 100).await;
    assert_eq!(delivered.expect_err("a part is missing").code, Code::ProviderLost);
}

#[tokio::test]
async fn a_stream_that_was_cut_is_paid_where_its_receipt_covers_what_passed() {
    let (streams, _read) = passed_on(usize::MAX);
    let (delivery, seen) = seen(Does::IsCut(b"ab"), &streams, 100).await;
    assert_eq!(delivery.receipt.output, seen.streamed.digest);
    assert_eq!(code(&delivery, &seen), Some(Code::ProviderLost), "its caller hears so");
}
