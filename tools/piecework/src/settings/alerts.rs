//! How operators are told what is wrong.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use piecework_sink::notice::{Command, Notify, Webhook};
use serde::{Deserialize, Serialize};

/// A webhook, a command, both or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertSettings {
    /// URL to which each alert is posted as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// File with the secret that signs what is posted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Command that gets each alert as a mail on standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl AlertSettings {
    /// Reads the secret.
    pub fn channels(&self) -> Result<Vec<Arc<dyn Notify>>> {
        let mut channels: Vec<Arc<dyn Notify>> = Vec::new();
        if let Some(url) = &self.webhook {
            let secret = self.secret_file.as_ref().map(|path| {
                let secret = fs::read_to_string(path);
                secret.with_context(|| format!("cannot read the secret for alerts from {}", path.display()))
            });
            let secret = secret.transpose()?;
            let secret = secret.as_deref().map(str::trim).filter(|secret| !secret.is_empty());
            let webhook = Webhook::new(url, secret).context("the webhook for alerts")?;
            channels.push(Arc::new(webhook));
        }
        if let Some(line) = self.command.as_deref().filter(|line| !line.trim().is_empty()) {
            channels.push(Arc::new(Command::new(line)));
        }
        Ok(channels)
    }
}
