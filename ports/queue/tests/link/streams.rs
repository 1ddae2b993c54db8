//! Answers and bodies that travel while the function runs: in order, with back-pressure, and cut at any moment.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use piecework_model::{Code, Rejection};
use piecework_queue::{Delivery, Order, ProviderLink as _, link::RemoteProvider};
use piecework_sandbox::{Inlet, Outcome, Outlet, Sent};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    line::{Fault, Side},
    world::{Behaviour, World, chunk, order, run, work},
};

/// What may be on its way between a function and a reader: four chunks at each of the two seams, a stream's window at its
/// largest, what yamux and the two ends hold in their hands.
const ON_THE_WAY_MAX: u64 = 3 << 20;

type Answer = JoinHandle<Result<Delivery, Rejection>>;

fn streamed(remote: &Arc<RemoteProvider>, sequence: u64) -> (Answer, mpsc::Receiver<Sent>) {
    let (outlet, parts) = Outlet::channel();
    let order = Order {
        outlet,
        ..order(sequence, b"7")
    };
    let remote = remote.clone();
    (tokio::spawn(async move { remote.run(order).await }), parts)
}

async fn next_chunk(parts: &mut mpsc::Receiver<Sent>) -> Option<Bytes> {
    loop {
        match parts.recv().await? {
            Sent::Head(head) => assert_eq!(head.status, 200),
            Sent::Chunk(bytes) => return Some(bytes),
        }
    }
}

#[test]
fn a_gigabyte_passes_with_little_on_its_way() {
    run(async |clock| {
        let chunks = (1 << 30) / chunk(0).len() as u64;
        let mut world = World::new(
            &clock,
            Behaviour::Stream {
                chunks,
                waits_before: None,
            },
        );
        let remote = world.link(None).await;
        let (answer, mut parts) = streamed(&remote, 1);
        let mut received = 0;
        while let Some(bytes) = next_chunk(&mut parts).await {
            if received % (100 << 20) == 0 {
                assert_eq!(bytes, chunk(received / bytes.len() as u64), "in order");
            }
            received += bytes.len() as u64;
            let on_the_way = world.provider.given() - received;
            assert!(on_the_way <= ON_THE_WAY_MAX, "{on_the_way} bytes after {received}");
        }
        let delivery = answer.await.expect("no panic").expect("runs");
        assert_eq!((delivery.finished.outcome, delivery.is_cut), (Outcome::Streamed, false));
        assert_eq!(received, 1 << 30);
    });
}

#[test]
fn a_reader_that_waits_stops_the_function_and_one_that_goes_away_ends_it() {
    run(async |clock| {
        let endless = Behaviour::Stream {
            chunks: u64::MAX - 2,
            waits_before: None,
        };
        let mut world = World::new(&clock, endless);
        let remote = world.link(None).await;
        let (answer, mut parts) = streamed(&remote, 1);
        next_chunk(&mut parts).await.expect("a part");
        world.settle().await;
        let given = world.provider.given();
        assert!(given <= ON_THE_WAY_MAX, "{given}");
        world.settle().await;
        assert_eq!(world.provider.given(), given, "it stands still");
        assert_eq!(world.sessions(), 1, "and that is no silence");
        for _ in 0..200 {
            next_chunk(&mut parts).await.expect("a part");
        }
        world.settle().await;
        assert!(world.provider.given() > given, "it goes on");
        drop(parts);
        let delivery = answer.await.expect("no panic").expect("its receipt comes all the same");
        assert_eq!((delivery.finished.outcome, delivery.is_cut), (Outcome::Stopped, false));
        world.settle().await;
        assert_eq!(world.agent.orders(), 0);
        assert_eq!(world.sessions(), 1);
    });
}

#[test]
fn an_answer_that_nobody_reads_as_it_comes_is_stopped_at_its_first_part() {
    run(async |clock| {
        let endless = Behaviour::Stream {
            chunks: u64::MAX - 2,
            waits_before: None,
        };
        let mut world = World::new(&clock, endless);
        let remote = world.link(None).await;
        let delivery = remote.run(order(1, b"7")).await.expect("a receipt");
        assert_eq!(delivery.finished.outcome, Outcome::Stopped);
        assert!(world.provider.given() <= ON_THE_WAY_MAX);
    });
}

fn with_body(remote: &Arc<RemoteProvider>) -> (Answer, mpsc::Sender<Bytes>) {
    let (body, inlet) = Inlet::channel();
    let order = Order {
        body: Some(inlet),
        ..order(1, b"7")
    };
    let remote = remote.clone();
    (tokio::spawn(async move { remote.run(order).await }), body)
}

