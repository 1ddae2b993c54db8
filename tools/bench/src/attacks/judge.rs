//! What of an attack's answer means that the wall held.

use piecework_model::Code;
use serde::Serialize;
use serde_json::Value;

/// What came of one attack in one language and sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub(super) enum Verdict {
    Held,
    /// What it got.
    NotHeld(String),
    /// There is nothing of the kind that it attacks.
    NotApplicable(String),
}

/// Where the wall of an attack shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wall {
    /// The call ends with one of these codes, by itself.
    Ends(&'static [Code]),
    /// Its `count` is at most this, unless the call failed.
    Counts(u64),
    /// Its list `got` is empty, unless the call failed.
    GetsNothing,
    /// No process with its mark is left a moment later.
    LeavesNoProcess,
    /// No more of its logs is kept than a run may have.
    LogsAreBounded,
    /// Another function finds nothing of what it left.
    LeavesNoFile,
}

/// One row.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// As `hostile.py` and `hostile.mjs` name it.
    pub(super) verb: &'static str,
    pub(super) wall: Wall,
}

/// Limits of the functions, as they are deployed.
pub(super) const PROCESSES: u64 = 32;
pub(super) const DISK_MB: u64 = 16;
/// Of one run, with the marker of what was cut.
const LOG_BYTES: u64 = (256 << 10) + 200;

pub(super) const ATTACKS: [Attack; 14] = [
    attack(
        "an endless loop that ignores signals",
        "loop",
        Wall::Ends(&[Code::FunctionTimedOut]),
    ),
    attack(
        "a memory bomb",
        "memory",
        Wall::Ends(&[Code::FunctionOutOfMemory, Code::FunctionRaised, Code::FunctionCrashed]),
    ),
    attack("a fork bomb", "fork", Wall::Counts(PROCESSES)),
    attack("a daemon that is forked twice", "daemon", Wall::LeavesNoProcess),
    attack("a full disk", "disk", Wall::Counts(DISK_MB << 20)),
    attack("many small files", "files", Wall::Counts(20_000)),
    attack("many open files", "descriptors", Wall::Counts(10_000)),
    attack("files and devices of the host", "host", Wall::GetsNothing),
    attack("processes of others", "others", Wall::GetsNothing),
    attack("the network and the host's services", "network", Wall::GetsNothing),
    attack("system calls that lead out", "calls", Wall::GetsNothing),
    attack(
        "a flood of output",
        "output",
        Wall::Ends(&[Code::FunctionOutputTooLarge, Code::FunctionOutOfMemory]),
    ),
    attack("a flood of logs", "logs", Wall::LogsAreBounded),
    attack("left-overs for the next function", "leave", Wall::LeavesNoFile),
];

const fn attack(name: &'static str, verb: &'static str, wall: Wall) -> Attack {
    Attack { name, verb, wall }
}

/// What was seen of an attack from outside.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The body of the answer.
    pub(super) answer: Value,
    /// Processes of it that were left.
    pub(super) left: usize,
    pub(super) log_bytes: Option<u64>,
    /// What another function found.
    pub(super) found: Value,
}

pub(super) fn judge(wall: Wall, seen: &Seen) -> Verdict {
    let output = &seen.answer["output"];
    if let Some(absent) = output["absent"].as_str() {
        return Verdict::NotApplicable(absent.to_owned());
    }
    let code = seen.answer["error"]["code"].as_str();
    let held = |holds: bool, otherwise: String| match holds {
        true => Verdict::Held,
        false => Verdict::NotHeld(otherwise),
    };
    match wall {
        Wall::Ends(codes) => held(
            code.is_some_and(|code| codes.iter().any(|ends| ends.as_str() == code)),
            format!("it ended with {}", code.unwrap_or("an answer")),
        ),
        // Whoever failed got no further.
        Wall::Counts(_) | Wall::GetsNothing if code.is_some_and(|code| code.starts_with("function.")) => Verdict::Held,
        Wall::Counts(most) => {
            let count = output["count"].as_u64().unwrap_or(u64::MAX);
            held(count <= most, count.to_string())
        }
        Wall::GetsNothing => gets_nothing(output),
        Wall::LeavesNoProcess => held(seen.left == 0, format!("{} processes", seen.left)),
        Wall::LogsAreBounded => held(
            seen.log_bytes.is_some_and(|bytes| bytes <= LOG_BYTES),
            format!("{:?} bytes of it are kept", seen.log_bytes),
        ),
        Wall::LeavesNoFile => gets_nothing(&seen.found["output"]),
    }
}

fn gets_nothing(output: &Value) -> Verdict {
    match output["got"].as_array() {
        Some(got) if got.is_empty() => Verdict::Held,
        Some(got) => {
            let names: Vec<&str> = got.iter().filter_map(Value::as_str).collect();
            Verdict::NotHeld(names.join(", "))
        }
        None => Verdict::NotHeld(format!("an answer without a list: {output}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(answer: Value) -> Seen {
        Seen {
            answer,
            ..Seen::default()
        }
    }

    #[test]
    fn an_attack_that_succeeds_is_never_held() {
        let counts = Wall::Counts(32);
        assert_eq!(judge(counts, &seen(json!({"output": {"count": 32}}))), Verdict::Held);
        assert!(matches!(
            judge(counts, &seen(json!({"output": {"count": 33}}))),
            Verdict::NotHeld(_)
        ));
        assert!(matches!(
            judge(counts, &seen(json!({"output": {}}))),
            Verdict::NotHeld(_)
        ));
        let nothing = Wall::GetsNothing;
        assert_eq!(judge(nothing, &seen(json!({"output": {"got": []}}))), Verdict::Held);
        let got = judge(nothing, &seen(json!({"output": {"got": ["/etc/shadow"]}})));
        assert_eq!(got, Verdict::NotHeld("/etc/shadow".to_owned()));
        // A platform that failed has held nothing.
        let failed = seen(json!({"error": {"code": "provider.unavailable"}}));
        assert!(matches!(judge(nothing, &failed), Verdict::NotHeld(_)));
        assert!(matches!(
            judge(Wall::LogsAreBounded, &Seen::default()),
            Verdict::NotHeld(_)
        ));
    }

    #[test]
    fn an_end_counts_by_its_code() {
        let wall = Wall::Ends(&[Code::FunctionTimedOut]);
        assert_eq!(
            judge(wall, &seen(json!({"error": {"code": Code::FunctionTimedOut}}))),
            Verdict::Held
        );
        assert!(matches!(judge(wall, &seen(json!({"output": 1}))), Verdict::NotHeld(_)));
        let absent = judge(wall, &seen(json!({"output": {"absent": "there are no processes"}})));
        assert!(matches!(absent, Verdict::NotApplicable(_)));
    }
}
