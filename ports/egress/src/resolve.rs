//! Resolves a name's addresses.

use std::{io, net::IpAddr};

use async_trait::async_trait;

/// Whoever resolves names on this side.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Every address of the name, in the order of preference; the caller holds the deadline.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// As this machine resolves names for everything else.
#[derive(Clone, Copy, Debug)]
pub struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // The dot at the end keeps this machine's search domains out.
        let found = tokio::net::lookup_host((format!("{name}."), 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}
