// Attacks in JavaScript. What a sandbox has no word for is absent there.
const native = import.meta.url.includes('/function/');
const load = async (name) => (native ? await import('node:' + name) : null);
const fs = await load('fs');
const processes = await load('child_process');
const net = await load('net');
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const absent = (what) => ({ absent: what });

const spawned = (file, args, options) =>
  new Promise((done) => {
    try {
      const child = processes.spawn(file, args, { stdio: 'ignore', ...options });
      child.on('error', () => done(null));
      child.on('spawn', () => done(child));
    } catch {
      done(null);
    }
  });

// What an attack wrote must not fill the disk of the next one.
const clean = (prefix) => {
  for (const name of fs.readdirSync('/tmp')) if (name.startsWith(prefix + '-')) fs.unlinkSync('/tmp/' + name);
};

const attacks = {
  loop() {
    if (native) for (const signal of ['SIGHUP', 'SIGINT', 'SIGTERM', 'SIGQUIT']) process.on(signal, () => {});
    for (;;);
  },
  memory() {
    const hoard = [];
    for (;;) hoard.push(new Uint8Array(4 << 20).fill(7));
  },
  async fork() {
    if (!processes) return absent('there are no processes');
    let count = 0;
    while (count < 100 && (await spawned('/bin/sleep', ['600']))) count++;
    return { count };
  },
  async daemon(event) {
    if (!processes) return absent('there are no processes');
    const child = await spawned('/bin/sh', ['-c', `trap "" HUP INT TERM QUIT; sleep 600; : ${event.mark}`], { detached: true });
    child?.unref();
    return { left: true };
  },
  disk() {
    if (!fs) return absent('there are no files');
    let total = 0;
    try {
      for (let number = 0; number < 8; number++) {
        const fd = fs.openSync(`/tmp/fill-${number}`, 'w');
        for (let i = 0; i < 64; i++) total += fs.writeSync(fd, Buffer.alloc(1 << 20, 7));
      }
    } catch {}
    clean('fill');
    return { count: total };
  },
  files() {
    if (!fs) return absent('there are no files');
    let count = 0;
    try {
      while (count < 50000) {
        fs.closeSync(fs.openSync(`/tmp/many-${count}`, 'w'));
        count++;
      }
    } catch {}
    clean('many');
    return { count };
  },
  descriptors() {
    if (!fs) return absent('there are no files');
    const held = [];
    try {
      while (held.length < 20000) held.push(fs.openSync(process.execPath));
    } catch {}
    held.forEach((fd) => fs.closeSync(fd));
    return { count: held.length };
  },
  host(event) {
    if (!fs) return absent('there are no files');
    const can = (path) => {
      try {
        if (fs.statSync(path).isDirectory()) fs.readdirSync(path);
        else fs.readSync(fs.openSync(path, 'r'), Buffer.alloc(1));
        return true;
      } catch {
        return false;
      }
    };
    return { got: event.paths.filter(can) };
  },
  others() {
    if (!fs) return absent('there is no /proc');
    const numbers = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name));
    const lines = numbers.map((name) => {
      try {
        return fs.readFileSync(`/proc/${name}/cmdline`, 'utf8');
      } catch {
        return '';
      }
    });
    return { got: lines.filter((line) => line.includes('piecework')), count: numbers.length };
  },
  async network(event) {
    if (!net) return { got: typeof fetch === 'function' ? await fetches(event) : [] };
    const one = ([host, port]) =>
      new Promise((done) => {
        try {
          const socket = net.connect({ host, port, timeout: 500 });
          socket.on('connect', () => done(`${host}:${port}`));
          socket.on('error', () => done(null));
          socket.on('timeout', () => done(null));
        } catch {
          done(null);
        }
      });
    return { got: (await Promise.all(event.addresses.map(one))).filter(Boolean) };
  },
  async calls() {
    if (!processes) return absent('there are no system calls');
    const got = [];
    for (const [file, args] of [
      ['/usr/bin/unshare', ['-U', 'true']],
      ['/usr/bin/unshare', ['-n', 'true']],
      ['/usr/bin/mount', ['-t', 'tmpfs', 'x', '/tmp']],
      ['/usr/sbin/chroot', ['/usr', '/bin/true']],
    ]) {
      const child = await spawned(file, args);
      if (!child) continue;
      const code = await new Promise((done) => child.on('exit', done));
      if (code === 0) got.push(`${file} ${args.join(' ')}`);
    }
    return { got };
  },
  output: () => ({ flood: 'x'.repeat(8 << 20) }),
  logs() {
    for (let i = 0; i < 40000; i++) console.log('x'.repeat(99));
    return { printed: 4000000 };
  },
  leave() {
    if (!fs) return absent('there are no files');
    fs.writeFileSync('/tmp/left', 'mine');
    return { left: true };
  },
  find: () => ({ got: fs?.existsSync('/tmp/left') ? ['/tmp/left'] : [] }),
};

async function fetches(event) {
  const got = [];
  for (const [host, port] of event.addresses) {
    try {
      await fetch(`http://${host}:${port}/`);
      got.push(`${host}:${port}`);
    } catch {}
  }
  return got;
}

export default async (event) => attacks[event.attack](event);
