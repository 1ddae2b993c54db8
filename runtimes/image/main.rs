//! The first process of a container image's sandbox: starts what the image starts, and speaks the runner protocol for it.
//!
//! ```text
//! runner CHANNEL            `stdio`, the number of an open descriptor, `3,4` (reads, writes), or a directory of named pipes
//!   load:  http   -> program starts -> somebody accepts connections at its port -> loaded
//!          stdio  -> nothing starts -> loaded
//!   call:  http   -> a request to 127.0.0.1:port, its answer back
//!          stdio  -> program starts with the input -> ends -> its standard output
//! ```
//! Needs nothing of the image: it is one static program, of the standard library alone. It trusts the program no more than the
//! agent does: what the program cannot reach by its own means (the channel), it does not get from here.

mod channel;
mod http;
mod json;

use std::{
    ffi::c_int,
    fs, io,
    io::{Read as _, Write as _},
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use channel::{Channel, Frame, Secret};
use json::Json;

/// Between two looks whether the program accepts connections: short at first, so that a quick one is not waited for.
const LOOKS: [Duration; 2] = [Duration::from_micros(300), Duration::from_millis(5)];
const QUICK_LOOKS: u32 = 100;
/// What was killed and is not gone by then stays with its sandbox.
const DIES_WITHIN: Duration = Duration::from_secs(5);

/// What is to be run.
struct Program {
    arguments: Vec<String>,
    directory: String,
    env: Vec<(String, String)>,
    /// None: once for each call.
    port: Option<u16>,
}

/// One call, as the agent says it.
pub struct Call {
    pub secret: Secret,
    pub event: Json,
    /// The event as it came.
    pub event_text: Vec<u8>,
    /// The event's `body` as it came.
    pub body_text: Vec<u8>,
    /// Whether the rest of the body is asked for.
    pub has_body: bool,
}

pub struct Runner {
    pub channel: Channel,
    pub output_bytes: u64,
    program: Program,
    family: Arc<Family>,
}

unsafe extern "C" {
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn waitid(kind: c_int, id: u32, info: *mut u8, options: c_int) -> c_int;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn prctl(option: c_int, a: u64, b: u64, c: u64, d: u64) -> c_int;
    fn getpid() -> c_int;
    fn uname(names: *mut u8) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
}

const WNOHANG: c_int = 1;
const WEXITED: c_int = 4;
const WNOWAIT: c_int = 0x0100_0000;
const SIGKILL: c_int = 9;
const PR_SET_DUMPABLE: c_int = 4;
const CLONE_NEWUSER: c_int = 0x1000_0000;
const SYS_KEYCTL: std::ffi::c_long = if cfg!(target_arch = "aarch64") { 219 } else { 250 };
/// Of each text in what uname(2) writes.
const NAME_BYTES: usize = 65;

/// How a program ended: its exit code, or the signal that ended it.
#[derive(Clone, Copy)]
enum End {
    Code(i32),
    Signal(i32),
}

impl End {
    fn of(status: c_int) -> Self {
        match status & 0x7f {
            0 => End::Code(status >> 8 & 0xff),
            signal => End::Signal(signal),
        }
    }

    fn told(self) -> String {
        match self {
            End::Code(code) => format!("the program exited with code {code}"),
            End::Signal(signal) => format!("the program was ended by signal {signal}"),
        }
    }

    /// As shells say it.
    fn code(self) -> i32 {
        match self {
            End::Code(code) => code,
            End::Signal(signal) => 128 + signal,
        }
    }
}

/// The program and all that it left: this process is their parent, and the only one that waits for them.
#[derive(Default)]
struct Family {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    program: Option<c_int>,
    end: Option<End>,
    /// Whether nothing is left of the last program, and of what it started.
    is_alone: bool,
    /// Whether the end of the program is the end of all.
    is_for_good: bool,
}

impl Family {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reaps for ever. It looks first and takes later: while a program is being started, nothing is taken.
    fn reap(&self) {
        loop {
            // More than any siginfo_t.
            let mut info = [0u64; 32];
            // SAFETY: the buffer is larger than what the kernel writes.
            let found = unsafe { waitid(0, 0, info.as_mut_ptr().cast(), WEXITED | WNOWAIT) };
            let mut state = self.state();
            if found != 0 {
                // No child at all: until one is started.
                if state.program.is_none() {
                    state.is_alone = true;
                    self.changed.notify_all();
                }
                while state.program.is_none() {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                }
                continue;
            }
            loop {
                let mut status = 0;
                // SAFETY: `status` outlives the call.
                let pid = unsafe { waitpid(-1, &mut status, WNOHANG) };
                if pid <= 0 {
                    break;
                }
                if state.program == Some(pid) {
                    let end = End::of(status);
                    (state.program, state.end) = (None, Some(end));
                    if state.is_for_good {
                        std::process::exit(end.code());
                    }
                    self.changed.notify_all();
                }
            }
        }
    }

    fn start(&self, command: &mut Command, is_for_good: bool) -> io::Result<std::process::Child> {
        let mut state = self.state();
        let child = command.spawn()?;
        *state = State {
            program: Some(child.id() as c_int),
            end: None,
            is_alone: false,
            is_for_good,
        };
        self.changed.notify_all();
        Ok(child)
    }

    /// Waits until what was killed is gone. After its answer a sandbox stands still, and what is frozen before it has died keeps its memory.
    fn be_alone(&self) {
        let is_not = |state: &mut State| !state.is_alone;
        // What is not gone by then is frozen with the rest, and goes with it.
        drop(self.changed.wait_timeout_while(self.state(), DIES_WITHIN, is_not));
    }

    fn end(&self) -> End {
        let mut state = self.state();
        loop {
            if let Some(end) = state.end {
                return end;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    if name == "look" {
        return look();
    }
    // SAFETY: plain numbers. What is this process's is nobody else's: its memory and descriptors cannot be reached by /proc.
    unsafe { prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) };
    let ended = Channel::open(&name).and_then(run);
    // The agent is gone, or this is no sandbox of one.
    if let Err(error) = ended {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            eprintln!("the runner ends: {error}");
        }
    }
}

/// As the program of an image: says what it sees of its sandbox.
fn look() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or("").to_owned()
    };
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = devices.lines().skip(2).filter_map(|line| line.split(':').next());
    let names: Vec<String> = names.map(|name| json::quoted(name.trim())).collect();
    let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
    let namespaces = ["pid", "mnt", "net", "ipc", "uts"].map(|name| json::quoted(&link(name).to_string_lossy()));
    let number = |name: &str| field(name).parse().unwrap_or(0u32);
    println!(
        "{{\"pid\":{},\"seccomp\":{},\"no_new_privs\":{},\"capabilities\":{},\"interfaces\":[{}],\"root\":{},\"kernel\":{},\"namespaces\":[{}],\"refused\":{}}}",
        number("PPid"),
        number("Seccomp"),
        number("NoNewPrivs"),
        json::quoted(&field("CapEff")),
        names.join(","),
        Path::new("/etc/shadow").exists() || Path::new("/usr").exists(),
        json::quoted(&kernel()),
        namespaces.join(","),
        is_refused(),
    );
}

