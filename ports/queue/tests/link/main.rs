//! A provider over a link is used like one in the same process, whatever happens to the line between them.

mod line;
mod streams;
mod world;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use piecework_model::{Code, Digest, LeaseId, Rejection};
use piecework_queue::{
    Order, ProviderLink, Unsealed,
    link::{Clock, LinkFailure, PACKET_BYTES_MAX, Versions, receive},
};
use piecework_sandbox::{Inlet, LoadError, Outcome, Outlet};

use line::{Fault, Side};
use world::{Behaviour, World, controller_key, network, order, provider_account, run, work};

const VERSION_2: Versions = Versions { lowest: 2, highest: 2 };

/// With an old provider, and with one of today.
fn for_each_version(test: impl AsyncFn(Clock, Versions)) {
    for versions in [VERSION_2, Versions::OURS] {
        run(async |clock| test(clock, versions).await);
    }
}

/// What it knows works as the other tests say; what it does not know is told.
#[test]
fn a_provider_of_version_2_works_as_before() {
    run(async |clock| {
        let streams = Behaviour::Stream {
            chunks: 3,
            waits_before: None,
        };
        let mut world = World::speaking(&clock, VERSION_2, streams);
        let remote = world.link(None).await;
        let (outlet, mut parts) = Outlet::channel();
        let streamed = Order {
            outlet,
            ..order(1, b"7")
        };
        let delivery = remote.run(streamed).await.expect("a receipt");
        assert_eq!(delivery.finished.outcome, Outcome::Stopped, "at its first part");
        assert_eq!(parts.recv().await, None);
        let (_body, inlet) = Inlet::channel();
        let with_body = Order {
            body: Some(inlet),
            ..order(2, b"7")
        };
        let refused = remote.run(with_body).await.expect_err("it takes no streams");
        assert_eq!(refused.code, Code::LinkVersion);
        assert_eq!(world.provider.seen("run"), 1);
    });
}

#[test]
fn every_call_does_over_a_link_what_it_does_without_one() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::Echo);
        let remote = world.link(None).await;
        for provider in [world.provider.clone() as Arc<dyn ProviderLink>, remote] {
            let delivery = provider.run(order(1, b"7")).await.expect("runs");
            assert_eq!(delivery.finished.outcome, Outcome::Returned(Bytes::from_static(b"7")));
            assert_eq!(delivery.receipt.sequence, 1);
            let refused = provider.run(order(666, b"7")).await.expect_err("refused");
            assert_eq!(
                (refused.code.known(), refused.hint.as_deref()),
                (Some(Code::TicketExpired), Some("a hint"))
            );
            provider.check(Arc::new(work("good"))).await.expect("loads");
            let LoadError::Code(said) = provider.check(Arc::new(work("bad"))).await.expect_err("does not load") else {
                panic!("the code is at fault");
            };
            assert_eq!(said.code, Code::FunctionSyntaxError);
            let seal = world::seal();
            provider.accept_seal(seal.clone(), vec![1, 2]).await.expect("accepted");
            let unsealed = Unsealed {
                receipt: delivery.receipt,
                mark: delivery.mark,
            };
            let lane = (LeaseId([1; 20]), provider_account());
            assert_eq!(provider.seal_receipts(lane, vec![unsealed]).await.expect("seals"), seal);
            provider.forget(work("good").function, 1);
        }
        world.settle().await;
        assert_eq!(world.provider.seen("forget"), 2);
        assert_eq!(world.provider.seen("accept_seal"), 2);
    });
}

/// A controller of an earlier version could not read it.
#[test]
fn only_a_controller_that_knows_of_images_hears_that_they_run() {
    let before = Versions { lowest: 2, highest: 5 };
    for (versions, languages) in [(before, 1), (Versions::OURS, 2)] {
        run(async |clock| {
            let mut world = World::speaking(&clock, versions, Behaviour::Echo);
            let remote = world.link(None).await;
            assert_eq!(remote.profile().probes[0].languages.len(), languages);
        });
    }
}

/// Each packet of a session, in each direction, meets each kind of fault once. The job runs once, its delivery comes once.
#[test]
fn a_fault_at_any_packet_loses_and_doubles_nothing() {
    for_each_version(async |clock, versions| {
        let mut faults = 0;
        for side in [Side::Provider, Side::Controller] {
            for what in Fault::KINDS {
                for at in 0..12 {
                    let mut world = World::speaking(&clock, versions, Behaviour::Echo);
                    let fault = Fault { side, at, what };
                    let remote = world.link(Some(fault)).await;
                    let (ran, checked) = tokio::join!(remote.run(order(1, b"7")), remote.check(Arc::new(work("good"))));
                    let delivery = ran.unwrap_or_else(|refused| panic!("{fault:?}: {refused}"));
                    assert_eq!(
                        delivery.finished.outcome,
                        Outcome::Returned(Bytes::from_static(b"7")),
                        "{fault:?}"
                    );
                    checked.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
                    world.settle().await;
                    assert_eq!(world.provider.seen("run"), 1, "{fault:?}");
                    assert_eq!(world.agent.orders(), 0, "{fault:?}: confirmed and forgotten");
                    faults += usize::from(world.met_its_fault());
                }
            }
        }
        assert!(faults > 60, "most of the faults were met: {faults}");
    });
}

