//! What a function must not reach: the network, the host's files, its own bundle, other functions.

use std::time::Duration;

use serde_json::Value;

use crate::bench::{Bench, Check, Kind, ensure, output};

/// An attack answers with the list of what it reached; whatever else happens to it is its own fault.
async fn reaches_nothing(bench: &Bench, program: piecework_sandbox::Program, event: &str) -> Check {
    let finished = bench.once(program, event).await?;
    if Kind::of(&finished.outcome) != Kind::Returned {
        return bench.expect(&finished, &[Kind::Raised, Kind::Crashed, Kind::FellShort]);
    }
    let reached = output(&finished)?;
    ensure!(
        reached.as_array().is_some_and(Vec::is_empty),
        "the function reached {reached}"
    );
    Ok(())
}

/// Knocks at a listener of the test itself, and asks for a route to an address of the documentation.
pub(super) async fn the_network_is_shut(bench: Bench) -> Check {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| error.to_string())?;
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    let python = r#"
def handler(event, context):
    reached = []
    try:
        import socket
    except ImportError:
        return reached
    # Connecting a datagram socket only asks for a route: nothing is sent, even where the wall is missing.
    for address, kind in [('127.0.0.1', socket.SOCK_STREAM), ('127.0.0.1', socket.SOCK_DGRAM), ('198.51.100.7', socket.SOCK_DGRAM)]:
        try:
            sock = socket.socket(socket.AF_INET, kind)
            sock.settimeout(0.2)
            sock.connect((address, event))
            reached.append([address, int(kind)])
        except OSError:
            pass
    return reached
"#;
    let javascript = r#"
const net = (import.meta.url.includes('/function/') ? await import('node:net') : null);
const dgram = (import.meta.url.includes('/function/') ? await import('node:dgram') : null);
const within = (start) => new Promise((done) => { start(done); setTimeout(() => done(false), 200); });
export default async (event) => {
    const reached = [];
    if (!net || !dgram) return reached;
    const stream = await within((done) => {
        const socket = net.connect(event, '127.0.0.1');
        socket.on('connect', () => done(true));
        socket.on('error', () => done(false));
    });
    if (stream) reached.push('127.0.0.1');
    // Connecting a datagram socket only asks for a route: nothing is sent, even where the wall is missing.
    const route = await within((done) => {
        try {
            const socket = dgram.createSocket('udp4');
            socket.on('error', () => done(false));
            socket.connect(53, '198.51.100.7', (error) => done(!error));
        } catch { done(false); }
    });
    if (route) reached.push('198.51.100.7');
    return reached;
};
"#;
    reaches_nothing(&bench, bench.program(python, javascript), &port.to_string()).await?;
    let knocked = tokio::time::timeout(Duration::from_millis(1), listener.accept())
        .await
        .is_ok();
    ensure!(!knocked, "a connection reached the listener");
    Ok(())
}

pub(super) async fn host_files_are_out_of_sight(bench: Bench) -> Check {
    let secret = tempfile::tempdir().map_err(|error| error.to_string())?;
    let canary = secret.path().join("canary");
    std::fs::write(&canary, "canary").map_err(|error| error.to_string())?;
    let other = bench.bundle(&[("secret-of-another.txt", "canary")]);
    let python = r#"
def handler(paths, context):
    reached = []
    import os
    for path in paths:
        try:
            with open(path, 'rb') as file:
                if file.read(64):
                    reached.append(path)
        except (OSError, ValueError):
            pass
    for path in ('/root', '/home', '/proc/1/root/root', '/proc/1/root/home', '/var/lib', '/etc/ssh', '/dev/disk', '/sys/class', '/..' * 9 + '/root'):
        try:
            if os.listdir(path):
                reached.append(path)
        except (OSError, ValueError):
            pass
    return reached
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default (paths) => {
    const reached = [];
    if (!fs) return reached;
    for (const path of paths) {
        try { const fd = fs.openSync(path, 'r'); if (fs.readSync(fd, Buffer.alloc(64)) > 0) reached.push(path); } catch {}
    }
    for (const path of ['/root', '/home', '/proc/1/root/root', '/proc/1/root/home', '/var/lib', '/etc/ssh', '/dev/disk', '/sys/class']) {
        try { if (fs.readdirSync(path).length > 0) reached.push(path); } catch {}
    }
    return reached;
};
"#;
    let other = other.directory.join("secret-of-another.txt");
    let paths = serde_json::json!([
        "/etc/shadow",
        "/etc/machine-id",
        "/proc/1/root/etc/shadow",
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/vda",
        "/dev/sda",
        "/dev/mem",
        "/dev/kvm",
        "/sys/kernel/notes",
        "/proc/sysrq-trigger",
        canary,
        other,
        format!("/proc/1/root{}", other.display()),
        format!("/proc/{}/environ", std::process::id()),
        format!("../../../../../../../..{}", canary.display()),
    ]);
    reaches_nothing(&bench, bench.program(python, javascript), &paths.to_string()).await
}

