//! What workers promise: walls that are tried, and an end that is its own owner's only.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use piecework_model::Language;
use piecework_sandbox::{Backend as _, Finished, Instance, Outcome};
use piecework_sandbox_wasm::Wasm;

use crate::{
    particular::{Bundle, call, returned},
    subject::{self, complete},
};

const SLEEPS: &str = "export default async (event) => { await new Promise((done) => setTimeout(done, 60000)); };\n";
const ECHOES: &str = "export default (event) => event;\n";

fn backend() -> Option<Arc<Wasm>> {
    let backend = Wasm::new(subject::options(false)).expect("a thread");
    complete(&backend).then(|| Arc::new(backend))
}

/// Workers of this process: children of its zygotes' inner halves, by what they are called and where they stand.
fn workers() -> Vec<i32> {
    fn children(pid: i32) -> Vec<i32> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let numbers: Vec<i32> = lists
            .flat_map(|list| {
                list.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<i32>>()
            })
            .collect();
        numbers
    }
    let own = i32::try_from(std::process::id()).expect("a number");
    let outer = children(own);
    let inner: Vec<i32> = outer.into_iter().flat_map(children).collect();
    inner.into_iter().flat_map(children).collect()
}

fn score(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Those that instances live in: not the one that waits for the next owner.
fn lived_in() -> Vec<i32> {
    let lives = |pid: &i32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| name.trim_end() == "instance")
    };
    workers().into_iter().filter(lives).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a number");
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[test]
fn workers_outlive_the_thread_that_asked_for_them() {
    // Threads that block end as soon as they have nothing to do.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_keep_alive(Duration::from_millis(1))
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(async {
        let Some(backend) = backend() else { return };
        let mut echoes = instance(&backend, ECHOES, 1).await;
        assert_eq!(returned(&echoes.call(call("1")).await), 1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(returned(&echoes.call(call("2")).await), 2);
    });
}

async fn instance(backend: &Wasm, source: &str, owner: u8) -> Box<dyn Instance> {
    start(backend, &Bundle::new(&[("main.mjs", source)]), owner).await
}

async fn start(backend: &Wasm, bundle: &Bundle, owner: u8) -> Box<dyn Instance> {
    let loaded = bundle
        .load_for(backend, Language::JavaScript, owner)
        .await
        .expect("it loads");
    loaded.start().await.expect("it starts")
}

/// Calls, and has what `meanwhile` does done once the call runs.
async fn during(mut instance: Box<dyn Instance>, meanwhile: impl FnOnce()) -> Finished {
    let runs = tokio::spawn(async move { instance.call(call("null")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    meanwhile();
    runs.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wall_was_tried_and_stands() {
    for rootless in [false, true] {
        let backend = subject::backend(rootless);
        if !complete(&backend) {
            return;
        }
        let probe = backend.probe().await;
        assert!(probe.works && probe.languages == Language::ALL, "{probe:?}");
        assert!(probe.detail.contains("seccomp"), "{probe:?}");
        let weaker = probe.weaker.iter().any(|text| text.contains("no control groups"));
        assert_eq!(weaker, rootless || !backend_has_groups(&probe.detail), "{probe:?}");
    }
}

fn backend_has_groups(detail: &str) -> bool {
    detail.contains("cgroups v")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_fails_its_own_jobs_only() {
    let Some(backend) = backend() else { return };
    let mine = instance(&backend, SLEEPS, 1).await;
    let killed = lived_in();
    assert_eq!(killed.len(), 1, "one owner, one worker");
    let mut others = instance(&backend, ECHOES, 2).await;
    let finished = during(mine, || killed.into_iter().for_each(kill)).await;
    assert!(
        matches!(finished.outcome, Outcome::Crashed(_)),
        "one program was in it: {finished:?}"
    );
    assert!(!finished.reusable);
    assert_eq!(returned(&others.call(call("5")).await), 5, "another owner's goes on");
    let mut again = instance(&backend, ECHOES, 1).await;
    assert_eq!(returned(&again.call(call("6")).await), 6, "the worker is replaced");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_programs_none_is_blamed() {
    let Some(backend) = backend() else { return };
    let one = instance(&backend, SLEEPS, 1).await;
    let other = instance(&backend, SLEEPS, 1).await;
    let both = tokio::spawn(during(other, || ()));
    let finished = during(one, || workers().into_iter().for_each(kill)).await;
    assert_eq!(finished.outcome, Outcome::Lost);
    assert_eq!(finished.counters.cpu_us, 0, "nothing is charged");
    assert_eq!(both.await.expect("no panic").outcome, Outcome::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_worker_ended_at_rest_serves_all_the_same() {
    let Some(backend) = backend() else { return };
    let bundle = Bundle::new(&[("main.mjs", ECHOES)]);
    let mut mine = start(&backend, &bundle, 1).await;
    assert_eq!(returned(&mine.call(call("1")).await), 1);
    workers().into_iter().for_each(kill);
    while !workers().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(returned(&mine.call(call("2")).await), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_go_first_when_memory_is_short_and_end_with_the_backend() {
    let Some(backend) = backend() else { return };
    let mine = instance(&backend, ECHOES, 1).await;
    let all = workers();
    assert!(!all.is_empty());
    assert!(all.iter().all(|pid| score(*pid) == 800), "{all:?}");
    drop(mine);
    drop(backend);
    let begun = std::time::Instant::now();
    while !workers().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "they outlive the backend");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_replaces_what_tells_its_code_is_bounded_in_time_and_size() {
    let Some(backend) = backend() else { return };
    let handler = "def handler(event, context):\n    return event\n";
    // Where the runner keeps it, found through what it left in the interpreter.
    let inside = "import sys\ninside = sys.meta_path[0].find_spec.__globals__\n";
    let hangs = format!("{inside}def dump():\n    while True: pass\ninside['dump'] = dump\n{handler}");
    let fat = format!("{inside}real = inside['dump']\ninside['dump'] = lambda: real() + bytes(20 << 20)\n{handler}");
    let begun = std::time::Instant::now();
    let loaded = Bundle::new(&[("main.py", &hangs)]);
    let loaded = loaded.load_for(&backend, Language::Python, 1).await;
    let told = loaded.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("took longer"), "it hangs until its time is over: {told}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let bundle = Bundle::new(&[("main.py", &fat)]);
    let loaded = bundle
        .load_for(&backend, Language::Python, 1)
        .await
        .expect("its code is compiled anew each time");
    assert!(loaded.memory_bytes() < 1 << 20, "{}", loaded.memory_bytes());
    let mut instance = loaded.start().await.expect("it starts");
    assert_eq!(returned(&instance.call(call("3")).await), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imports_that_fail_leave_nothing_behind() {
    let Some(backend) = backend() else { return };
    let source = "export default async (event) => {\n  const long = 'A'.repeat(1 << 20);\n  for (let n = 0; n < 50; n++) { try { await import('./' + n + long); } catch {} }\n  return event;\n};\n";
    let bundle = Bundle::new(&[("main.mjs", source)]);
    let loaded = bundle
        .load_for(&backend, Language::JavaScript, 1)
        .await
        .expect("it loads");
    let before = loaded.memory_bytes();
    let mut instance = loaded.start().await.expect("it starts");
    // The first one ends the run: another sandbox may have the module.
    let finished = instance.call(call("4")).await;
    assert!(
        matches!(&finished.outcome, Outcome::FellShort(what) if what.len() < 1_000),
        "{finished:?}"
    );
    assert!(!finished.reusable);
    drop(instance);
    let again = loaded.start().await.expect("it starts");
    assert_eq!(loaded.memory_bytes(), before);
    drop(again);
}

/// The control group of a process that has this controller; none where there are no groups.
fn group(pid: i32, controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounted = |kind: &str, option: Option<&str>| {
        let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.find_map(|fields| {
            let has = option.is_none_or(|option| fields[3].split(',').any(|one| one == option));
            (fields[2] == kind && has).then(|| PathBuf::from(fields[1]))
        })
    };
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let at = |controllers: &dyn Fn(&str) -> bool| {
        let mut lines = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
        let path =
            lines.find_map(|fields| controllers(fields[1]).then(|| fields[2].trim_start_matches('/').to_owned()));
        path.filter(|path| path.contains("piecework-jail"))
    };
    let first =
        at(&|all| all.split(',').any(|one| one == controller)).map(|path| (mounted("cgroup", Some(controller)), path));
    let (mount, path) = first.or_else(|| at(&str::is_empty).map(|path| (mounted("cgroup2", None), path)))?;
    Some(mount?.join(path))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_long_calls_lets_others_go_first_until_a_short_one_comes() {
    let Some(backend) = backend() else { return };
    let spins = "export default (ms) => { const end = Date.now() + ms; while (Date.now() < end); return ms; };\n";
    let (mut long, mut short) = (instance(&backend, spins, 1).await, instance(&backend, spins, 1).await);
    let Some(idle) = group(lived_in()[0], "cpu")
        .map(|group| group.join("cpu.idle"))
        .filter(|file| file.exists())
    else {
        return eprintln!("SKIPPED: no control group whose processes run only when nothing else does");
    };
    let is = async |due: &str, why: &str| {
        let begun = std::time::Instant::now();
        while fs::read_to_string(&idle).expect("it is there").trim() != due {
            assert!(begun.elapsed() < Duration::from_secs(4), "{why}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    is("0", "nothing runs").await;
    let runs = tokio::spawn(async move { long.call(call("1500")).await });
    is("1", "its only call has computed for long").await;
    assert_eq!(returned(&short.call(call("0")).await), 0);
    is("1", "the short call is over").await;
    let second = tokio::spawn(async move { short.call(call("300")).await });
    is("0", "a call begins").await;
    is("1", "both are long").await;
    assert_eq!(returned(&second.await.expect("no panic")), 300);
    assert_eq!(returned(&runs.await.expect("no panic")), 1_500);
    is("0", "nothing runs any more").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_beyond_its_groups_memory_fails_its_own_jobs_as_out_of_memory() {
    let Some(backend) = backend() else { return };
    let fills = "export default (mib) => { const all = new Uint8Array(mib << 20); for (let at = 0; at < all.length; at += 4096) all[at] = 1; return mib; };\n";
    let mut mine = instance(&backend, fills, 1).await;
    let Some(of_mine) = group(lived_in()[0], "memory") else {
        return eprintln!("SKIPPED: no control groups");
    };
    let mut others = instance(&backend, ECHOES, 2).await;
    assert_eq!(returned(&mine.call(call("1")).await), 1);
    let first = ["memory.limit_in_bytes", "memory.max"].map(|name| of_mine.join(name));
    let limit = first.iter().find(|file| file.exists()).expect("one of them");
    // As if the engine had let the guest grow beyond what it may: the kernel is the second wall.
    let held = ["memory.usage_in_bytes", "memory.current"].map(|name| fs::read_to_string(of_mine.join(name)));
    let held: u64 = held
        .into_iter()
        .flatten()
        .next()
        .and_then(|text| text.trim().parse().ok())
        .expect("a number");
    fs::write(limit, (held + (4 << 20)).to_string()).expect("it takes a limit");
    let finished = mine.call(call("48")).await;
    assert_eq!(finished.outcome, Outcome::OutOfMemory, "{finished:?}");
    assert!(!finished.reusable);
    assert_eq!(returned(&others.call(call("5")).await), 5, "another owner's goes on");
    let mut again = instance(&backend, fills, 1).await;
    assert_eq!(
        returned(&again.call(call("48")).await),
        48,
        "the worker is replaced, with its whole limit"
    );
}