#[test]
fn a_large_body_passes_as_the_function_takes_it() {
    run(async |clock| {
        const CHUNKS: u64 = 2_000;
        let mut world = World::new(&clock, Behaviour::Drink);
        let remote = world.link(None).await;
        let (answer, body) = with_body(&remote);
        let mut sent = 0;
        for at in 0..CHUNKS {
            // Larger than one message takes.
            let bytes = Bytes::from([chunk(at), chunk(at)].concat());
            sent += bytes.len() as u64;
            body.send(bytes).await.expect("somebody reads");
            assert!(sent - world.provider.taken() <= ON_THE_WAY_MAX, "{sent}");
        }
        drop(body);
        let delivery = answer.await.expect("no panic").expect("runs");
        assert_eq!(delivery.finished.outcome, Outcome::Returned(sent.to_string().into()));
        assert!(!delivery.is_cut);
    });
}

#[test]
fn a_body_that_the_function_does_not_read_holds_nothing_up() {
    run(async |clock| {
        let mut world = World::new(&clock, Behaviour::Echo);
        let remote = world.link(None).await;
        let (answer, body) = with_body(&remote);
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while body.send(chunk(sent)).await.is_ok() {
                sent += 1;
            }
            sent
        });
        let delivery = answer.await.expect("no panic").expect("runs");
        assert_eq!(delivery.finished.outcome, Outcome::Returned(Bytes::from_static(b"7")));
        world.settle().await;
        assert!(sending.await.expect("no panic") < 100, "nobody takes the rest");
        assert_eq!(world.agent.orders(), 0);
    });
}

/// The function waits for the test before its `waits_before`th part: there the line is cut, and comes back at once.
async fn cut_before(clock: &piecework_queue::link::Clock, part: u64) -> (World, Result<Delivery, Rejection>, u64) {
    let behaviour = Behaviour::Stream {
        chunks: 3,
        waits_before: Some(part),
    };
    let mut world = World::new(clock, behaviour);
    let remote = world.link(None).await;
    let (answer, mut parts) = streamed(&remote, 1);
    let reading = tokio::spawn(async move {
        let mut read = 0;
        while let Some(bytes) = next_chunk(&mut parts).await {
            assert_eq!(bytes, chunk(read));
            read += 1;
        }
        read
    });
    clock.sleep(Duration::from_secs(1)).await;
    world.cut();
    world.repair();
    clock.sleep(Duration::from_secs(1)).await;
    world.provider.give_word();
    let delivery = answer.await.expect("no panic");
    let read = reading.await.expect("no panic");
    world.settle().await;
    assert_eq!(world.sessions(), 2);
    assert_eq!(world.provider.seen("run"), 1);
    assert_eq!(world.agent.orders(), 0, "its receipt was confirmed");
    (world, delivery, read)
}

#[test]
fn a_job_that_is_cut_before_its_first_part_is_taken_up_again() {
    run(async |clock| {
        let (_, delivery, read) = cut_before(&clock, 0).await;
        let delivery = delivery.expect("runs");
        assert_eq!(
            (delivery.finished.outcome, delivery.is_cut, read),
            (Outcome::Streamed, false, 3)
        );
    });
}

#[test]
fn a_job_that_is_cut_after_a_part_ends_and_its_receipt_still_comes() {
    run(async |clock| {
        // After the head, after a chunk, after the last one.
        for part in [1, 2, 4] {
            let (_, delivery, read) = cut_before(&clock, part).await;
            let delivery = delivery.expect("a receipt");
            assert!(delivery.is_cut, "after {part} parts");
            assert_eq!(delivery.finished.outcome, Outcome::Stopped);
            assert_eq!(read, part - 1, "no part comes twice");
        }
    });
}

/// Each packet of a session meets each kind of fault once while an answer streams. What is read is right and in order; the
/// answer is whole, or said to be cut; the run is begun once and its receipt comes.
#[test]
fn a_fault_at_any_packet_of_a_stream_is_told_or_not_noticed() {
    run(async |clock| {
        let (mut whole, mut cut) = (0, 0);
        for side in [Side::Provider, Side::Controller] {
            for what in Fault::KINDS {
                for at in 3..16 {
                    let fault = Fault { side, at, what };
                    let behaviour = Behaviour::Stream {
                        chunks: 6,
                        waits_before: None,
                    };
                    let mut world = World::new(&clock, behaviour);
                    let remote = world.link(Some(fault)).await;
                    let (answer, mut parts) = streamed(&remote, 1);
                    let mut read = 0;
                    while let Some(bytes) = next_chunk(&mut parts).await {
                        assert_eq!(bytes, chunk(read), "{fault:?}");
                        read += 1;
                        // So that parts, windows and beats share the line in many ways.
                        clock.sleep(Duration::from_millis(700)).await;
                    }
                    let delivery = answer
                        .await
                        .expect("no panic")
                        .unwrap_or_else(|refused| panic!("{fault:?}: {refused}"));
                    match delivery.is_cut {
                        false => assert_eq!((delivery.finished.outcome, read), (Outcome::Streamed, 6), "{fault:?}"),
                        true => assert!(read <= 6, "{fault:?}"),
                    }
                    (whole, cut) = (
                        whole + usize::from(!delivery.is_cut),
                        cut + usize::from(delivery.is_cut),
                    );
                    world.settle().await;
                    assert_eq!(world.provider.seen("run"), 1, "{fault:?}");
                    assert_eq!(world.agent.orders(), 0, "{fault:?}: confirmed and forgotten");
                }
            }
        }
        assert!(whole > 10 && cut > 10, "both were seen: {whole} and {cut}");
    });
}