pub(super) async fn the_bundle_is_read_only(bench: Bench) -> Check {
    let python = r#"
import os
HERE = os.path.dirname(os.path.abspath(__file__)) if '__file__' in globals() else '/function'
def handler(event, context):
    reached = []
    for path in (HERE + '/main.py', HERE + '/new.txt', HERE + '/__pycache__/main.pyc', '/usr/new.txt', '/etc/passwd', '/new.txt', '/dev/new.txt', '/proc/sys/kernel/core_pattern'):
        try:
            with open(path, 'ab') as file:
                file.write(b'#')
            reached.append(path)
        except OSError:
            pass
    for act in (lambda: os.chmod(HERE + '/main.py', 0o777), lambda: os.remove(HERE + '/main.py'), lambda: os.rename(HERE, '/tmp/away')):
        try:
            act()
            reached.append('changed')
        except (OSError, AttributeError):
            pass
    return reached
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
const here = import.meta.dirname ?? '/function';
export default () => {
    const reached = [];
    if (!fs) return reached;
    for (const path of [`${here}/main.mjs`, `${here}/new.txt`, '/usr/new.txt', '/etc/passwd', '/new.txt', '/dev/new.txt', '/proc/sys/kernel/core_pattern']) {
        try { fs.appendFileSync(path, '//'); reached.push(path); } catch {}
    }
    try { fs.chmodSync(`${here}/main.mjs`, 0o777); reached.push('changed'); } catch {}
    try { fs.rmSync(`${here}/main.mjs`); reached.push('removed'); } catch {}
    return reached;
};
"#;
    let program = bench.program(python, javascript);
    let entry = program.directory.join(bench.language.entry_file());
    let before = std::fs::read(&entry).map_err(|error| error.to_string())?;
    reaches_nothing(&bench, program.clone(), "null").await?;
    let after = std::fs::read(&entry).map_err(|error| error.to_string())?;
    ensure!(before == after, "the entry file was changed");
    let entries = std::fs::read_dir(&program.directory)
        .map_err(|error| error.to_string())?
        .count();
    ensure!(entries == 1, "the bundle has {entries} entries now");
    Ok(())
}

pub(super) async fn variables_of_others_are_out_of_sight(bench: Bench) -> Check {
    let secret = crate::bench::mark();
    let mut owner = bench.program(
        "def handler(event, context):\n    return 1\n",
        "export default () => 1;\n",
    );
    owner.env.insert("SECRET".to_owned(), secret.clone());
    let mut owner = bench.start(owner).await?;
    output(&owner.call("null").await)?;
    let python = r#"
import os
def handler(event, context):
    reached = [value for key, value in os.environ.items() if 'SECRET' in key]
    try:
        for entry in os.listdir('/proc'):
            try:
                with open('/proc/%s/environ' % entry, 'rb') as file:
                    if b'SECRET' in file.read():
                        reached.append(entry)
            except OSError:
                pass
    except OSError:
        pass
    return reached
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default () => {
    const reached = Object.keys(globalThis.process?.env ?? {}).filter((key) => key.includes('SECRET'));
    try {
        for (const entry of fs.readdirSync('/proc')) {
            try { if (fs.readFileSync(`/proc/${entry}/environ`).includes('SECRET')) reached.push(entry); } catch {}
        }
    } catch {}
    return reached;
};
"#;
    reaches_nothing(&bench, bench.program(python, javascript), "null").await?;
    ensure!(
        !format!("{:?}", bench.program(python, javascript)).contains(&secret),
        "a program's Debug tells its secrets"
    );
    output(&owner.call("null").await).map(drop)
}

