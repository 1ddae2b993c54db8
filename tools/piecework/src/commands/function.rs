//! `piecework function`: one function's settings.

use piecework_api::functions::FunctionView;

use crate::{failure::Failure, session, show};

/// Show a function
#[derive(Debug, clap::Args)]
pub struct Function {
    name: String,
}

impl Function {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let view = session::connect()?.function(&self.name).await?;
        if json {
            show::json(&view)
        } else {
            show::fields(&rows(&view))
        }
    }
}

fn rows(view: &FunctionView) -> Vec<(&'static str, String)> {
    let env: Vec<String> = view.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    vec![
        ("name", view.name.clone()),
        ("id", view.id.to_string()),
        ("url", view.url.clone()),
        ("owner", view.owner.clone()),
        ("version", view.version.to_string()),
        ("language", view.language.to_string()),
        ("status", format!("{:?}", view.status).to_lowercase()),
        ("sandbox", format!("{}: {}", view.sandbox, view.sandbox_reason)),
        ("timeout", format!("{} ms", view.timeout_ms)),
        ("memory", format!("{} MiB", view.memory_limit_mb)),
        ("concurrency", view.concurrency.to_string()),
        ("public", show::yes(view.public)),
        ("strict", show::yes(view.strict)),
        ("env", dash(&env)),
        ("secrets", dash(&view.secret_names)),
        ("packages", dash(&view.packages)),
        ("code", view.code_digest.to_string()),
        ("created", show::time(view.created_at)),
        ("updated", show::time(view.updated_at)),
    ]
}

fn dash(items: &[String]) -> String {
    if items.is_empty() { "-".into() } else { items.join(" ") }
}
