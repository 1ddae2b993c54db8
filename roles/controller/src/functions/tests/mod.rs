//! Functions on a whole controller in one process.

mod budgets;
mod build_logs;
mod changes;
mod fallback;
mod life;
mod walls;
mod watching;

use serde_json::Value;

/// Of the audit record, newest first.
fn actions(audit: &Value) -> Vec<String> {
    let items = audit["items"].as_array().expect("a list");
    let action = |item: &Value| item["action"].as_str().expect("an action").to_owned();
    items.iter().map(action).collect()
}
