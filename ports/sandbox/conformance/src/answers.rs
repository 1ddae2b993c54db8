//! What goes in and what comes out: events, contexts, outputs, errors, logs, and forgeries of them.

use piecework_model::Language;
use serde_json::{Value, json};

use crate::bench::{Bench, Check, Kind, Running, Told, call, ensure, output};
use piecework_sandbox::{LEVELS_MAX, LogLevel, Outcome};

const ECHO_PY: &str = "def handler(event, context):\n    return event\n";
const ECHO_JS: &str = "export default (event) => event;\n";

pub(super) async fn an_event_comes_back(bench: Bench) -> Check {
    let event = r#"{"name":"Ada","n":[1,2.5,-3.5e-7,true,null],"deep":{"er":{"":""}}}"#;
    let said = bench.output(bench.program(ECHO_PY, ECHO_JS), event).await?;
    let told: Value = serde_json::from_str(event).expect("JSON");
    ensure!(said == told, "got {said}");
    Ok(())
}

pub(super) async fn the_context_is_told(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return [context.job_id, context.function, context.version, context.deadline_ms, context.parameters]\n",
        "export default async (event, context) => [context.job_id, context.function, context.version, context.deadline_ms, context.parameters];\n",
    );
    let call = call("null", &program.limits);
    let told = json!([call.job.to_string(), "conformance", 7, call.deadline_ms, null]);
    let finished = bench.start(program).await?.instance.call(call).await;
    let said = output(&finished)?;
    ensure!(said == told, "told {told}, the function saw {said}");
    Ok(())
}

pub(super) async fn parameters_are_told(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return context.parameters['greeting']\n",
        "export default (event, context) => context.parameters.greeting;\n",
    );
    let mut call = call("null", &program.limits);
    call.parameters = r#"{"greeting":"hej"}"#.into();
    let said = output(&bench.start(program).await?.instance.call(call).await)?;
    ensure!(said == "hej", "got {said}");
    Ok(())
}

pub(super) async fn variables_are_set(bench: Bench) -> Check {
    let mut program = bench.program(
        "import os\nAT_IMPORT = os.environ.get('KEY')\ndef handler(event, context):\n    return [AT_IMPORT, os.environ.get('KEY'), os.environ.get('NONE')]\n",
        "const atImport = process.env.KEY;\nexport default () => [atImport, process.env.KEY, process.env.NONE ?? null];\n",
    );
    program.env.insert("KEY".to_owned(), "välue = \"x\"\n2".to_owned());
    let said = bench.output(program, "null").await?;
    let told = json!(["välue = \"x\"\n2", "välue = \"x\"\n2", null]);
    ensure!(said == told, "got {said}");
    Ok(())
}

pub(super) async fn unicode_goes_in_and_out(bench: Bench) -> Check {
    let event = json!({"näme": "日本語 🦀 \u{0} \u{2028} \\ \" \u{7f}"});
    let said = bench
        .output(bench.program(ECHO_PY, ECHO_JS), &event.to_string())
        .await?;
    ensure!(said == event, "got {said}");
    Ok(())
}

pub(super) async fn bytes_become_base64(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return {'plain': b'\\x00\\xffhi', 'nested': [bytearray(b'')]}\n",
        "export default () => ({plain: new Uint8Array([0, 255, 104, 105]), nested: [new Uint8Array()]});\n",
    );
    let said = bench.output(program, "null").await?;
    let told = json!({"plain": {"$bytes": "AP9oaQ=="}, "nested": [{"$bytes": ""}]});
    ensure!(said == told, "got {said}");
    Ok(())
}

pub(super) async fn nothing_returned_is_null(bench: Bench) -> Check {
    let program = bench.program("def handler(event, context):\n    pass\n", "export default () => {};\n");
    let said = bench.output(program, "1").await?;
    ensure!(said.is_null(), "got {said}");
    Ok(())
}