#[test]
fn a_job_of_a_provider_that_stays_away_is_given_up_and_its_late_result_is_stale() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::WaitForWord);
        let remote = world.link(None).await;
        let waiting = tokio::spawn({
            let remote = remote.clone();
            async move { remote.run(order(1, b"7")).await }
        });
        world.settle().await;
        world.cut();
        let refused = waiting.await.expect("no panic").expect_err("given up");
        assert_eq!(refused.code, Code::ProviderLost);
        assert!(!remote.is_linked());
        world.provider.give_word();
        world.mend().await;
        world.settle().await;
        assert_eq!(remote.stale.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(world.agent.orders(), 0, "confirmed all the same");
    });
}

#[test]
fn a_provider_that_is_linked_and_does_not_answer_loses_the_job() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::WaitForWord);
        let remote = world.link(None).await;
        let began = clock.now();
        let refused = remote.run(order(1, b"7")).await.expect_err("given up");
        assert_eq!(refused.code, Code::ProviderLost);
        assert!(remote.is_linked());
        // The function's timeout, and what pulling its code and starting it may take.
        assert!(
            (clock.now() - began) < Duration::from_secs(180),
            "{:?}",
            (clock.now() - began)
        );
        world.settle().await;
        assert_eq!(world.provider.seen("cancelled"), 1, "it is told to stop");
    });
}

#[test]
fn whoever_stops_waiting_stops_the_job() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::WaitForWord);
        let remote = world.link(None).await;
        let given_up = clock.timeout(Duration::from_secs(1), remote.run(order(1, b"7"))).await;
        assert!(given_up.is_none());
        world.settle().await;
        assert_eq!(world.provider.seen("cancelled"), 1);
    });
}

#[test]
fn bundles_come_in_pieces_and_only_those_of_work_that_was_given() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::Echo);
        let bundle: Bytes = (0..3_000_000_u32).map(|at| at as u8).collect::<Vec<_>>().into();
        let digest = world.keep(bundle.clone());
        let remote = world.link(None).await;
        assert_eq!(
            world.fetcher.fetch(digest).await.expect("answers"),
            None,
            "nobody gave it work with this code"
        );
        let mut given = work("good");
        given.code = digest;
        remote.check(Arc::new(given)).await.expect("loads");
        assert_eq!(world.fetcher.fetch(digest).await.expect("answers"), Some(bundle));
        assert_eq!(world.read_bundles(), 1, "it is opened once, not once a piece");
        assert_eq!(world.fetcher.fetch(Digest([9; 32])).await.expect("answers"), None);
    });
}

/// 64 KiB take 3 s: a frame of 8 MiB takes more than six minutes, and is no silence.
#[test]
fn a_long_frame_over_a_slow_line_arrives() {
    for_each_version(async |clock, versions| {
        let mut world = World::speaking(&clock, versions, Behaviour::Echo);
        world.slow_down(Duration::from_secs(3));
        let remote = world.link(None).await;
        let event = format!("\"{}\"", "x".repeat(1 << 20));
        let delivery = remote.run(order(1, event.as_bytes())).await.expect("runs");
        assert_eq!(delivery.finished.outcome, Outcome::Returned(Bytes::from(event)));
        assert_eq!(world.sessions(), 1);
    });
}

async fn first_answer(clock: &Clock, message: Vec<u8>) -> (LinkFailure, Option<Bytes>) {
    let (near, mut far) = line::wire(clock);
    let hostile = tokio::spawn(async move {
        // The controller may have hung up already.
        let _ = far.outgoing.send(Ok(Bytes::from(message))).await;
        far.incoming.next().await.and_then(Result::ok)
    });
    let failure = receive(near, &controller_key(), network())
        .await
        .err()
        .expect("refused");
    (failure, hostile.await.expect("no panic"))
}

#[test]
fn garbage_is_told_that_it_is_garbage_and_too_much_is_not_answered() {
    run(async |clock| {
        for garbage in [Vec::new(), b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 5_000]] {
            let (failure, answer) = first_answer(&clock, garbage).await;
            let LinkFailure::Refused(Rejection { code, .. }) = failure else {
                panic!("{failure}");
            };
            assert_eq!(code, Code::LinkMalformed);
            let answer = answer.expect("told in the clear");
            assert!(String::from_utf8_lossy(&answer).contains(Code::LinkMalformed.as_str()));
        }
        let (failure, answer) = first_answer(&clock, vec![0; PACKET_BYTES_MAX + 1]).await;
        assert!(matches!(failure, LinkFailure::Protocol(_)), "{failure}");
        assert_eq!(answer, None);
    });
}

#[test]
fn whoever_says_nothing_is_not_waited_for() {
    run(async |clock| {
        let (near, _far) = line::wire(&clock);
        let began = clock.now();
        let failure = receive(near, &controller_key(), network()).await.err().expect("let go");
        assert!(matches!(failure, LinkFailure::Silent), "{failure}");
        assert!((clock.now() - began) <= Duration::from_secs(11));
    });
}
