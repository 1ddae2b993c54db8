//! From a job to the HTTP answer of its caller: the parts of a streamed answer, as they come.
//!
//! ```text
//! job: begin -> chunk* -> end      handler: head -> body frames -> well-formed end
//!                 '-> dropped                           '-> connection reset
//! ```
//! The end is said only when the job is written down as succeeded. A stream that just stops was broken off.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use piecework_api::errors::Refusal;
use piecework_sandbox::{Head, Sent};
use tokio::sync::mpsc;

use crate::calls::answer::{self, AnswerHead};

/// Parts that wait for the connection to take them.
const PASSED_WAITING_MAX: usize = 2;

/// A client that takes nothing for this long is gone: it holds a slot of a provider.
const CLIENT_PATIENCE: Duration = Duration::from_secs(60);

/// What a caller gets of a streamed answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Comes first.
    Head(AnswerHead),
    Chunk(Bytes),
    /// All of it came, and the job succeeded.
    End,
}

/// The job's end.
#[derive(Debug)]
pub(crate) struct Passing {
    to: mpsc::Sender<Passed>,
    begun: AtomicBool,
    /// The answer to this request has no body, whatever the function streams.
    bodyless: AtomicBool,
    /// A part was not passed on: what the caller has is not the whole answer.
    broken: AtomicBool,
    /// The caller gets an HTTP answer, also where the function does not stream.
    at_a_url: bool,
    /// Bytes of the body until the length that its head names; none where that says nothing.
    left: Mutex<Option<u64>>,
}

/// `bodyless`: the request was a HEAD.
pub(crate) fn channel(bodyless: bool) -> (Passing, mpsc::Receiver<Passed>) {
    let (to, receiver) = mpsc::channel(PASSED_WAITING_MAX);
    let passing = Passing {
        to,
        begun: AtomicBool::new(false),
        bodyless: AtomicBool::new(bodyless),
        broken: AtomicBool::new(false),
        at_a_url: false,
        left: Mutex::new(None),
    };
    (passing, receiver)
}

/// Why a part was not passed on.
#[derive(Debug, PartialEq)]
pub(crate) enum NotPassed {
    /// The caller went away.
    Gone,
    /// The function's head is none; the caller has seen nothing yet.
    Invalid(Box<Refusal>),
}

impl Passing {
    /// Has outputs in one piece checked as HTTP answers.
    pub(crate) fn at_a_url(self) -> Self {
        Self { at_a_url: true, ..self }
    }

    /// Why an output in one piece cannot be given to the caller.
    pub(crate) fn fault_of(&self, output: &Bytes) -> Option<Box<Refusal>> {
        match self.at_a_url {
            true => answer::of_output(output).err(),
            false => None,
        }
    }

    /// Whether the caller has all of the body, so that what the function does from here on is not for it.
    fn is_complete(&self) -> bool {
        *self.left.lock() == Some(0)
    }

    /// Counts a chunk that the caller gets.
    fn count(&self, chunk: &Bytes) {
        let mut left = self.left.lock();
        *left = left.map(|left| left.saturating_sub(chunk.len() as u64));
    }

    /// Whether the caller is waiting for more.
    fn is_followed(&self) -> bool {
        self.has_begun() && !self.bodyless.load(Ordering::Acquire) && !self.is_complete()
    }

    /// Whether the caller has seen something: then the job cannot begin anew.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// Waits until the caller takes it. A stream without a head begins with an empty one; a second head is dropped.
    pub(crate) async fn pass(&self, part: Sent) -> Result<(), NotPassed> {
        match part {
            Sent::Head(_) if self.has_begun() => Ok(()),
            Sent::Head(head) => self.begin(&head).await,
            Sent::Chunk(chunk) => {
                if !self.has_begun() {
                    self.begin(&Head::default()).await?;
                }
                match self.is_followed() {
                    true => self.chunk(chunk).await,
                    false => Ok(()),
                }
            }
        }
    }

    /// The last one of a body whose length was said ends it: what the run does afterwards is not waited for.
    async fn chunk(&self, chunk: Bytes) -> Result<(), NotPassed> {
        self.count(&chunk);
        self.send(Passed::Chunk(chunk)).await?;
        if self.is_complete() {
            // It may have gone with the last byte.
            let _ = self.send(Passed::End).await;
        }
        Ok(())
    }

    async fn begin(&self, head: &Head) -> Result<(), NotPassed> {
        let head = AnswerHead::of_stream(head).map_err(NotPassed::Invalid)?;
        *self.left.lock() = head.length;
        self.begun.store(true, Ordering::Release);
        if head.is_bodyless() {
            self.bodyless.store(true, Ordering::Release);
        }
        self.send(Passed::Head(head)).await
    }

    /// Nothing is passed on any more, and the stream does not end well.
    pub(crate) fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// The job is written down and went well.
    pub(crate) async fn end(&self) {
        if self.has_begun() && !self.broken.load(Ordering::Acquire) && !self.is_complete() {
            // Nobody there: then nobody has to hear of it.
            let _ = self.send(Passed::End).await;
        }
    }

    /// Resolves when the caller of a stream that has begun went away before it had all of it.
    pub(crate) async fn gone(&self) {
        if self.is_followed() {
            self.to.closed().await;
        }
        // It may have had the last part meanwhile.
        if !self.is_followed() {
            std::future::pending().await
        }
    }

