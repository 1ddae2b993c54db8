//! Requests to an authority: few, small and not for long.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

/// A directory, an order or a chain of certificates; they have a few KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub struct Client(reqwest::Client);

impl Client {
    /// Reads the certificates that this machine trusts.
    pub fn new() -> Result<Self, reqwest::Error> {
        // An error only says that this process has a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .build()?;
        Ok(Self(client))
    }
}

fn failed(error: reqwest::Error) -> Error {
    // The cause says what happened, and the URL is the operator's own.
    Error::Other(Box::new(error))
}

async fn answered(client: reqwest::Client, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    let url = parts.uri.to_string();
    let sent = client.request(parts.method, url).headers(parts.headers).body(body);
    let mut answer = sent.send().await.map_err(failed)?;
    let mut head = http::Response::new(());
    *head.status_mut() = answer.status();
    *head.headers_mut() = std::mem::take(answer.headers_mut());
    let mut whole = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if whole.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Error::Str("the answer is larger than 1 MiB"));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(BytesResponse {
        parts: head.into_parts().0,
        body: Box::new(whole.freeze()),
    })
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(answered(self.0.clone(), request))
    }
}
