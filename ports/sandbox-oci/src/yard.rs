//! Makes standing containers for programs, whatever engine runs them, and freezes them all.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use piecework_model::{Language, Limits};
use piecework_sandbox::{
    Beside, Freeze, Image, Program,
    instances::{node_heap, tasks_max},
};
use piecework_sandbox_jail::walls::{Channel, Interpreter, open_to_others};
use tokio::{
    io::Join,
    net::unix::pipe::{Receiver, Sender},
};

use crate::{
    container::{Attendant, Container},
    image::RUNNER_INSIDE,
};

/// How long a container may take to stand; gVisor on a busy machine takes a tenth of it.
pub(crate) const STANDING_WAIT: Duration = Duration::from_secs(20);

pub(crate) const PYTHON_RUNNER: &str = "/runner/python.py";

/// What a runner is talked to over: it writes to the one pipe and reads from the other.
pub(crate) type Stream = Join<Receiver, Sender>;

/// A container whose runner waits for a program.
pub(crate) struct Standing {
    pub(crate) container: Arc<Container>,
    pub(crate) channel: Channel<Stream>,
    /// What has to be held until the runner has greeted.
    pub(crate) until_it_stands: Option<Box<dyn std::any::Any + Send + Sync>>,
}

/// What containers of one program are made from.
#[derive(Clone, Debug)]
pub(crate) struct Mould {
    pub(crate) arguments: Vec<String>,
    pub(crate) limits: Limits,
    /// Processes and threads.
    pub(crate) tasks_max: u64,
    pub(crate) content: Content,
    pub(crate) cores: u32,
}

/// What is run, on the host.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Code that an interpreter of the host reads.
    Bundle(PathBuf),
    /// What is the root itself; the arguments end where the engine says how its runner is talked to.
    Image(Image),
}

/// An engine that runs containers.
#[async_trait]
pub(crate) trait Engine: Send + Sync {
    /// A container whose first process runs, whatever comes of it. Not cancel safe.
    async fn run(&self, mould: &Mould, attendant: &Arc<Attendant>) -> Result<Standing, String>;

    /// What starts its containers.
    fn runtime(&self) -> String;

    /// What it is and which version.
    fn describe(&self) -> String;

    /// Limits that are not the full set.
    fn weaker(&self) -> Vec<String>;

    /// What its containers have used since it began, and hold.
    fn beside(&self) -> Beside;
}

pub(crate) struct Interpreters {
    pub(crate) python: Option<Interpreter>,
    pub(crate) node: Option<Interpreter>,
}

impl Interpreters {
    pub(crate) fn of(&self, language: Language) -> Option<&Interpreter> {
        match language {
            Language::Python => self.python.as_ref(),
            Language::JavaScript => self.node.as_ref(),
            Language::Image => None,
        }
    }

    pub(crate) fn prefixes(&self) -> Vec<PathBuf> {
        let all = [&self.python, &self.node].into_iter().flatten();
        all.filter_map(|found| found.prefix.clone()).collect()
    }
}

pub(crate) struct Yard {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) interpreters: Interpreters,
    pub(crate) freeze: Freeze,
    pub(crate) cores: u32,
    pub(crate) attendant: Arc<Attendant>,
    /// Every container that stands, whatever it is for.
    pub(crate) standing: Mutex<Vec<Weak<Container>>>,
}

impl Yard {
    pub(crate) fn mould(&self, program: &Program) -> Result<Mould, String> {
        let language = program.language;
        let (arguments, content) = match &program.image {
            Some(image) => {
                let layers_in = image.layers_in.canonicalize();
                let layers_in = layers_in.map_err(|error| format!("the layers cannot be opened: {error}"))?;
                let image = Image {
                    layers_in,
                    ..image.clone()
                };
                (vec![RUNNER_INSIDE.to_owned()], Content::Image(image))
            }
            None => {
                let bundle =
                    open_to_others(program).map_err(|error| format!("the bundle cannot be opened: {error}"))?;
                let interpreter = self.interpreters.of(language);
                let interpreter = interpreter.ok_or_else(|| format!("no interpreter of {language} is here"))?;
                (
                    arguments(interpreter, language, &program.limits),
                    Content::Bundle(bundle),
                )
            }
        };
        Ok(Mould {
            arguments,
            limits: program.limits,
            tasks_max: tasks_max(language, &program.limits),
            content,
            cores: self.cores,
        })
    }