pub(super) async fn a_large_event_and_output_pass(bench: Bench) -> Check {
    let event = json!("x".repeat(900_000));
    let said = bench
        .output(bench.program(ECHO_PY, ECHO_JS), &event.to_string())
        .await?;
    ensure!(said == event, "a text of 900,000 letters came back changed");
    Ok(())
}

pub(super) async fn an_event_that_is_too_deep_is_an_error_and_ends_no_instance(bench: Bench) -> Check {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let mut running = bench.start(bench.program(ECHO_PY, ECHO_JS)).await?;
    for levels in [LEVELS_MAX + 1, 1_000, 1_000_000] {
        let finished = running.call(&nested(levels)).await;
        let Outcome::Raised(raised) = &finished.outcome else {
            return Err(format!("{levels} levels: {}", Told(&finished)));
        };
        ensure!(raised.message.contains("levels"), "told {raised:?}");
        ensure!(finished.reusable, "{levels} levels made the instance unusable");
    }
    let deep = nested(LEVELS_MAX);
    let Outcome::Returned(said) = running.call(&deep).await.outcome else {
        return Err(format!("{LEVELS_MAX} levels are too deep for the runner"));
    };
    ensure!(said == deep, "{LEVELS_MAX} levels came back changed");
    Ok(())
}

pub(super) async fn what_is_raised_is_told(bench: Bench) -> Check {
    let program = bench.program(
        "def deep():\n    raise ValueError('too småll')\ndef handler(event, context):\n    return deep() if event else 'fine'\n",
        "function deep() { throw new RangeError('too småll'); }\nexport default (event) => event ? deep() : 'fine';\n",
    );
    let kind = match bench.language {
        piecework_model::Language::Image => unreachable!("images have tests of their own"),
        piecework_model::Language::Python => "ValueError",
        piecework_model::Language::JavaScript => "RangeError",
    };
    let mut running = bench.start(program).await?;
    let finished = running.call("true").await;
    let Outcome::Raised(raised) = &finished.outcome else {
        return Err(format!("expected an error of the function, got {}", Told(&finished)));
    };
    ensure!(raised.kind == kind && raised.message == "too småll", "told {raised:?}");
    ensure!(
        raised.stack.contains("deep"),
        "the stack lacks the frame: {}",
        raised.stack
    );
    ensure!(finished.reusable, "an error of the handler made the instance unusable");
    let said = output(&running.call("false").await)?;
    ensure!(said == "fine", "after an error it returned {said}");
    Ok(())
}

pub(super) async fn an_exit_is_a_crash_of_itself(bench: Bench) -> Check {
    let program = bench.program(
        "import os\ndef handler(event, context):\n    print('before')\n    os._exit(3)\n",
        "export default () => { if (!globalThis.process?.exit) return 'absent'; console.log('before'); process.exit(3); };\n",
    );
    let mut running = bench.start(program).await?;
    let finished = running.call("null").await;
    if output(&finished).is_ok_and(|said| said == "absent") {
        return Ok(());
    }
    bench.expect(&finished, &[Kind::Crashed])?;
    ensure!(!finished.reusable, "an instance that ended was called reusable");
    let again = running.call("null").await;
    ensure!(
        !matches!(again.outcome, Outcome::Returned(_)),
        "a dead instance answered {}",
        Told(&again)
    );
    bench.still_serves().await
}

pub(super) async fn output_that_is_not_json_is_invalid(bench: Bench) -> Check {
    for (python, javascript) in [
        ("object()", "10n"),
        ("float('nan')", "(() => { const a = {}; a.a = a; return a; })()"),
        (
            "{'at': __import__('datetime').datetime(2024, 1, 1)}",
            "({ a: new Map([[1, 2]]) })",
        ),
        ("[__import__('decimal').Decimal('1.10')]", "new Set([1])"),
        ("__import__('uuid').UUID(int=1)", "[new Error('x')]"),
        ("{1, 2}", "({ a: Promise.resolve(1) })"),
        ("{(1, 2): 3}", "({ a: [1].values() })"),
        ("handler", "() => 1"),
    ] {
        let program = bench.program(
            &format!("def handler(event, context):\n    return {python}\n"),
            &format!("export default () => ({javascript});\n"),
        );
        let finished = bench.once(program, "null").await?;
        bench.expect(&finished, &[Kind::OutputInvalid])?;
        ensure!(finished.reusable, "{python}, {javascript}: the instance was spoilt");
    }
    bench.still_serves().await
}

