//! `piecework open`: a function's URL in the browser.

use std::process::{Command, Stdio};

use crate::{failure::Failure, session, show};

/// Open a function's URL in the browser, and print it
#[derive(Debug, clap::Args)]
pub struct Open {
    /// Name or id of the function
    name: String,
    /// Only print the URL
    #[arg(long)]
    print: bool,
}

/// What opens a URL on this system.
const OPENER: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

impl Open {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let view = session::connect()?.function(&self.name).await?;
        // At an origin of its own a page may keep things in the browser.
        let url = view.own_url.as_ref().unwrap_or(&view.url);
        if json {
            return show::json(&serde_json::json!({ "url": url, "public": view.public }));
        }
        show::text(&format!("{url}\n"))?;
        if !view.public {
            eprintln!("it is private: a browser has no token; `piecework deploy ... --public` lets anyone call it");
        }
        if self.print {
            return Ok(());
        }
        let opened = Command::new(OPENER)
            .arg(url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !opened.is_ok_and(|status| status.success()) {
            eprintln!("no browser could be opened here; open the URL yourself");
        }
        Ok(())
    }
}
