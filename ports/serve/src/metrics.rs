//! Metrics as Prometheus reads them: the two text formats, and what every process tells of itself.

use std::{fs, sync::atomic::AtomicU64};

use http::{HeaderMap, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The content type and the text of a registry: OpenMetrics for a caller that accepts it, else the classic text format, which
/// `promtool check metrics` and older collectors read.
pub fn exposition(registry: &Registry, headers: &HeaderMap) -> (&'static str, String) {
    let accepts = |value: &http::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|text| text.contains("application/openmetrics-text"))
    };
    let mut open = String::new();
    encode(&mut open, registry).expect("a string takes every write");
    match headers.get_all(header::ACCEPT).iter().any(accepts) {
        true => (OPEN, open),
        false => (CLASSIC, classic(&open)),
    }
}

/// The same in the classic format, which names a counter as its samples are named, and knows no end.
fn classic(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
            continue;
        }
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            text += line;
            text.push('\n');
            continue;
        };
        let (end, kind) = match kind {
            "counter" => ("_total", kind),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        if let Some((_, said)) = help.take().filter(|(of, _)| *of == name) {
            text += &format!("# HELP {name}{end} {said}\n");
        }
        text += &format!("# TYPE {name}{end} {kind}\n");
    }
    text
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Build {
    version: &'static str,
    role: &'static str,
}

/// What this process uses, by the names that Prometheus' own clients give, and which build and role it is. `root` has no prefix.
pub fn process(root: &mut Registry, version: &'static str, role: &'static str) {
    let build = Family::<Build, Gauge>::default();
    build.get_or_create(&Build { version, role }).set(1);
    root.register("piecework_build_info", "The version and role of this process", build);
    let Some(stat) = Stat::read() else { return };
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inc_by(stat.cpu_s);
    root.register(
        "process_cpu_seconds",
        "CPU time of this process, in user and system mode",
        cpu,
    );
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        root.register(name, help, gauge);
    };
    gauge(
        "process_resident_memory_bytes",
        "Resident memory of this process",
        stat.resident_bytes,
    );
    gauge(
        "process_virtual_memory_bytes",
        "Virtual memory of this process",
        stat.virtual_bytes,
    );
    gauge(
        "process_start_time_seconds",
        "Start of this process, since 1970",
        stat.start_s,
    );
    gauge("process_threads", "Threads of this process", stat.threads);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        gauge("process_open_fds", "Open file descriptors", open.count() as f64);
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge("process_max_fds", "Most file descriptors that may be open", most as f64);
    }
}

/// Of /proc/self/stat, /proc/self/status and /proc/stat.
struct Stat {
    cpu_s: f64,
    threads: f64,
    start_s: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

/// What Linux counts in for programs, on every machine.
const TICKS_PER_S: f64 = 100.0;

impl Stat {
    fn read() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        let machine = fs::read_to_string("/proc/stat").ok()?;
        let boot_s: f64 = machine
            .lines()
            .find_map(|line| line.strip_prefix("btime "))?
            .trim()
            .parse()
            .ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib: f64 = resident.split_whitespace().next()?.parse().ok()?;
        // The name in brackets may hold anything; the third field follows it.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_s: (field(14)? + field(15)?) / TICKS_PER_S,
            threads: field(20)?,
            start_s: boot_s + field(22)? / TICKS_PER_S,
            virtual_bytes: field(23)?,
            resident_bytes: resident_kib * 1_024.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        process(&mut registry, "1.2.3", "peer");
        let jobs = Counter::<u64>::default();
        jobs.inc();
        registry.register("jobs", "Jobs that ended", jobs);
        registry
    }

    #[test]
    fn the_classic_text_names_counters_as_their_samples() {
        let (kind, text) = exposition(&registry(), &HeaderMap::new());
        assert_eq!(kind, CLASSIC);
        assert!(
            text.contains("# HELP jobs_total Jobs that ended.\n# TYPE jobs_total counter\njobs_total 1\n"),
            "{text}"
        );
        assert!(
            text.contains("# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total "),
            "{text}"
        );
        assert!(!text.contains("EOF"), "{text}");
        let help = text.lines().filter(|line| line.starts_with("# HELP")).count();
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(help, types, "{text}");
    }

    #[test]
    fn a_collector_that_asks_for_openmetrics_gets_it() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT,
            "application/openmetrics-text;version=1.0.0,*/*"
                .parse()
                .expect("a value"),
        );
        let (kind, text) = exposition(&registry(), &headers);
        assert_eq!(kind, OPEN);
        assert!(text.contains("# TYPE jobs counter\njobs_total 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn a_process_tells_what_it_uses() {
        let (_, text) = exposition(&registry(), &HeaderMap::new());
        let value = |name: &str| -> f64 {
            let line = text
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")))
                .expect(name);
            line.split(' ').nth(1).expect("a value").parse().expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_start_time_seconds") > 1.6e9);
        assert!(
            text.contains("piecework_build_info{version=\"1.2.3\",role=\"peer\"} 1"),
            "{text}"
        );
    }
}