/// Its release and its version.
fn kernel() -> String {
    let mut names = [0; 6 * NAME_BYTES];
    // SAFETY: the buffer has the length of what the kernel writes.
    unsafe { uname(names.as_mut_ptr()) };
    let name = |at: usize| {
        let bytes = &names[at * NAME_BYTES..(at + 1) * NAME_BYTES];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    format!("{} {}", name(2), name(3))
}

/// Whether it gets no keyring and no user namespace.
fn is_refused() -> bool {
    const SESSION_KEYRING: c_int = -3;
    // SAFETY: plain numbers; this process ends at once, whatever it got.
    unsafe { syscall(SYS_KEYCTL, 0, SESSION_KEYRING, 1) < 0 && unshare(CLONE_NEWUSER) < 0 }
}

fn run(channel: Channel) -> io::Result<()> {
    let protocol = format!("{{\"protocol\":{}}}", channel::PROTOCOL);
    channel.say(&[0; 16], b'H', protocol.as_bytes())?;
    let family = Arc::new(Family::default());
    let (reaping, reaper) = (family.clone(), std::thread::Builder::new().stack_size(64 << 10));
    reaper.spawn(move || reaping.reap())?;
    let load = channel.read()?;
    let (program, output_bytes) = match settings(&load.payload) {
        Some(settings) => settings,
        None => return refuse(&channel, &load, "the runner got invalid settings for the image"),
    };
    let runner = Runner {
        channel,
        output_bytes,
        program,
        family,
    };
    if let Err(why) = runner.get_ready() {
        return refuse(&runner.channel, &load, &why);
    }
    runner.channel.say(&load.secret, b'D', &[])?;
    loop {
        let frame = runner.channel.read()?;
        let Some(call) = call(frame) else {
            return Err(io::Error::other("a call is none"));
        };
        runner.serve(&call)?;
    }
}

fn refuse(channel: &Channel, load: &Frame, why: &str) -> io::Result<()> {
    let said = format!(
        "{{\"code\":\"function.load_failed\",\"message\":{}}}",
        json::quoted(why)
    );
    channel.say(&load.secret, b'E', said.as_bytes())
}

fn settings(payload: &[u8]) -> Option<(Program, u64)> {
    let said = json::parse(payload)?;
    let image = said.get("image")?;
    let arguments: Option<Vec<String>> = image
        .get("arguments")?
        .list()
        .iter()
        .map(|one| Some(one.text()?.to_owned()))
        .collect();
    let env = said.get("env")?.fields().iter();
    let env = env.map(|(key, value)| Some((key.clone(), value.text()?.to_owned())));
    let program = Program {
        arguments: arguments.filter(|arguments| !arguments.is_empty())?,
        directory: image.get("directory")?.text()?.to_owned(),
        env: env.collect::<Option<_>>()?,
        port: match image.get("port") {
            None | Some(Json::Null) => None,
            Some(port) => Some(u16::try_from(port.number()?).ok()?),
        },
    };
    Some((program, said.get("output_bytes")?.number()?))
}

fn call(frame: Frame) -> Option<Call> {
    let spans = json::spans(&frame.payload)?;
    let span = |name: &str| spans.iter().find(|(key, _)| key == name).map(|(_, span)| span.clone());
    let event_text = frame.payload.get(span("event")?)?.to_vec();
    let event = json::parse(&event_text)?;
    let body_span = json::spans(&event_text)
        .unwrap_or_default()
        .into_iter()
        .find(|(key, _)| key == "body");
    let body_text = body_span
        .and_then(|(_, span)| Some(event_text.get(span)?.to_vec()))
        .unwrap_or_default();
    let has_body = span("body").is_some_and(|span| frame.payload.get(span) == Some(b"true"));
    Some(Call {
        secret: frame.secret,
        event,
        event_text,
        body_text,
        has_body,
    })
}

pub fn raised(kind: &str, message: &str) -> Vec<u8> {
    format!(
        "{{\"type\":{},\"message\":{},\"stack\":\"\"}}",
        json::quoted(kind),
        json::quoted(message)
    )
    .into_bytes()
}

/// What a program gave out: JSON where it is that, else text, else bytes.
pub fn output(bytes: Vec<u8>, output_bytes: u64) -> (u8, Vec<u8>) {
    if bytes.len() as u64 > output_bytes {
        return (b'T', Vec::new());
    }
    if json::parse(&bytes).is_some() {
        return (b'O', bytes);
    }
    match String::from_utf8(bytes) {
        Ok(text) => (b'O', json::quoted(&text).into_bytes()),
        Err(error) => (
            b'O',
            format!("{{\"$bytes\":\"{}\"}}", json::base64(error.as_bytes())).into_bytes(),
        ),
    }
}

impl Runner {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program.arguments[0]);
        command
            .args(&self.program.arguments[1..])
            .env_clear()
            .envs(self.program.env.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.program.directory);
        command
    }

    /// Starts a server and waits until it accepts connections. Time is the agent's matter.
    fn get_ready(&self) -> Result<(), String> {
        let directory = &self.program.directory;
        if !Path::new(directory).is_dir() {
            // As other runtimes do.
            fs::create_dir_all(directory)
                .map_err(|error| format!("the working directory `{directory}` cannot be made: {error}"))?;
        }
        let Some(port) = self.program.port else { return Ok(()) };
        let mut command = self.command();
        command.stdin(Stdio::null());
        let started = self.family.start(&mut command, true);
        started.map_err(|error| self.not_started(&error))?;
        let mut looks = 0;
        while !http::answers(port) {
            looks += 1;
            std::thread::sleep(LOOKS[usize::from(looks > QUICK_LOOKS)]);
        }
        Ok(())
    }

    fn not_started(&self, error: &io::Error) -> String {
        format!(
            "the image's program `{}` cannot be started: {error}",
            self.program.arguments[0]
        )
    }

    fn serve(&self, call: &Call) -> io::Result<()> {
        let Some(port) = self.program.port else {
            let (kind, payload) = self.once(call)?;
            return self.channel.say(&call.secret, kind, &payload);
        };
        match http::serve(self, port, call) {
            Ok(()) => Ok(()),
            Err(http::Fault::Channel(error)) => Err(error),
            Err(http::Fault::Program(why)) => {
                // A program that ended takes this process with it, and then its exit code is the answer.
                std::thread::sleep(Duration::from_millis(20));
                self.channel.say(&call.secret, b'R', &raised("BadAnswer", &why))
            }
        }
    }

    /// What a program of one call reads: a request's body, a text, bytes, or JSON.
    fn input(&self, call: &Call) -> io::Result<Vec<u8>> {
        if !http::is_http(&call.event) {
            let bytes = call
                .event
                .get("$bytes")
                .filter(|_| call.event.fields().len() == 1)
                .and_then(Json::text);
            return Ok(match (&call.event, bytes.and_then(json::from_base64)) {
                (_, Some(bytes)) => bytes,
                (Json::Text(text), None) => text.clone().into_bytes(),
                (Json::Null, None) => Vec::new(),
                _ => call.event_text.clone(),
            });
        }
        Ok(http::body_of(&call.event).unwrap_or_else(|| call.body_text.clone()))
    }

    fn once(&self, call: &Call) -> io::Result<(u8, Vec<u8>)> {
        let input = self.input(call)?;
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = match self.family.start(&mut command, false) {
            Ok(child) => child,
            Err(error) => return Ok((b'R', raised("NotStarted", &self.not_started(&error)))),
        };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (most, left) = (self.output_bytes, AtomicBool::new(false));
        let (end, out) = std::thread::scope(|scope| {
            let reads = scope.spawn(move || {
                let mut out = Vec::new();
                // A program that writes more finds its output closed.
                let _ = stdout.map(|stdout| stdout.take(most.saturating_add(1)).read_to_end(&mut out));
                out
            });
            let feeds = scope.spawn(|| self.feed(call, &input, stdin, &left));
            let end = self.family.end();
            // What it left behind would hold its output open, and is nobody's.
            // SAFETY: takes nothing and cannot fail.
            if unsafe { getpid() } == 1 {
                // SAFETY: plain numbers; as the first process of its namespace it reaches what is in that, and no other.
                unsafe { kill(-1, SIGKILL) };
                self.family.be_alone();
            }
            {
                let mut writer = self.channel.writer();
                left.store(true, Ordering::Release);
                if call.has_body && !feeds.is_finished() {
                    writer.say(&call.secret, b'Q', &[])?;
                }
            }
            let _ = feeds.join();
            Ok::<_, io::Error>((end, reads.join().unwrap_or_default()))
        })?;
        if out.len() as u64 > self.output_bytes {
            return Ok((b'T', Vec::new()));
        }
        match end {
            End::Code(0) => Ok(output(out, self.output_bytes)),
            End::Code(_) | End::Signal(_) => Ok((b'R', raised("ProgramExited", &end.told()))),
        }
    }

    /// Gives the program its input. One that does not read it is none that failed.
    fn feed(&self, call: &Call, input: &[u8], stdin: Option<ChildStdin>, left: &AtomicBool) -> io::Result<()> {
        let Some(mut stdin) = stdin else { return Ok(()) };
        stdin.write_all(input)?;
        while call.has_body {
            {
                let mut writer = self.channel.writer();
                if left.load(Ordering::Acquire) {
                    return Ok(());
                }
                writer.say(&call.secret, b'B', &[])?;
            }
            let frame = self.channel.read()?;
            if frame.kind != b'b' {
                return Ok(());
            }
            stdin.write_all(&frame.payload)?;
        }
        Ok(())
    }
}
