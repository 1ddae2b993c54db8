//! Requests that others might read otherwise, and answers that have no body.

use crate::served::{Served, limits};

/// Behind each of the requests, for a server that takes them for shorter than they are.
const HIDDEN: &str = "GET /status/299 HTTP/1.1\r\nhost: h\r\n\r\n";

#[tokio::test]
async fn what_could_be_taken_for_another_request_is_refused() {
    let served = Served::start(limits()).await;
    let of_a_body = |headers: &str| format!("POST /length HTTP/1.1\r\nhost: h\r\n{headers}\r\n\r\n0\r\n\r\n");
    let table = [
        ("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".to_owned(), 200),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\nhost: h\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n".to_owned(), 400),
        (of_a_body("content-length: 4\r\ntransfer-encoding: chunked"), 400),
        (of_a_body("transfer-encoding: chunked\r\ncontent-length: 4"), 400),
        (of_a_body("content-length: 0\r\ncontent-length: 40"), 400),
        (of_a_body("content-length: +0"), 400),
        (of_a_body("transfer-encoding: xchunked"), 400),
        (of_a_body("transfer-encoding: gzip, chunked"), 501),
        (of_a_body("transfer-encoding: chunked, chunked"), 501),
        (
            of_a_body("transfer-encoding: identity\r\ntransfer-encoding: chunked"),
            501,
        ),
    ];
    for (request, status) in table {
        let said = served.said_to(format!("{request}{HIDDEN}").as_bytes()).await;
        assert_eq!(said.get(9..12), Some(&*format!("{status}")), "{request}: {said}");
        assert!(!said.contains("299"), "{request}: {said}");
    }
    served.is_well().await;
}

#[tokio::test]
async fn a_body_with_lines_of_its_own_is_no_head() {
    let served = Served::start(limits()).await;
    let first = "POST /length HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\n\r\na\nb\n";
    let second = "POST /length HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n";
    let said = served.said_to(format!("{first}{second}").as_bytes()).await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    assert!(said.ends_with('2'), "{said}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let served = Served::start(limits()).await;
    let of = |bytes: usize| {
        let filling = "a".repeat(bytes);
        format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\nx: {filling}\r\n\r\n")
    };
    let said = served.said_to(of(32 << 10).as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    for bytes in [100 << 10, 400 << 10, 2 << 20] {
        let said = served.said_to(of(bytes).as_bytes()).await;
        // What was not read may come back as a reset before the answer is seen.
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{bytes}: {said}");
    }
    served.is_well().await;
}

#[tokio::test]
async fn an_answer_without_a_body_says_nothing_about_its_length() {
    let served = Served::start(limits()).await;
    let asked = async |status: u16| {
        let request = format!("GET /status/{status} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        served.said_to(request.as_bytes()).await.to_ascii_lowercase()
    };
    for status in [204, 205, 304] {
        let said = asked(status).await;
        assert!(said.starts_with(&format!("http/1.1 {status}")), "{said}");
        assert!(!said.contains("content-length") && !said.contains("a body"), "{said}");
    }
    let said = asked(200).await;
    assert!(said.contains("content-length: 6") && said.ends_with("a body"), "{said}");
}
