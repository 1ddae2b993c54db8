//! Entries that are in the journal but not in the tables yet, so that reads see them at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use piecework_model::{AccountId, JobId};

use crate::{Job, JobFilter, JobState, ResultNote, journal::Entry};

struct PendingJob {
    job: Arc<Job>,
    /// The position after the last entry about it.
    end: u64,
}

struct Progress {
    state: JobState,
    provider: Option<AccountId>,
    end: u64,
}

#[derive(Default)]
pub(crate) struct Pending {
    queue: VecDeque<(u64, Entry)>,
    bytes: usize,
    jobs: BTreeMap<JobId, PendingJob>,
    /// Progress of jobs whose record is in the tables.
    progress: HashMap<JobId, Progress>,
    /// First notes of results.
    results: HashMap<JobId, ResultNote>,
    /// Every accepted job without an outcome, in the tables or not.
    unfinished: HashSet<JobId>,
    /// The position after the last entry taken.
    appended: u64,
    /// The position after the last entry that was forgotten.
    forgotten: u64,
}

impl Pending {
    pub(crate) fn new(unfinished: HashSet<JobId>, appended: u64) -> Self {
        Self {
            unfinished,
            appended,
            ..Self::default()
        }
    }

    /// Takes what was written; `end` ascends from call to call.
    pub(crate) fn push(&mut self, end: u64, entry: Entry) {
        match &entry {
            Entry::Accepted(job) => {
                self.unfinished.insert(job.id);
                let job = Arc::new(job.to_job());
                self.jobs.insert(job.id, PendingJob { job, end });
            }
            Entry::Progressed { job, state, provider } => self.note_progress(end, *job, *state, *provider),
            Entry::Finished(job) => {
                self.unfinished.remove(&job.id);
                if !self.has_ended(job.id) {
                    let job = job.clone();
                    self.jobs.insert(job.id, PendingJob { job, end });
                }
            }
            Entry::Reserved { .. } => {}
            Entry::Result(note) => {
                self.results.entry(note.job).or_insert_with(|| note.clone());
            }
        }
        self.appended = end;
        self.bytes += entry.weight();
        self.queue.push_back((end, entry));
    }

    fn note_progress(&mut self, end: u64, job: JobId, state: JobState, provider: Option<AccountId>) {
        match self.jobs.get_mut(&job) {
            Some(known) if !known.job.state.is_final() => {
                let record = Arc::make_mut(&mut known.job);
                record.state = state;
                record.provider = provider.or(record.provider);
                known.end = end;
            }
            Some(_) => {}
            None => {
                self.progress.insert(job, Progress { state, provider, end });
            }
        }
    }

    /// Forgets what is in the tables now: everything up to and including `end`.
    pub(crate) fn forget_until(&mut self, end: u64) {
        while let Some((position, entry)) = self.queue.pop_front_if(|(position, _)| *position <= end) {
            self.bytes -= entry.weight();
            self.forget_entry(&entry, end);
            self.forgotten = position;
        }
    }

    /// Rises with whatever leaves. Where it is the same before and after the tables were read, nothing that they lacked is missing
    /// here.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn forget_entry(&mut self, entry: &Entry, end: u64) {
        let job = match entry {
            Entry::Accepted(job) => job.id,
            Entry::Finished(job) => job.id,
            Entry::Progressed { job, .. } => *job,
            Entry::Reserved { .. } => return,
            Entry::Result(note) => {
                self.results.remove(&note.job);
                return;
            }
        };
        if self.jobs.get(&job).is_some_and(|known| known.end <= end) {
            self.jobs.remove(&job);
        }
        if self.progress.get(&job).is_some_and(|known| known.end <= end) {
            self.progress.remove(&job);
        }
    }

    /// The oldest entries, shared.
    pub(crate) fn oldest(&self, count: usize) -> Vec<(u64, Entry)> {
        self.queue.iter().take(count).cloned().collect()
    }

    pub(crate) fn job(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs.get(&id).map(|known| known.job.clone())
    }

    pub(crate) fn result(&self, id: JobId) -> Option<ResultNote> {
        self.results.get(&id).cloned()
    }

    pub(crate) fn has_ended(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|known| known.job.state.is_final())
    }

    pub(crate) fn is_unfinished(&self, id: JobId) -> bool {
        self.unfinished.contains(&id)
    }

    /// Lays noted progress over a record of the tables.
    pub(crate) fn overlay(&self, job: &mut Job) {
        if let Some(progress) = self.progress.get(&job.id)
            && !job.state.is_final()
        {
            job.state = progress.state;
            job.provider = progress.provider.or(job.provider);
        }
    }

    /// Newest first, without output and logs. May look at every pending job.
    pub(crate) fn list(&self, filter: &JobFilter) -> Vec<Job> {
        let newer_bound = filter
            .before
            .map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.jobs
            .range((std::ops::Bound::Unbounded, newer_bound))
            .rev()
            .map(|(_, known)| &known.job)
            .filter(|job| job.developer == filter.developer)
            .filter(|job| filter.function.is_none_or(|function| job.function == function))
            .filter(|job| filter.state.is_none_or(|state| job.state == state))
            .take(filter.limit as usize)
            .map(|job| without_contents(job))
            .collect()
    }

    pub(crate) fn entries(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn appended(&self) -> u64 {
        self.appended
    }
}

fn without_contents(job: &Job) -> Job {
    // A whole clone first would copy an output of megabytes.
    Job {
        output: None,
        logs: String::new(),
        function_name: job.function_name.clone(),
        error: job.error.clone(),
        settlement: job.settlement.clone(),
        idempotency: job.idempotency.clone(),
        passed_over: job.passed_over.clone(),
        ..*job
    }
}
