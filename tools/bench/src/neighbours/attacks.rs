//! What a neighbour does.

/// One kind of noise.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// At once.
    pub(super) calls: usize,
    /// In Python, in either wall.
    python: &'static str,
    /// For wasm, where Python lacks what it takes.
    javascript: Option<&'static str>,
    jail_only: bool,
}

impl Attack {
    /// Language and source for each wall that it can be tried in.
    pub(super) fn code(&self) -> Vec<(&'static str, (&'static str, &'static str))> {
        let mut all = vec![("jail", ("python", self.python))];
        if !self.jail_only {
            let wasm = self
                .javascript
                .map_or(("python", self.python), |source| ("javascript", source));
            all.push(("wasm", wasm));
        }
        all
    }
}

pub(super) const ATTACKS: [Attack; 5] = [
    Attack {
        name: "50 spinning calls",
        calls: 50,
        python: "def handler(event, context):\n    while True:\n        pass\n",
        javascript: None,
        jail_only: false,
    },
    Attack {
        name: "10 fork bombs",
        calls: 10,
        python: "import os\ndef handler(event, context):\n    while True:\n        try:\n            os.fork()\n        except OSError:\n            pass\n",
        javascript: None,
        // There are no processes in wasm.
        jail_only: true,
    },
    Attack {
        name: "8 memory churners",
        calls: 8,
        python: "def handler(event, context):\n    while True:\n        held = bytearray(100 << 20)\n        for at in range(0, len(held), 4096):\n            held[at] = 1\n        del held\n",
        javascript: Some(
            "export default () => { for (;;) { const held = new Uint8Array(40 << 20); for (let at = 0; at < held.length; at += 4096) held[at] = 1; } };\n",
        ),
        jail_only: false,
    },
    Attack {
        name: "8 log flooders",
        calls: 8,
        python: "def handler(event, context):\n    while True:\n        print('x' * 1000)\n",
        javascript: None,
        jail_only: false,
    },
    Attack {
        name: "20 crash loops",
        calls: 20,
        python: "import os\ndef handler(event, context):\n    os._exit(1)\n",
        javascript: Some(
            "export default () => { const deep = () => deep() + deep(); return new Array(1e9).fill(deep).map(String); };\n",
        ),
        jail_only: false,
    },
];
