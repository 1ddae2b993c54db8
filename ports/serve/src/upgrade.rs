//! What becomes of a connection whose client asked for another protocol.

use std::io;

use http::Extensions;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection that is handed over once its request was answered with 101.
pub struct Upgrade(OnUpgrade);

impl Upgrade {
    /// `None` where the request's connection cannot be upgraded.
    pub fn of(request: &Extensions) -> Option<Self> {
        request.get::<OnUpgrade>().cloned().map(Self)
    }

    /// Resolves after the answer was sent; fails if the client left or the answer was another.
    pub async fn connection(self) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
        self.0.await.map(TokioIo::new).map_err(io::Error::other)
    }
}