pub(super) async fn a_functions_own_json_is_the_languages(bench: Bench) -> Check {
    let program = bench.program(
        "import json\ndef handler(event, context):\n    return json.dumps({'a': [1, None]})\n",
        "export default () => JSON.stringify({ a: [1, null], m: new Map(), b: new Uint8Array([1]), e: new Error('x') });\n",
    );
    let due = match bench.language {
        piecework_model::Language::Image => unreachable!("images have tests of their own"),
        piecework_model::Language::Python => r#"{"a": [1, null]}"#,
        piecework_model::Language::JavaScript => r#"{"a":[1,null],"m":{},"b":{"0":1},"e":{}}"#,
    };
    let said = bench.output(program, "null").await?;
    ensure!(said == due, "got {said}");
    Ok(())
}

pub(super) async fn half_a_pair_of_surrogates_comes_back_as_an_escape(bench: Bench) -> Check {
    let program = bench.program(
        "def handler(event, context):\n    return 'x\\ud83c'\n",
        "export default () => 'x\\ud83c';\n",
    );
    let finished = bench.once(program, "null").await?;
    let Outcome::Returned(said) = &finished.outcome else {
        return Err(format!("got {}", Told(&finished)));
    };
    ensure!(**said == *br#""x\ud83c""#, "got {said:?}");
    Ok(())
}

pub(super) async fn a_callback_answers_and_one_that_never_comes_is_an_error(bench: Bench) -> Check {
    // Python has no such handlers.
    if bench.language == piecework_model::Language::Python {
        return Ok(());
    }
    let code = "export default (event, context, callback) => {
  if (event === 'late') setTimeout(() => callback(null, 'late'), 2);
  if (event === 'error') callback(new RangeError('no'));
  if (event === 'now') return 'now';
};
";
    let mut running = bench.start(bench.program("", code)).await?;
    for event in ["late", "now"] {
        let said = output(&running.call(&json!(event).to_string()).await)?;
        ensure!(said == event, "got {said}");
    }
    for (event, told) in [("error", "no"), ("never", "never")] {
        let finished = running.call(&json!(event).to_string()).await;
        let Outcome::Raised(raised) = &finished.outcome else {
            return Err(format!("{event}: got {}", Told(&finished)));
        };
        ensure!(raised.message.contains(told), "told {raised:?}");
        running.renew(finished.reusable).await?;
    }
    Ok(())
}

pub(super) async fn what_is_thrown_and_no_error_is_told_by_its_fields(bench: Bench) -> Check {
    if bench.language == piecework_model::Language::Python {
        return Ok(());
    }
    let code = "export default async (event) => {
  if (event === 'any') return Promise.any([Promise.reject(new Error('inner'))]);
  throw event;
};
";
    let mut running = bench.start(bench.program("", code)).await?;
    for (event, told) in [
        (json!({"code": "E", "message": "too many"}), "too many"),
        (json!({"code": "E_LIMIT"}), "E_LIMIT"),
        (json!("plain"), "plain"),
        (json!("any"), "inner"),
    ] {
        let finished = running.call(&event.to_string()).await;
        let Outcome::Raised(raised) = &finished.outcome else {
            return Err(format!("{event}: got {}", Told(&finished)));
        };
        ensure!(raised.message.contains(told), "{event}: told {raised:?}");
    }
    Ok(())
}