pub(super) async fn scratch_is_never_shared(bench: Bench) -> Check {
    let python = r#"
import os
def handler(event, context):
    reached = []
    paths = [place + '/canary' for place in ('/tmp', '/dev/shm', '/var/tmp', '/run', '.')]
    for path in paths:
        try:
            if os.path.exists(path):
                reached.append(path)
        except OSError:
            pass
    for path in paths:
        try:
            with open(path, 'w') as file:
                file.write('canary')
        except OSError:
            pass
    return reached
"#;
    let javascript = r#"
const fs = (import.meta.url.includes('/function/') ? await import('node:fs') : null);
export default () => {
    const reached = [];
    const places = ['/tmp', '/dev/shm', '/var/tmp', '/run', '.'];
    for (const place of places) {
        try { if (fs.existsSync(`${place}/canary`)) reached.push(place); } catch {}
    }
    for (const place of places) {
        try { fs.writeFileSync(`${place}/canary`, 'canary'); } catch {}
    }
    return reached;
};
"#;
    let first = bench.program(python, javascript);
    let limits = first.limits;
    let mut running = bench.start(first).await?;
    let said = output(&running.call("null").await)?;
    ensure!(said == Value::Array(vec![]), "a fresh instance found {said}");
    let mut fresh = crate::bench::Running::of(running.loaded.clone(), limits).await?;
    let said = output(&fresh.call("null").await)?;
    ensure!(said == Value::Array(vec![]), "another instance found {said}");
    let other = bench.program(
        &format!("{python}\n# another owner\n"),
        &format!("{javascript}\n// another owner\n"),
    );
    reaches_nothing(&bench, other, "null").await
}

/// Calls that would widen a sandbox. Python reaches the bare system calls where `ctypes` exists; JavaScript has the tools only.
pub(super) async fn dangerous_calls_are_refused(bench: Bench) -> Check {
    let python = r#"
def handler(event, context):
    reached = []
    try:
        import ctypes, os, platform
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        if platform.machine() != 'x86_64':
            return reached
    except (ImportError, OSError, TypeError):
        return reached
    zero = ctypes.c_char_p(b'none')
    calls = {
        'unshare user': (272, 0x10000000), 'unshare net': (272, 0x40000000), 'keyctl': (250, 0, -3, 1),
        'add_key': (248, b'user', b'x', b'y', 1, -3), 'ptrace': (101, 0, 0, 0, 0), 'bpf': (321, 0, 0, 0),
        'io_uring': (425, 1, ctypes.create_string_buffer(120)), 'mount': (165, b'none', b'/tmp', b'tmpfs', 0, 0),
        'chroot': (161, b'/tmp'), 'setns': (308, 0, 0), 'userfaultfd': (323, 0), 'perf': (298, ctypes.create_string_buffer(120), 0, -1, -1, 0),
        'pivot_root': (155, b'/tmp', b'/tmp'), 'setuid': (105, 0), 'personality': (135, 0x0040000), 'clone user': (56, 0x10000011, 0, 0, 0, 0),
        'x32 getpid': (0x40000000 + 39,),
    }
    for name, arguments in calls.items():
        ctypes.set_errno(0)
        result = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
        if result == 0 and name == 'clone user':
            os._exit(0)
        if result >= 0:
            reached.append(name)
    return reached
"#;
    let javascript = r#"
const processes = (import.meta.url.includes('/function/') ? await import('node:child_process') : null);
export default () => {
    const reached = [];
    if (!processes) return reached;
    for (const command of ['unshare -U true', 'unshare -n true', 'mount -t tmpfs none /tmp', 'chroot /tmp true', 'mknod /tmp/disk b 254 0', 'dmesg']) {
        try { processes.execSync(command, {stdio: 'ignore', timeout: 2000}); reached.push(command); } catch {}
    }
    return reached;
};
"#;
    reaches_nothing(&bench, bench.program(python, javascript), "null").await
}
