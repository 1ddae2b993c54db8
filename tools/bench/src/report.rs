//! The table for people and the raw numbers for programs.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{Options, cold::Cold, floors::Start, idle::Idle, receipts::ReceiptCost, warm::Warm};

#[derive(Debug, Serialize)]
pub struct Report {
    /// Unix seconds.
    began_at: u64,
    machine: Machine,
    settings: Settings,
    warm: Vec<Warm>,
    cold: Vec<Cold>,
    idle: Option<Idle>,
    floors: Vec<Start>,
    receipts: Vec<ReceiptCost>,
}

/// Where and when figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// One minute's load average before the run: above zero, somebody else was working.
    load_before: String,
    commit: String,
}

#[derive(Debug, Serialize)]
struct Settings {
    seconds: f64,
    single: usize,
    connections: usize,
    rounds: usize,
    sandbox: String,
}

/// Unix seconds.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Replaces what stands between `begin`, a line of the file's, and the next end of a table.
pub fn write_table(file: &Path, begin: &str, table: &str) -> Result<()> {
    const END: &str = "<!-- end of the table -->";
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let begin = format!("{begin}\n");
    let (before, rest) = text.split_once(&begin).context("the file has no place for the table")?;
    let (_, after) = rest.split_once(END).context("the table's place has no end")?;
    let written = format!("{before}{begin}\n{}\n\n{END}{after}", table.trim());
    fs::write(file, written).with_context(|| format!("write {}", file.display()))
}

/// Writes raw numbers as `folder/name.json`.
pub fn write_json(folder: &Path, name: &str, figures: &impl Serialize) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(figures).context("write JSON")?;
    fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

impl Report {
    pub fn new(options: &Options) -> Self {
        Self {
            began_at: now(),
            machine: Machine::read(),
            settings: Settings {
                seconds: options.seconds,
                single: options.single,
                connections: options.connections,
                rounds: options.rounds,
                sandbox: options.sandbox.clone(),
            },
            warm: Vec::new(),
            cold: Vec::new(),
            idle: None,
            floors: Vec::new(),
            receipts: Vec::new(),
        }
    }

    pub fn warm(&mut self, warm: Warm) {
        self.warm.push(warm);
    }

    pub fn cold(&mut self, cold: Cold) {
        self.cold.push(cold);
    }

    pub fn idle(&mut self, idle: Idle) {
        self.idle = Some(idle);
    }

    pub fn floors(&mut self, floors: Vec<Start>) {
        self.floors = floors;
    }

    pub fn receipts(&mut self, receipts: Vec<ReceiptCost>) {
        self.receipts = receipts;
    }

    /// Writes the raw numbers below `folder`; the file's name is the time of the run.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        write_json(folder, &self.began_at.to_string(), self)
    }

    /// The median over the rounds of one target.
    fn median(&self, target: &str, value: impl Fn(&Warm) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self
            .warm
            .iter()
            .filter(|warm| warm.target == target)
            .filter_map(value)
            .collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn targets(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for warm in &self.warm {
            if !names.contains(&warm.target.as_str()) {
                names.push(&warm.target);
            }
        }
        names
    }

    fn fmt_warm(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nwarm calls: one connection, then {} connections (medians of {} rounds)",
            self.settings.connections, self.settings.rounds
        )?;
        writeln!(
            f,
            "{:<36}{:>9}{:>9}{:>9}{:>10}{:>13}{:>8}{:>9}",
            "", "p50 us", "p95 us", "p99 us", "req/s", "req/CPU-s", "procs", "refused"
        )?;
        for target in self.targets() {
            let number = |value: fn(&Warm) -> Option<f64>| match self.median(target, value) {
                Some(median) => format!("{median:.0}"),
                None => "-".into(),
            };
            let refused: u64 = self
                .warm
                .iter()
                .filter(|warm| warm.target == target)
                .map(|warm| warm.refused)
                .sum();
            writeln!(
                f,
                "{target:<36}{:>9}{:>9}{:>9}{:>10}{:>13}{:>8}{refused:>9}",
                number(|warm| Some(warm.p50_us)),
                number(|warm| Some(warm.p95_us)),
                number(|warm| Some(warm.p99_us)),
                number(|warm| Some(warm.requests_per_s)),
                number(|warm| warm.requests_per_cpu_s),
                number(|warm| warm.processes.map(|count| count as f64)),
            )?;
        }
        Ok(())
    }

    fn fmt_cold(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nfresh functions, one connection")?;
        writeln!(
            f,
            "{:<36}{:>16}{:>16}{:>20}",
            "", "first call ms", "deploy ms", "deploy + call ms"
        )?;
        let ms = |p50: f64, p95: f64| format!("{:.2} ({:.2})", p50 / 1_000.0, p95 / 1_000.0);
        for cold in &self.cold {
            writeln!(
                f,
                "{:<36}{:>16}{:>16}{:>20}",
                format!("{}: {} of {} cold, p50 (p95)", cold.language, cold.cold, cold.functions),
                ms(cold.first_call_p50_us, cold.first_call_p95_us),
                ms(cold.deploy_p50_us, cold.deploy_p95_us),
                ms(cold.deploy_to_answer_p50_us, cold.deploy_to_answer_p95_us),
            )?;
        }
        for start in &self.floors {
            writeln!(
                f,
                "{:<36}{:>16}",
                format!("floor: {}", start.name),
                ms(start.p50_us, start.p95_us)
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        self.fmt_warm(f)?;
        self.fmt_cold(f)?;
        if let Some(idle) = &self.idle {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(f, "\nidle functions")?;
            writeln!(
                f,
                "{} more: {:.1} -> {:.1} MiB ({:.0} bytes each), disk {:.1} -> {:.1} MiB, {:.0} deployed/s",
                idle.functions,
                mib(idle.memory_before_bytes),
                mib(idle.memory_after_bytes),
                idle.bytes_each(),
                mib(idle.disk_before_bytes),
                mib(idle.disk_after_bytes),
                idle.deploys_per_s
            )?;
        }
        writeln!(f, "\nCPU of one receipt, by receipts under one signature")?;
        for cost in &self.receipts {
            let total = cost.make_us + cost.check_us;
            writeln!(
                f,
                "{:>5}: {:.2} us to make + {:.2} us to check = {total:.2} us",
                cost.batch, cost.make_us, cost.check_us
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} x {}, {}, load before {}",
            self.cores, self.cpu, self.kernel, self.load_before
        )
    }
}

impl Machine {
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .unwrap_or("unknown CPU");
        let first_word = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().next().unwrap_or("unknown").to_owned()
        };
        let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
        Self {
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: format!("Linux {}", first_word("/proc/sys/kernel/osrelease")),
            load_before: first_word("/proc/loadavg"),
            commit: commit.map_or_else(
                |_| String::new(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_replaced_between_its_marks() {
        const BEGIN: &str = "<!-- the table -->";
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = "a\n<!-- the table -->\nold\n<!-- end of the table -->\nb\n<!-- end of the table -->\n";
        fs::write(file.path(), text).expect("writes");
        write_table(file.path(), BEGIN, "| new |\n").expect("has a place");
        let written = fs::read_to_string(file.path()).expect("reads");
        assert!(written.starts_with("a\n") && written.ends_with("\nb\n<!-- end of the table -->\n"));
        assert!(written.contains("| new |") && !written.contains("old"));
        fs::write(file.path(), "nothing").expect("writes");
        assert!(write_table(file.path(), BEGIN, "x").is_err());
    }
}