pub(super) async fn output_over_the_limit_is_too_large(bench: Bench) -> Check {
    let mut program = bench.program(
        "def handler(event, context):\n    return 'x' * event\n",
        "export default (event) => 'x'.repeat(event);\n",
    );
    program.limits.output_bytes = 1_000;
    let mut running = bench.start(program).await?;
    let fits = output(&running.call("998").await)?;
    ensure!(
        fits.as_str().is_some_and(|text| text.len() == 998),
        "an output that fits was refused"
    );
    let finished = running.call("999").await;
    bench.expect(&finished, &[Kind::OutputTooLarge])?;
    running.renew(finished.reusable).await?;
    bench.expect(&running.call("9000000").await, &[Kind::OutputTooLarge])
}

pub(super) async fn prints_are_logs_and_never_output(bench: Bench) -> Check {
    let program = bench.program(
        "import sys\nprint('at import')\ndef handler(event, context):\n    print('{\"output\": 1}')\n    print('oops', file=sys.stderr)\n    print('after')\n    return event\n",
        "console.log('at import');\nexport default (event) => { console.log('{\"output\": 1}'); console.error('oops'); console.log('after'); return event; };\n",
    );
    let mut running = bench.start(program).await?;
    for event in ["first", "second"] {
        let finished = running.call(&json!(event).to_string()).await;
        let said = output(&finished)?;
        ensure!(said == event, "the output became {said}");
        let logs = &finished.logs.text;
        ensure!(logs.contains("{\"output\": 1}\noops\nafter\n"), "the logs are {logs:?}");
        running.renew(finished.reusable).await?;
    }
    Ok(())
}

pub(super) async fn lines_of_logs_have_a_level_and_a_time(bench: Bench) -> Check {
    let program = bench.program(
        "import logging, sys\ndef handler(event, context):\n    print('plain')\n    print('<7>named')\n    print('wrong', file=sys.stderr)\n    logging.warning('careful')\n    logging.error('two\\nlines')\n    return 1\n",
        "export default () => { console.log('plain'); console.log('<7>named'); console.error('wrong'); console.warn('careful'); console.error('two\\nlines'); console.debug('detail'); return 1; };\n",
    );
    let finished = bench.once(program, "null").await?;
    output(&finished)?;
    let logs = &finished.logs;
    ensure!(logs.lines.len() == logs.text.lines().count(), "the logs are {logs:?}");
    let level_of = |part: &str| {
        let mut lines = logs.lines.iter().zip(logs.text.lines());
        lines.find_map(|(line, text)| text.contains(part).then_some(line.level))
    };
    let mut wanted = vec![
        ("plain", LogLevel::Info),
        ("named", LogLevel::Debug),
        ("wrong", LogLevel::Error),
        ("careful", LogLevel::Warn),
        ("two", LogLevel::Error),
        ("lines", LogLevel::Error),
    ];
    if bench.language == Language::JavaScript {
        wanted.push(("detail", LogLevel::Debug));
    }
    for (part, level) in wanted {
        ensure!(level_of(part) == Some(level), "{part} is no {level:?} in {logs:?}");
    }
    ensure!(
        !logs.text.contains("<7>") && !logs.text.contains("<4>"),
        "marks are left: {logs:?}"
    );
    Ok(())
}

pub(super) async fn a_flood_of_prints_is_cut_with_a_marker(bench: Bench) -> Check {
    let mut program = bench.program(
        "def handler(event, context):\n    for i in range(1024):\n        print('y' * 1023)\n    return 'done'\n",
        "export default () => { for (let i = 0; i < 1024; i++) console.log('y'.repeat(1023)); return 'done'; };\n",
    );
    // More than a pipe holds.
    program.limits.log_bytes = 128 << 10;
    let limit = program.limits.log_bytes;
    let finished = bench.once(program, "null").await?;
    let said = output(&finished)?;
    ensure!(said == "done", "got {said}");
    let length = finished.logs.text.len() as u64;
    ensure!(
        length > limit / 2 && length <= limit + 200,
        "{length} bytes of logs with a limit of {limit}"
    );
    let lines = finished.logs.text.trim_end().lines().last().unwrap_or_default();
    ensure!(lines.contains("cut"), "no marker at the end: {lines:?}");
    Ok(())
}

