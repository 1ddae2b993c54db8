//! AMQP, with RabbitMQ.

use std::time::Duration;

use amqprs::{
    BasicProperties, FieldTable,
    channel::{BasicPublishArguments, Channel, QueueDeclareArguments},
    connection::{Connection, OpenConnectionArguments},
};
use piecework_intake::{Source, Verdict};

use super::server;

async fn publish(channel: &Channel, properties: BasicProperties, body: &str) {
    let to = BasicPublishArguments::new("", "orders");
    channel.basic_publish(properties, body.into(), to).await.unwrap();
}

#[tokio::test]
async fn a_queue_gives_each_message_until_it_is_settled() {
    let Some(server) = server::rabbitmq() else { return };
    let url = format!("amqp://guest:guest@127.0.0.1:{}", server.port);
    let options = OpenConnectionArguments::try_from(&*url).unwrap();
    // It listens a moment before it lets anybody in.
    let connection = loop {
        match Connection::open(&options).await {
            Ok(connection) => break connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let channel = connection.open_channel(None).await.unwrap();
    for (name, dead) in [("dead", None), ("orders", Some("dead"))] {
        let mut arguments = FieldTable::new();
        if let Some(dead) = dead {
            arguments.insert("x-dead-letter-exchange".try_into().unwrap(), String::new().into());
            arguments.insert("x-dead-letter-routing-key".try_into().unwrap(), dead.to_owned().into());
        }
        let declare = QueueDeclareArguments::durable_client_named(name)
            .arguments(arguments)
            .finish();
        channel.queue_declare(declare).await.unwrap();
    }
    let named = BasicProperties::default().with_message_id("order-1").finish();
    publish(&channel, named, "1").await;
    for body in ["2", "3"] {
        publish(&channel, BasicProperties::default(), body).await;
    }

    let source = |queue: &str| Source::Amqp {
        url: url.clone(),
        queue: queue.into(),
    };
    let mut intake = source("orders").open(2).await.unwrap();
    let first = intake.next().await.unwrap();
    assert_eq!((&*first.subject, first.id.as_deref()), ("orders", Some("order-1")));
    assert_eq!((&first.body[..], first.redelivered), (&b"1"[..], false));
    let second = intake.next().await.unwrap();
    assert_eq!((&second.body[..], second.id.as_deref()), (&b"2"[..], None));
    let third = tokio::time::timeout(Duration::from_millis(300), intake.next()).await;
    assert!(third.is_err(), "two are in hand already");

    first.settle(Verdict::Accepted).await.unwrap();
    second.settle(Verdict::Later(Duration::from_millis(10))).await.unwrap();
    let (one, other) = (intake.next().await.unwrap(), intake.next().await.unwrap());
    let (third, second) = if one.redelivered { (other, one) } else { (one, other) };
    assert_eq!((&second.body[..], &third.body[..]), (&b"2"[..], &b"3"[..]));
    third.settle(Verdict::Never).await.unwrap();
    // The second is in hand when the connection ends: it comes to the next.
    drop((intake, second));
    let again = source("orders").open(2).await.unwrap().next().await.unwrap();
    assert_eq!((&again.body[..], again.redelivered), (&b"2"[..], true));
    let dead = source("dead").open(1).await.unwrap().next().await.unwrap();
    assert_eq!(&dead.body[..], b"3");
    let said = source("none").open(1).await.err().unwrap().to_string();
    assert!(said.starts_with("read the queue: "), "{said}");
}
