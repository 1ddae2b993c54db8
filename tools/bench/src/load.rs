//! The load: one blocking connection for latency, many connections in one thread for throughput.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::http::{Answer, Connection, Site};

/// Latencies of a run.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Nanoseconds, sorted.
    sorted: Vec<u64>,
}

impl Latencies {
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            sorted: times
                .into_iter()
                .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
                .collect(),
        }
    }

    /// Microseconds at a quantile from 0 to 1, by the nearest rank; 0 of nothing.
    pub fn us(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.sorted.len() as f64).ceil() as usize;
        self.sorted
            .get(rank.saturating_sub(1))
            .map_or(0.0, |nanos| *nanos as f64 / 1_000.0)
    }

    pub fn count(&self) -> usize {
        self.sorted.len()
    }
}

/// What a saturating run saw.
#[derive(Debug, Default)]
pub struct Saturated {
    pub answers: u64,
    /// Answers that were not 2xx, with the first of them.
    pub refused: u64,
    pub first_refusal: Option<String>,
    pub latencies: Latencies,
    pub elapsed: Duration,
}

/// `count` requests one after the other on one connection. Each must succeed.
pub fn single(site: &Site, request: &[u8], count: usize) -> Result<Latencies> {
    in_turn(site, request, count).map(Latencies::of)
}

/// What each of them took, in their order.
pub fn in_turn(site: &Site, request: &[u8], count: usize) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(site)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        let (answer, body) = connection.send(request)?;
        times.push(began.elapsed());
        ensure!(
            answer.is_success(),
            "status {}: {}",
            answer.status,
            String::from_utf8_lossy(&body)
        );
    }
    Ok(times)
}

/// `connections` closed loops for `time`. Runs its own single-threaded runtime: the rest of the machine is the server's.
pub fn saturate(site: &Site, request: &[u8], connections: usize, time: Duration) -> Result<Saturated> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    runtime.block_on(async {
        let began = Instant::now();
        let until = began + time;
        let mut loops = JoinSet::new();
        for _ in 0..connections {
            loops.spawn(closed_loop(site.clone(), request.to_vec(), until));
        }
        let (mut total, mut times) = (Saturated::default(), Vec::new());
        while let Some(ended) = loops.join_next().await {
            let one = ended.context("a loop panicked")??;
            total.answers += one.answers;
            total.refused += one.refused;
            total.first_refusal = total.first_refusal.or(one.first_refusal);
            times.extend(one.times);
        }
        total.elapsed = began.elapsed();
        total.latencies = Latencies::of(times);
        Ok(total)
    })
}

#[derive(Default)]
struct OneLoop {
    answers: u64,
    refused: u64,
    first_refusal: Option<String>,
    times: Vec<Duration>,
}

async fn closed_loop(site: Site, request: Vec<u8>, until: Instant) -> Result<OneLoop> {
    let mut stream = TcpStream::connect(site.address)
        .await
        .with_context(|| format!("connect to {}", site.host))?;
    stream.set_nodelay(true)?;
    let mut seen = OneLoop::default();
    let mut buffer = Vec::with_capacity(16 << 10);
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(&request).await.context("send a request")?;
        let answer = loop {
            ensure!(
                stream.read_buf(&mut buffer).await.context("read an answer")? > 0,
                "the server closed a connection"
            );
            if let Some(answer) = Answer::parse(&buffer)? {
                break answer;
            }
        };
        seen.times.push(began.elapsed());
        if answer.is_success() {
            seen.answers += 1;
        } else {
            seen.refused += 1;
            seen.first_refusal
                .get_or_insert_with(|| String::from_utf8_lossy(&buffer).into_owned());
        }
        buffer.clear();
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let times = Latencies::of((1..=100).rev().map(Duration::from_micros).collect());
        assert_eq!(
            (times.us(0.5), times.us(0.95), times.us(0.99), times.us(1.0)),
            (50.0, 95.0, 99.0, 100.0)
        );
        assert_eq!(Latencies::of(vec![Duration::from_micros(7)]).us(0.5), 7.0);
        assert_eq!(Latencies::default().us(0.5), 0.0);
    }
}