#[test]
fn a_provider_that_stays_away_with_half_an_answer_has_lost_the_job() {
    run(async |clock| {
        let behaviour = Behaviour::Stream {
            chunks: 3,
            waits_before: Some(2),
        };
        let mut world = World::new(&clock, behaviour);
        let remote = world.link(None).await;
        let (answer, mut parts) = streamed(&remote, 1);
        next_chunk(&mut parts).await.expect("a part");
        world.settle().await;
        world.cut();
        let lost = answer.await.expect("no panic").expect_err("given up");
        assert_eq!(lost.code, Code::ProviderLost);
        assert!(next_chunk(&mut parts).await.is_none(), "the answer ends");
        world.mend().await;
        assert_eq!(world.agent.orders(), 0, "it stopped by itself, and its result is stale");
    });
}

/// 64 KiB take 3 s. A large event, a large output, a bundle and an answer that nobody reads are on their way; small jobs take no
/// longer than a few packets.
#[test]
fn small_jobs_pass_what_is_large_and_slow() {
    run(async |clock| {
        let mut world = World::new(&clock, Behaviour::EchoOrStream);
        world.slow_down(Duration::from_secs(3));
        let bundle: Bytes = vec![7; 4 << 20].into();
        let digest = world.keep(bundle.clone());
        let remote = world.link(None).await;
        let mut given = work("good");
        given.code = digest;
        remote.check(Arc::new(given)).await.expect("loads");
        let large = Bytes::from(format!("\"{}\"", "x".repeat(4 << 20)));
        let mut event = order(1, &large);
        event.ticket.limits.timeout_ms = 900_000;
        let there_and_back = tokio::spawn({
            let remote = remote.clone();
            async move { remote.run(event).await }
        });
        let fetcher = world.fetcher.clone();
        let pulling = tokio::spawn(async move { fetcher.fetch(digest).await });
        let (outlet, mut unread) = Outlet::channel();
        let mut endless = order(2, b"7");
        endless.outlet = outlet;
        endless.ticket.limits.timeout_ms = 900_000;
        let stalled = tokio::spawn({
            let remote = remote.clone();
            async move { remote.run(endless).await }
        });
        next_chunk(&mut unread).await.expect("it streams");
        for sequence in 10..20 {
            let began = clock.now();
            remote.run(order(sequence, b"7")).await.expect("runs");
            let took = clock.now() - began;
            assert!(took <= Duration::from_secs(45), "{took:?}");
        }
        assert!(!there_and_back.is_finished() && !stalled.is_finished());
        // The bundle has 120 s, the rest of the line takes longer.
        let pulled = pulling.await.expect("no panic");
        assert!(pulled.is_err() || pulled.is_ok_and(|pulled| pulled == Some(bundle)));
        let delivery = there_and_back.await.expect("no panic").expect("runs");
        assert_eq!(delivery.finished.outcome, Outcome::Returned(large));
        drop(unread);
        stalled.await.expect("no panic").expect("a receipt");
        assert_eq!(world.sessions(), 1);
    });
}

#[test]
fn a_hundred_jobs_at_once_share_one_line() {
    run(async |clock| {
        let mut world = World::new(&clock, Behaviour::EchoOrStream);
        let remote = world.link(None).await;
        let (stalled, mut unread) = streamed(&remote, 2);
        next_chunk(&mut unread).await.expect("it streams");
        let jobs: Vec<Answer> = (100..200)
            .map(|sequence| {
                let remote = remote.clone();
                tokio::spawn(async move { remote.run(order(sequence, sequence.to_string().as_bytes())).await })
            })
            .collect();
        for (sequence, job) in (100..200).zip(jobs) {
            let delivery = job.await.expect("no panic").expect("runs");
            let event: u64 = sequence;
            assert_eq!(delivery.finished.outcome, Outcome::Returned(event.to_string().into()));
        }
        assert!(
            !stalled.is_finished(),
            "the large answer waits for its reader all that time"
        );
    });
}
