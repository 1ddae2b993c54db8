//! Connections: those that say nothing make room, and nobody waits for ever.

use std::time::{Duration, Instant};

use piecework_serve::Limits;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::served::{Served, WITHIN, limits, until_closed};

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sent");
}

#[tokio::test]
async fn silent_connections_make_room_for_the_next() {
    let served = Served::start(Limits {
        head_within: 2 * WITHIN,
        ..limits()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(served.connect().await);
    }
    let mut half = served.connect().await;
    send(&mut half, "GET / HTTP/1.1\r\nhost: h\r\nx: ").await;
    served.is_well().await;
    // Pushed out: it would be waited for for longer than this test looks.
    assert!(until_closed(&mut silent[0]).await.is_empty());
}

#[tokio::test]
async fn a_request_that_runs_is_not_pushed_out() {
    let served = Served::start(limits()).await;
    let mut running = Vec::new();
    for _ in 0..8 {
        let mut stream = served.connect().await;
        send(&mut stream, "GET /never HTTP/1.1\r\nhost: h\r\n\r\n").await;
        running.push(stream);
    }
    let ask = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    // Until all of them run, one of them can be pushed out.
    let is_full = async {
        while !served.said_to(ask.as_bytes()).await.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WITHIN, is_full)
        .await
        .expect("there is no room, and it is closed unanswered");
    let mut alive = Vec::new();
    for mut stream in running {
        if timeout(Duration::from_millis(10), stream.read_u8()).await.is_err() {
            alive.push(stream);
        }
    }
    assert!(alive.len() >= 7, "{} run", alive.len());
    drop(alive);
    let is_free = async {
        while served.said_to(ask.as_bytes()).await.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(WITHIN, is_free).await.expect("places are given back");
}

#[tokio::test]
async fn nothing_is_waited_for_for_ever() {
    let served = Served::start(limits()).await;
    let half_a_body = "POST /length HTTP/1.1\r\nhost: h\r\ncontent-length: 1000\r\n\r\nabc";
    let table = [
        ("", ""),
        ("GET / HTTP/1.1\r\nhost: h\r\n", ""),
        ("GET / HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 200"),
        (half_a_body, "HTTP/1.1 408"),
    ];
    for (sent, due) in table {
        let mut stream = served.connect().await;
        send(&mut stream, sent).await;
        let said = until_closed(&mut stream).await;
        assert!(
            said.starts_with(due) && said.is_empty() == due.is_empty(),
            "{sent}: {said}"
        );
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_hung_up_on() {
    let served = Served::start(limits()).await;
    let mut slow = served.connect().await;
    send(&mut slow, "GET / HTTP/1.1\r\nhost: h\r\n").await;
    let trickle = async {
        while slow.write_all(b"x: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WITHIN, trickle).await.expect("the server hangs up");
}

#[tokio::test]
async fn an_idle_connection_has_its_time_anew_after_each_request() {
    let served = Served::start(Limits {
        idle_within: Duration::from_secs(5),
        ..limits()
    })
    .await;
    let mut stream = served.connect().await;
    let began = Instant::now();
    // Longer in all than one wait may be.
    while began.elapsed() < Duration::from_secs(7) {
        send(&mut stream, "GET /status/204 HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut head = [0; 512];
        let count = stream.read(&mut head).await.expect("answered");
        assert!(
            head[..count].starts_with(b"HTTP/1.1 204"),
            "after {:?}",
            began.elapsed()
        );
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_waits_for_no_request_for_long() {
    let served = Served::start(limits()).await;
    let mut never = served.connect().await;
    send(&mut never, "GET /never HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut idle = served.connect().await;
    send(&mut idle, "GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.expect("answered");
    let mut silent = served.connect().await;
    let began = Instant::now();
    served.stop().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for stream in [&mut never, &mut idle, &mut silent] {
        until_closed(stream).await;
    }
}
