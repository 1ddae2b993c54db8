//! The certificate of a role that serves HTTPS itself.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Read again within seconds when the files change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its key in PEM, without a password.
    pub key: PathBuf,
}