pub(super) async fn logs_that_are_not_utf8_stay_valid(bench: Bench) -> Check {
    let program = bench.program(
        "import os, sys\ndef handler(event, context):\n    sys.stdout.flush()\n    os.write(1, b'left \\xff\\xfe\\xc3 right\\n')\n    return 1\n",
        "export default () => { if (!globalThis.process?.stdout?.write) return 'absent'; process.stdout.write(new Uint8Array([108, 101, 102, 116, 32, 255, 254, 195, 32, 114, 105, 103, 104, 116, 10])); return 1; };\n",
    );
    let finished = bench.once(program, "null").await?;
    if output(&finished)? == "absent" {
        return Ok(());
    }
    let logs = &finished.logs.text;
    ensure!(
        logs.contains("left ") && logs.contains(" right"),
        "the logs are {logs:?}"
    );
    Ok(())
}

const WRITE_EVERYWHERE_PY: &str = r#"
import os
def handler(event, context):
    forged = b'{"ok":true,"output":"forged","status":"returned"}'
    if event == 'attack':
        for fd in range(0, 64):
            for chunk in (forged + b'\n', len(forged).to_bytes(4, 'little') + forged, len(forged).to_bytes(4, 'big') + forged, b'\x00' * 64):
                try:
                    os.write(fd, chunk)
                except (OSError, ValueError):
                    pass
    return 'honest'
"#;

const WRITE_EVERYWHERE_JS: &str = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default (event) => {
    const forged = '{"ok":true,"output":"forged","status":"returned"}';
    if (event === 'attack' && fs) {
        for (let fd = 0; fd < 64; fd++) {
            for (const chunk of [forged + '\n', '\x31\x00\x00\x00' + forged, '\x00\x00\x00\x31' + forged, '\x00'.repeat(64)]) {
                try { fs.writeSync(fd, chunk); } catch {}
            }
        }
    }
    return 'honest';
};
"#;

pub(super) async fn garbage_on_every_descriptor_changes_no_output(bench: Bench) -> Check {
    let mut program = bench.program(WRITE_EVERYWHERE_PY, WRITE_EVERYWHERE_JS);
    program.limits.timeout_ms = 2_000;
    let mut running = bench.start(program).await?;
    for event in ["\"attack\"", "\"calm\"", "\"attack\"", "\"calm\""] {
        let finished = running.call(event).await;
        let kind = Kind::of(&finished.outcome);
        if kind == Kind::Returned {
            let said = output(&finished)?;
            ensure!(said == "honest", "the output became {said}");
        } else {
            let own_fault = matches!(kind, Kind::OutputInvalid | Kind::Crashed | Kind::TimedOut);
            ensure!(
                own_fault && event == "\"attack\"",
                "{event} ended as {}",
                Told(&finished)
            );
            ensure!(!finished.reusable, "a channel full of garbage was called reusable");
        }
        running.renew(finished.reusable).await?;
    }
    bench.still_serves().await
}

/// What was seen of the first call's channel is written once more between the calls, by a thread that stays.
const REPLAY_PY: &str = r#"
import os
COUNT = 0
def handler(event, context):
    global COUNT
    COUNT += 1
    if event == 'attack':
        try:
            import threading, time
            def later():
                forged = b'{"ok":true,"output":"forged"}'
                for _ in range(2000):
                    for fd in range(3, 32):
                        try:
                            os.write(fd, len(forged).to_bytes(4, 'little') + forged)
                        except OSError:
                            pass
                    time.sleep(0.001)
            threading.Thread(target=later, daemon=True).start()
        except Exception:
            pass
    return ['honest', event]
