//! Who comes to the link and may not, and whom a provider does not work for: each is told why, by its code.

use std::{fs, path::Path, process::Output};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use piecework_api::Client;
use piecework_model::{AccountId, Code, NetworkId, Prices, Rejection, SecretKey};
use piecework_queue::{
    Profile,
    link::{LinkFailure, PROTOCOL, PROTOCOL_LOWEST},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{accept_async, connect_async, tungstenite::Message};

use crate::{
    computer::{Computer, invite, provide, says},
    machine::Machine,
    providers::alone,
    rogue::{Rogue, key_of, knock, link_of, offer, profile, register},
};

async fn refused(machine: &Machine, key: &SecretKey, profile: Profile, code: Code) {
    match knock(machine, key, profile).await {
        LinkFailure::Refused(rejection) => assert_eq!(rejection.code, code),
        other => panic!("{code}: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_links_as_what_he_is_not_is_told_why() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = alone(home.path());
    let client = Client::new(&machine.url, None).expect("a URL");
    let network = client.ledger_status().await.expect("answers").network;
    let key = key_of("stranger");
    let own = profile(AccountId::of(&key.public()), "stranger");
    refused(&machine, &key, own.clone(), Code::LinkUnknownProvider).await;

    let operator = machine.get("/accounts/operator").await.ok();
    let account = operator["id"].as_str().expect("an id").parse().expect("an id");
    let posing = Profile { account, ..own.clone() };
    refused(&machine, &key, posing, Code::LinkOtherKey).await;

    register(&client, &key, network, &own, invite(&machine).await).await;
    refused(&machine, &key, own.clone(), Code::LinkNoOffer).await;
    offer(&client, &key, network, &own).await;
    let dearer = Profile {
        prices: Prices {
            start_ucr: own.prices.start_ucr + 1,
            ..own.prices
        },
        ..own.clone()
    };
    refused(&machine, &key, dearer, Code::LinkOtherPrices).await;
    for out_of_bounds in [
        Profile {
            slots: 0,
            ..own.clone()
        },
        Profile {
            slots: u32::MAX,
            ..own.clone()
        },
        Profile {
            cores: 0,
            ..own.clone()
        },
        Profile {
            name: "n".repeat(1_000),
            ..own.clone()
        },
        Profile {
            labels: vec!["label".to_owned(); 1_000],
            ..own.clone()
        },
    ] {
        refused(&machine, &key, out_of_bounds, Code::LinkBadProfile).await;
    }

    // The first program with a key keeps its place; the second is told so.
    let rogue = Rogue::join(&machine, "twin").await;
    let twin = key_of("twin");
    let again = profile(AccountId::of(&twin.public()), "twin");
    refused(&machine, &twin, again, Code::LinkAlreadyConnected).await;
    drop(rogue);
}

/// The first words of a provider's program of some version, as all versions say them.
fn first_words(protocol: u16, network: NetworkId) -> Bytes {
    let noise = vec![7_u8; 32];
    let words = (*b"pw-link\0", protocol, network, noise);
    borsh::to_vec(&words).expect("bytes").into()
}

/// A refusal in the clear, as every version reads and writes it.
fn in_the_clear(rejection: &Rejection) -> Vec<u8> {
    [vec![1], borsh::to_vec(rejection).expect("bytes")].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_of_another_version_reads_who_has_to_update() {
    let home = tempfile::tempdir().expect("a directory");
    let machine = alone(home.path());
    let client = Client::new(&machine.url, None).expect("a URL");
    let network = client.ledger_status().await.expect("answers").network;
    for (protocol, hint) in [
        (PROTOCOL_LOWEST - 1, "update this provider"),
        (0, "update this provider"),
        (PROTOCOL + 1, "update the controller"),
    ] {
        let (mut socket, _) = connect_async(link_of(&machine)).await.expect("a WebSocket");
        let words = Message::Binary(first_words(protocol, network));
        socket.send(words).await.expect("sent");
        let Some(Ok(Message::Binary(answer))) = socket.next().await else {
            panic!("version {protocol} is not answered");
        };
        let (variant, said) = answer.split_first().expect("an answer");
        assert_eq!(*variant, 1, "version {protocol} is let in");
        let said: Rejection = borsh::from_slice(said).expect("a refusal");
        assert_eq!(
            (said.code.known(), said.hint.as_deref()),
            (Some(Code::LinkVersion), Some(hint))
        );
    }
}

/// All of a controller but its link: whoever comes there gets this answer.
async fn with_another_link(machine: &Machine, answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let to = machine.url.strip_prefix("http://").expect("plain HTTP").to_owned();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(front(near, to.clone(), answer.clone()));
        }
    });
    url
}

async fn front(mut near: TcpStream, to: String, answer: Vec<u8>) {
    const LINK: &[u8] = b"GET /link ";
    let mut head = [0; LINK.len()];
    while near
        .peek(&mut head)
        .await
        .is_ok_and(|read| 0 < read && read < LINK.len())
    {
        tokio::task::yield_now().await;
    }
    if head != LINK {
        let mut far = TcpStream::connect(to).await.expect("the controller answers");
        // Either end may hang up.
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        return;
    }
    let mut socket = accept_async(near).await.expect("a WebSocket");
    let first = socket.next().await;
    assert!(matches!(first, Some(Ok(Message::Binary(_)))), "{first:?}");
    let _ = socket.send(Message::Binary(answer.into())).await;
    // Until it hangs up.
    while let Some(Ok(_)) = socket.next().await {}
}

async fn ended(directory: &Path, controller: &str, more: &[&str]) -> (Option<i32>, String) {
    let mut command = provide(directory, controller, "laptop", more);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let Output { status, stderr, .. } = output.expect("no panic").expect("it runs");
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_another_version_is_named_and_one_that_talks_garbage_is_tried_again() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let older = Rejection::new(Code::LinkVersion, "the provider speaks a newer version of the link");
    let older = with_another_link(&machine, in_the_clear(&older.hint("update the controller"))).await;
    let (status, said) = ended(away.path(), &older, &["--invite", &code]).await;
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains(Code::LinkVersion.as_str()) && said.contains("\n  update the controller"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");

    let garbled = with_another_link(&machine, b"<html>".to_vec()).await;
    let line = says(
        provide(away.path(), &garbled, "laptop", &[]),
        "does not keep to the protocol",
    );
    assert!(line.await.contains("trying again in"));
    // Nothing of that has spoilt anything, and one of two that refuses is left out.
    let _laptop = Computer::start(away.path(), &older, "laptop", &["--controller", &machine.url]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_with_another_key_than_before_is_not_worked_for() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    assert!(Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]).stop());
    let known = away.path().join("controllers");
    let kept = fs::read_to_string(&known).expect("the key is kept");
    let key = kept.split_whitespace().next().expect("a key");
    fs::write(&known, format!("{}\n", key_of("another").public())).expect("written");
    let (status, said) = ended(away.path(), &machine.url, &[]).await;
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains(Code::LinkUntrustedController.as_str()) && said.contains(key),
        "{said}"
    );
    // As it says: the owner may know better.
    fs::write(&known, format!("{}\n{key}\n", key_of("another").public())).expect("written");
    let _laptop = Computer::start(away.path(), &machine.url, "laptop", &[]);
}
