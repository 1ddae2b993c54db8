//! How deep an event may be. Readers of JSON in the guests go one level of their stack deeper with each level, and where it
//! ends depends on the language and on what the function has set: beyond it the instance would die. So it is counted here,
//! before any of them sees it.

use crate::{Call, Outcome, Raised};

/// Levels of lists and objects in an event, or in its parameters. Python reads some 990 of them; Node, QuickJS and CPython in
/// WebAssembly more.
pub const LEVELS_MAX: usize = 500;

/// The outcome of a call whose event or parameters are too deep: an error of the function, by its caller's doing.
pub fn too_deep(call: &Call) -> Option<Outcome> {
    let is_deep = |json: &[u8]| is_deep(json, LEVELS_MAX);
    let what = match (is_deep(&call.event), is_deep(&call.parameters)) {
        (true, _) => "event",
        (false, true) => "parameters",
        (false, false) => return None,
    };
    Some(Outcome::Raised(Raised {
        kind: "TooDeep".to_owned(),
        message: format!("the {what} has more than {LEVELS_MAX} levels of lists and objects; send fewer"),
        stack: String::new(),
    }))
}

/// Whether JSON has more levels than that; in anything else, brackets are counted as they come.
pub fn is_deep(json: &[u8], levels_max: usize) -> bool {
    // Each level takes two bytes.
    if json.len() < 2 * levels_max {
        return false;
    }
    let (mut level, mut in_text, mut escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                level += 1;
                if level > levels_max {
                    return true;
                }
            }
            b']' | b'}' if !in_text => level = level.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        "[".repeat(levels) + &"]".repeat(levels)
    }

    #[test]
    fn levels_are_counted_and_not_brackets() {
        assert!(!is_deep(nested(LEVELS_MAX).as_bytes(), LEVELS_MAX));
        assert!(is_deep(nested(LEVELS_MAX + 1).as_bytes(), LEVELS_MAX));
        let beside = format!("[{}]", vec!["[{\"a\": []}]"; 1_000].join(","));
        assert!(!is_deep(beside.as_bytes(), LEVELS_MAX), "beside one another");
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(1_000), "{".repeat(1_000));
        assert!(!is_deep(text.as_bytes(), LEVELS_MAX), "in a text");
        let behind = format!("[\"\\\\\", {}]", nested(LEVELS_MAX));
        assert!(
            is_deep(behind.as_bytes(), LEVELS_MAX),
            "behind a text that ends with a backslash"
        );
    }
}