    /// Of the bare interpreter, which greets as a runner does and waits.
    pub(crate) fn bare_mould(&self, program: &Program) -> Result<Mould, String> {
        const PYTHON: &str =
            "import os; os.write(4, (31).to_bytes(4, 'little') + bytes(16) + b'H{\"protocol\":3}'); os.read(3, 1)";
        const JAVASCRIPT: &str = "const fs = require('fs'); const f = Buffer.alloc(35); f.writeUInt32LE(31, 0); f.write('H{\"protocol\":3}', 20); fs.writeSync(4, f); fs.readSync(3, Buffer.alloc(1))";
        let mould = self.mould(program)?;
        let path = mould.arguments.first().cloned().unwrap_or_default();
        let arguments: &[&str] = match program.language {
            Language::Python => &["-I", "-S", "-c", PYTHON],
            Language::JavaScript => &["-e", JAVASCRIPT],
            Language::Image => &[],
        };
        Ok(Mould {
            arguments: std::iter::once(path.as_str())
                .chain(arguments.iter().copied())
                .map(str::to_owned)
                .collect(),
            ..mould
        })
    }

    /// A standing container with the program's bundle. Not cancel safe: run it in a task of its own.
    pub(crate) async fn make(&self, mould: &Mould) -> Result<Standing, String> {
        let mut standing = self.engine.run(mould, &self.attendant).await?;
        let container = standing.container.clone();
        let greeted = tokio::select! {
            biased;
            greeted = tokio::time::timeout(STANDING_WAIT, standing.channel.greeting()) => greeted,
            () = container.gone() => Ok(Err("it ended at its start".to_owned())),
        };
        let reason = match greeted {
            Ok(Ok(())) => {
                // What the engine itself said is nothing of the program's.
                standing.channel.late_logs();
                standing.channel.logs().take();
                standing.container.stands();
                standing.until_it_stands = None;
                self.enlist(&standing.container);
                return Ok(standing);
            }
            Ok(Err(reason)) => reason,
            Err(_) => "it took too long to start".to_owned(),
        };
        standing.channel.late_logs();
        let told = standing.channel.logs().take().text;
        let hint = match standing.container.cage().hit_memory_limit() {
            true => " (the memory limit is too small for the interpreter)",
            false => "",
        };
        Err(format!("no container: {reason}{hint}: {}", told.trim()))
    }

    /// From now on it is frozen with the others; at once where they are.
    fn enlist(&self, container: &Arc<Container>) {
        let mut standing = self.standing.lock();
        standing.retain(|container| container.strong_count() > 0);
        standing.push(Arc::downgrade(container));
        if self.freeze.is_frozen() {
            container.hold(true);
        }
    }

    pub(crate) fn hold(&self, held: bool) {
        let standing = self.standing.lock();
        for container in standing.iter().filter_map(Weak::upgrade) {
            container.hold(held);
        }
    }
}

impl Drop for Yard {
    /// Before the engine is told to end: its keeper ends when everything in its namespace has, and what is frozen does not end.
    fn drop(&mut self) {
        let standing = self.standing.get_mut().drain(..);
        for container in standing.filter_map(|container| container.upgrade()) {
            container.kill();
        }
    }
}

fn arguments(interpreter: &Interpreter, language: Language, limits: &Limits) -> Vec<String> {
    /// Says to a runner that its channel is two pipes.
    const IN_CONTAINER: &str = "--container";
    let path = interpreter.path.to_string_lossy().into_owned();
    match language {
        Language::Python => [&path, "-I", "-S", "-B", PYTHON_RUNNER, IN_CONTAINER]
            .map(str::to_owned)
            .to_vec(),
        Language::Image => Vec::new(),
        Language::JavaScript => [
            &path,
            &node_heap(limits),
            "--no-warnings",
            "/runner/node.cjs",
            IN_CONTAINER,
        ]
        .map(str::to_owned)
        .to_vec(),
    }
}