    async fn send(&self, passed: Passed) -> Result<(), NotPassed> {
        match tokio::time::timeout(CLIENT_PATIENCE, self.to.send(passed)).await {
            Ok(sent) => sent.map_err(|_| NotPassed::Gone),
            Err(_) => Err(NotPassed::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use piecework_model::Code;

    use super::*;

    fn chunk(text: &'static str) -> Sent {
        Sent::Chunk(Bytes::from_static(text.as_bytes()))
    }

    fn head(status: u16) -> (Sent, Passed) {
        let head = Head {
            status,
            ..Head::default()
        };
        let parsed = AnswerHead::of_stream(&head).expect("a head");
        (Sent::Head(head), Passed::Head(parsed))
    }

    async fn all(mut passed: mpsc::Receiver<Passed>) -> Vec<Passed> {
        let mut all = Vec::new();
        while let Some(part) = passed.recv().await {
            all.push(part);
        }
        all
    }

    #[tokio::test]
    async fn a_stream_without_a_head_gets_one_and_only_a_job_that_went_well_ends() {
        let (passing, passed) = channel(false);
        let read = tokio::spawn(all(passed));
        assert!(!passing.has_begun());
        passing.pass(chunk("a")).await.expect("read");
        passing.pass(Sent::Head(Head::default())).await.expect("dropped");
        passing.pass(chunk("b")).await.expect("read");
        assert!(passing.has_begun());
        passing.end().await;
        drop(passing);
        let parts = ["a", "b"].map(|text| Passed::Chunk(Bytes::from_static(text.as_bytes())));
        let [a, b] = parts;
        let due = vec![head(0).1, a, b, Passed::End];
        assert_eq!(read.await.expect("no panic"), due);
    }

    #[tokio::test]
    async fn an_answer_with_a_hole_does_not_end_well() {
        let (passing, passed) = channel(false);
        let read = tokio::spawn(all(passed));
        passing.pass(chunk("a")).await.expect("read");
        passing.break_off();
        passing.end().await;
        drop(passing);
        assert_eq!(
            read.await.expect("no panic"),
            vec![head(0).1, Passed::Chunk(Bytes::from_static(b"a"))]
        );
    }

    #[tokio::test]
    async fn a_unary_answer_leaves_nothing() {
        let (passing, passed) = channel(false);
        passing.end().await;
        drop(passing);
        assert_eq!(all(passed).await, vec![]);
    }

    #[tokio::test]
    async fn without_a_body_the_run_goes_on_and_its_chunks_are_dropped() {
        for (is_head, status) in [(true, 200), (false, 204), (false, 205), (false, 304)] {
            let (passing, mut passed) = channel(is_head);
            let (sent, due) = head(status);
            passing.pass(sent).await.expect("read");
            assert_eq!(passed.recv().await, Some(due));
            drop(passed);
            assert_eq!(passing.pass(chunk("a")).await, Ok(()), "{status}");
            assert!(futures::poll!(Box::pin(passing.gone())).is_pending(), "{status}");
        }
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_is_noticed_while_nothing_comes() {
        let (passing, passed) = channel(false);
        passing.pass(Sent::Head(Head::default())).await.expect("room");
        drop(passed);
        passing.gone().await;
        assert_eq!(passing.pass(chunk("a")).await, Err(NotPassed::Gone));
    }

    #[tokio::test]
    async fn a_caller_who_has_the_whole_body_may_go_while_the_run_goes_on() {
        let (passing, mut passed) = channel(false);
        let headers = vec![("content-length".to_owned(), Bytes::from_static(b"2"))];
        passing
            .pass(Sent::Head(Head { status: 200, headers }))
            .await
            .expect("read");
        assert!(matches!(passed.recv().await, Some(Passed::Head(_))));
        passing.pass(chunk("a")).await.expect("read");
        assert!(matches!(passed.recv().await, Some(Passed::Chunk(_))));
        passing.pass(chunk("b")).await.expect("read");
        assert!(matches!(passed.recv().await, Some(Passed::Chunk(_))));
        assert_eq!(passed.recv().await, Some(Passed::End));
        drop(passed);
        assert!(futures::poll!(Box::pin(passing.gone())).is_pending());
        assert_eq!(passing.pass(chunk("more than was said")).await, Ok(()));
    }

    #[tokio::test]
    async fn only_a_url_makes_an_answer_of_an_output() {
        let output = Bytes::from_static(br#"{"status":700,"body":"x"}"#);
        let (passing, _passed) = channel(false);
        assert!(passing.fault_of(&output).is_none());
        let refusal = passing.at_a_url().fault_of(&output).expect("no answer");
        assert_eq!(refusal.code, Code::FunctionOutputInvalid);
    }

    #[tokio::test]
    async fn a_head_that_is_none_is_not_shown() {
        let (passing, _passed) = channel(false);
        let refused = passing.pass(Sent::Head(Head {
            status: 101,
            ..Head::default()
        }));
        let Err(NotPassed::Invalid(refusal)) = refused.await else {
            panic!("it passed")
        };
        assert_eq!(refusal.code, Code::FunctionOutputInvalid);
        assert!(!passing.has_begun(), "the caller can still be told");
    }
}
