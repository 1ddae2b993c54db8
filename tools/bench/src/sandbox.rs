//! `./bench sandbox`: cold and warm of each sandbox of this machine beside the least that each takes, in one run.
//!
//! `piecework bench` measures, by the sandboxes' own contract; this adds what a process takes that does nothing, and the table.

use std::{
    fmt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::report::{Machine, now, write_json, write_table};

#[derive(Clone, Debug, Args)]
pub struct SandboxOptions {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/piecework")]
    binary: PathBuf,
    /// Cold calls of each sandbox in each language.
    #[arg(long, default_value_t = 20)]
    cold: u32,
    /// Warm calls.
    #[arg(long, default_value_t = 500)]
    warm: u32,
    /// Writes the table into this file, between its marks.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where the raw numbers go.
    #[arg(long, default_value = "bench-results")]
    results: PathBuf,
}

const BEGIN: &str = "<!-- ./bench sandbox writes this table -->";

/// As `piecework bench --json` has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Values {
    n: usize,
    median: f64,
    p99: f64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Row {
    sandbox: String,
    language: String,
    cold: Values,
    warm: Values,
    floor: Option<(String, Values)>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Figures {
    began_at: u64,
    machine: Machine,
    /// Of a process that ends at once: median, milliseconds.
    process_ms: f64,
    rows: Vec<Row>,
}

pub fn measure(options: &SandboxOptions) -> Result<()> {
    let machine = Machine::read();
    let process_ms = process_ms(options.cold.max(1))?;
    let figures = Figures {
        began_at: now(),
        machine,
        process_ms,
        rows: compared(options)?,
    };
    println!("{figures}");
    if let Some(file) = &options.table {
        write_table(file, BEGIN, &figures.to_string())?;
    }
    println!("raw: {}", write_json(&options.results, "sandbox", &figures)?.display());
    Ok(())
}

fn compared(options: &SandboxOptions) -> Result<Vec<Row>> {
    let mut command = Command::new(&options.binary);
    command.args(["bench", "--json", "--seconds", "1"]);
    command.args(["--cold", &options.cold.to_string(), "--warm", &options.warm.to_string()]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {}", options.binary.display()))?;
    ensure!(
        output.status.success(),
        "`piecework bench` ended with {}",
        output.status
    );
    let compared: Compared = serde_json::from_slice(&output.stdout).context("its JSON")?;
    Ok(compared.rows)
}

/// Fork, exec and end of a program that does nothing.
fn process_ms(times: u32) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let status = Command::new("/bin/true").env_clear().stdin(Stdio::null()).status();
        ensure!(status.context("run /bin/true")?.success(), "/bin/true failed");
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[took.len() / 2])
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.machine)?;
        writeln!(
            f,
            "A process that does nothing (fork, exec, end): {:.2} ms.\n",
            self.process_ms
        )?;
        writeln!(
            f,
            "| sandbox | language | cold: p50, p99 | its floor | p50 of the floor | cold / floor | warm: p50, p99 |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let (what, floor, ratio) = match &row.floor {
                Some((what, floor)) => (
                    what.as_str(),
                    format!("{:.3} ms", floor.median),
                    format!("{:.1} x", row.cold.median / floor.median),
                ),
                None => ("–", "–".to_owned(), "–".to_owned()),
            };
            writeln!(
                f,
                "| `{}` | {} | {:.2} ms, {:.2} ms | {what} | {floor} | {ratio} | {:.0} us, {:.0} us |",
                row.sandbox, row.language, row.cold.median, row.cold.p99, row.warm.median, row.warm.p99
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_prints_is_read_and_shown_beside_its_floor() {
        let figure = r#"{"unit":"ms","n":3,"median":12.0,"median_ci95":[1.0,2.0],"p95":13.0,"p99":14.0,"raw":[]}"#;
        let json = format!(
            r#"{{"machine":{{}},"rows":[{{"sandbox":"oci","language":"python","cold":{figure},"warm":{figure},"floor":["bare crun run",{figure}]}}]}}"#
        );
        let compared: Compared = serde_json::from_str(&json).expect("JSON");
        let figures = Figures {
            began_at: 0,
            machine: Machine::read(),
            process_ms: 0.5,
            rows: compared.rows,
        };
        let table = figures.to_string();
        assert!(
            table.contains("| `oci` | python | 12.00 ms, 14.00 ms | bare crun run | 12.000 ms | 1.0 x |"),
            "{table}"
        );
    }
}
