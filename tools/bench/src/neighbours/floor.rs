//! What the machine itself makes somebody wait who only wakes another thread and is woken by it.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use crate::load::Latencies;

/// Round trips between two threads through a pair of sockets, as a request and its answer are: p99 in microseconds; 0 where no pair
/// can be made.
pub(super) fn p99_us(time: Duration) -> f64 {
    let Ok((mut ours, mut theirs)) = UnixStream::pair() else {
        return 0.0;
    };
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while theirs.read_exact(&mut byte).is_ok() && theirs.write_all(&byte).is_ok() {}
    });
    let (mut times, until) = (Vec::new(), Instant::now() + time);
    let mut byte = [7];
    while Instant::now() < until {
        let began = Instant::now();
        if ours.write_all(&byte).is_err() || ours.read_exact(&mut byte).is_err() {
            break;
        }
        times.push(began.elapsed());
        // A caller that never rests is not woken as one that waits for an answer is.
        thread::sleep(Duration::from_micros(200));
    }
    drop(ours);
    // It has nothing to say.
    let _ = echo.join();
    Latencies::of(times).us(0.99)
}
