//! NATS JetStream.

use std::time::Duration;

use piecework_intake::{Source, Verdict};

use super::server;

#[tokio::test]
async fn a_stream_gives_each_message_until_it_is_settled() {
    let Some(server) = server::nats() else { return };
    let url = format!("nats://127.0.0.1:{}", server.port);
    let client = async_nats::connect(&url).await.unwrap();
    let ask = async |subject: &str, headers: async_nats::HeaderMap, body: &str| {
        let answer = client.request_with_headers(subject.to_owned(), headers, body.to_owned().into());
        let answer: serde_json::Value = serde_json::from_slice(&answer.await.unwrap().payload).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
    };
    let none = async_nats::HeaderMap::new;
    let made = r#"{"name": "ORDERS", "subjects": ["orders.>", "other"]}"#;
    ask("$JS.API.STREAM.CREATE.ORDERS", none(), made).await;
    let mut headers = none();
    headers.insert("Nats-Msg-Id", "order-1");
    headers.insert("Color", "red");
    ask("orders.new", headers, "1").await;
    for (subject, body) in [("other", "not for us"), ("orders.new", "2"), ("orders.old", "3")] {
        ask(subject, none(), body).await;
    }

    let source = Source::Nats {
        url: url.clone(),
        stream: "ORDERS".into(),
        consumer: "piecework".into(),
        subject: Some("orders.>".into()),
    };
    let mut intake = source.open(2).await.unwrap();
    let first = intake.next().await.unwrap();
    assert_eq!((&*first.subject, first.id.as_deref()), ("orders.new", Some("order-1")));
    assert_eq!((&first.body[..], first.redelivered), (&b"1"[..], false));
    assert!(
        first.headers.contains(&("Color".into(), "red".into())),
        "{:?}",
        first.headers
    );
    let second = intake.next().await.unwrap();
    assert_eq!(second.id.as_deref(), Some("ORDERS/3"), "of its place in the stream");
    let third = tokio::time::timeout(Duration::from_millis(300), intake.next()).await;
    assert!(third.is_err(), "two are in hand already");

    first.settle(Verdict::Accepted).await.unwrap();
    second.settle(Verdict::Later(Duration::from_millis(10))).await.unwrap();
    // The third, and the second once more, in some order.
    let (one, other) = (intake.next().await.unwrap(), intake.next().await.unwrap());
    let (third, second) = if one.redelivered { (other, one) } else { (one, other) };
    assert_eq!((second.id.as_deref(), second.redelivered), (Some("ORDERS/3"), true));
    assert_eq!((third.id.as_deref(), third.redelivered), (Some("ORDERS/4"), false));
    second.settle(Verdict::Accepted).await.unwrap();
    third.settle(Verdict::Never).await.unwrap();
    drop(intake);

    // Another who names the same consumer goes on behind them.
    ask("orders.new", none(), "4").await;
    let last = source.open(2).await.unwrap().next().await.unwrap();
    assert_eq!(last.id.as_deref(), Some("ORDERS/5"));
    let missing = Source::Nats {
        url,
        stream: "NONE".into(),
        consumer: "piecework".into(),
        subject: None,
    };
    let said = missing.open(1).await.err().unwrap().to_string();
    assert!(said.starts_with("find the stream: "), "{said}");
}
