//! What comes to `GET /link` and is no provider, or stays away.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use piecework_model::Code;
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    computer::{Cable, Computer, invite, provide, provider},
    providers::{ECHO, alone, until},
    rogue::link_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_controller_is_tried_when_one_is_not_there_or_falls_silent() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let code = invite(&machine).await;
    let (first, second) = (Cable::to(&machine.url).await, Cable::to(&machine.url).await);
    let (nobody, other) = ("http://127.0.0.1:1", second.url());
    let more = ["--controller", nobody, "--controller", &other, "--invite", &code];
    let _laptop = Computer::ready(provide(away.path(), &first.url(), "laptop", &more));
    machine.deploy("echo", "javascript", ECHO).await;
    machine.call("echo", json!(1)).await.ok();
    first.cut();
    until("it went over to the other", async || {
        let answer = machine.call("echo", json!(2)).await;
        answer.status.is_success().then_some(())
    })
    .await;
    // All that time the first line was never mended.
    assert_eq!(machine.call("echo", json!(3)).await.ok()["output"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_silence_on_the_link_harm_nobody() {
    let (home, away) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let machine = alone(home.path());
    let plain = machine.ask(Method::GET, "/link", None).await;
    assert!(plain.status.is_client_error(), "{}: no WebSocket", plain.status);

    let (mut socket, _) = connect_async(link_of(&machine)).await.expect("a WebSocket");
    let garbage = Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n");
    socket.send(Message::Binary(garbage)).await.expect("sent");
    let Some(Ok(Message::Binary(answer))) = socket.next().await else {
        panic!("it is told what is wrong");
    };
    assert!(String::from_utf8_lossy(&answer).contains(Code::LinkMalformed.as_str()));

    // More than the controller answers at a time; none of them says anything.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(connect_async(link_of(&machine)).await.expect("a WebSocket"));
    }
    let (mut large, _) = connect_async(link_of(&machine)).await.expect("a WebSocket");
    // The controller hangs up on the way: how much of it was sent is its own affair.
    let _ = large.send(Message::Binary(vec![0; 40 << 20].into())).await;

    let code = invite(&machine).await;
    let _laptop = Computer::start(away.path(), &machine.url, "laptop", &["--invite", &code]);
    machine.deploy("echo", "javascript", ECHO).await;
    machine.call("echo", json!(1)).await.ok();
    let (mut first, _) = silent.swap_remove(0);
    let ended = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(Ok(message)) = first.next().await {
            if matches!(message, Message::Close(_)) {
                break;
            }
        }
    });
    ended.await.expect("whoever says nothing is not kept");
    assert_eq!(provider(&machine, "laptop").await["state"], "ready");
}