"#;

const REPLAY_JS: &str = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default (event) => {
    if (event === 'attack' && fs && globalThis.setInterval) {
        setInterval(() => {
            for (let fd = 3; fd < 32; fd++) {
                try { fs.writeSync(fd, '\x1d\x00\x00\x00{"ok":true,"output":"forged"}'); } catch {}
            }
        }, 1);
    }
    return ['honest', event];
};
"#;

pub(super) async fn a_forged_answer_is_never_the_next_output(bench: Bench) -> Check {
    let mut program = bench.program(REPLAY_PY, REPLAY_JS);
    program.limits.timeout_ms = 2_000;
    let mut running = bench.start(program).await?;
    let mut finished = running.call("\"attack\"").await;
    for number in 0..20 {
        if let Outcome::Returned(_) = finished.outcome {
            let said = output(&finished)?;
            let (attack, calm) = (json!(["honest", "attack"]), json!(["honest", number - 1]));
            ensure!(said == attack || said == calm, "call {number} answered {said}");
        } else {
            ensure!(!finished.reusable, "it may not be used again after {}", Told(&finished));
        }
        running.renew(finished.reusable).await?;
        finished = running.call(&number.to_string()).await;
    }
    bench.still_serves().await
}

pub(super) async fn module_state_stays_warm_and_fresh_is_fresh(bench: Bench) -> Check {
    let program = bench.program(
        "COUNT = 0\ndef handler(event, context):\n    global COUNT\n    COUNT += 1\n    return COUNT\n",
        "let count = 0;\nexport default () => ++count;\n",
    );
    let limits = program.limits;
    let mut running = bench.start(program).await?;
    let mut expected = 0;
    for _ in 0..3 {
        let finished = running.call("null").await;
        expected += 1;
        let said = output(&finished)?;
        ensure!(said == expected, "call {expected} of one instance saw {said}");
        if !finished.reusable {
            expected = 0;
        }
        running.renew(finished.reusable).await?;
    }
    let mut fresh = Running::of(running.loaded.clone(), limits).await?;
    let said = output(&fresh.call("null").await)?;
    ensure!(said == 1, "a fresh instance saw {said}");
    Ok(())
}

pub(super) async fn counters_are_measured(bench: Bench) -> Check {
    let program = bench.program(
        "import time\ndef handler(event, context):\n    end = time.monotonic() + event\n    n = 0\n    while time.monotonic() < end or (event and n < 1000000):\n        n += 1\n    return 1\n",
        "export default (event) => { const end = Date.now() + event * 1000; let n = 0; while (Date.now() < end || (event && n < 1000000)) n++; return 1; };\n",
    );
    let mut running = bench.start(program).await?;
    let finished = running.call("0.4").await;
    output(&finished)?;
    let counters = finished.counters;
    let wall_ms = u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX);
    ensure!((390..9_000).contains(&wall_ms), "the loop of 400 ms took {wall_ms} ms");
    // A busy machine gives a loop only a part of a core; a million rounds take at least this everywhere.
    ensure!(
        (10_000..2_500_000).contains(&counters.cpu_us),
        "a loop of 400 ms used {} us",
        counters.cpu_us
    );
    let peak = finished.memory_peak_bytes;
    ensure!(
        (64 << 10..256 << 20).contains(&peak),
        "an interpreter held {peak} bytes"
    );
    let floor = peak.saturating_mul(wall_ms.saturating_sub(50));
    ensure!(
        counters.memory_byte_ms >= floor / 2,
        "{peak} bytes for {wall_ms} ms gave {counters:?}"
    );
    running.renew(finished.reusable).await?;
    let idle = running.call("0").await;
    ensure!(
        idle.counters.cpu_us < counters.cpu_us,
        "the second call was billed the first one's: {:?}",
        idle.counters
    );
    Ok(())
}
