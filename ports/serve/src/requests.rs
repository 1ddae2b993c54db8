//! Counts requests by class of path and of status, measures how long each takes, and knows how many run.
//!
//! Labels are of a set that the program fixes: never a path, a name or anything else that a caller chooses.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Took {
    route: &'static str,
}

/// The class of a request whose path does not tell it; put among the extensions of its response.
#[derive(Clone, Copy, Debug)]
pub struct RouteClass(pub &'static str);

/// The requests of one server. Cheap to clone.
#[derive(Clone)]
pub struct Requests {
    answered: Family<Answered, Counter>,
    took: Family<Took, Histogram, fn() -> Histogram>,
    in_flight: Gauge<i64, AtomicI64>,
    /// The class of a path: one of a few.
    class: Arc<dyn Fn(&str) -> &'static str + Send + Sync>,
}

/// 100 us to 210 s, in steps of two.
fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 22))
}

/// Until its answer begins.
struct Underway {
    requests: Requests,
    route: &'static str,
    began: Instant,
    /// Stays when the caller has gone before.
    status: &'static str,
}

impl Drop for Underway {
    fn drop(&mut self) {
        let (requests, route, status) = (&self.requests, self.route, self.status);
        requests.in_flight.dec();
        requests.answered.get_or_create(&Answered { route, status }).inc();
        let took = self.began.elapsed().as_secs_f64();
        requests.took.get_or_create(&Took { route }).observe(took);
    }
}

impl Requests {
    pub fn new(class: impl Fn(&str) -> &'static str + Send + Sync + 'static) -> Self {
        Self {
            answered: Family::default(),
            took: Family::new_with_constructor(buckets),
            in_flight: Gauge::default(),
            class: Arc::new(class),
        }
    }

    fn begin(&self, path: &str) -> Underway {
        self.in_flight.inc();
        Underway {
            requests: self.clone(),
            route: (self.class)(path),
            began: Instant::now(),
            status: "gone",
        }
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Requests by class of path and of status; gone: the caller left before the answer began",
            self.answered.clone(),
        );
        registry.register(
            "http_request_duration_seconds",
            "From a request's head to the head of its answer",
            self.took.clone(),
        );
        registry.register(
            "http_requests_in_flight",
            "Requests whose answer has not begun",
            self.in_flight.clone(),
        );
    }
}

/// The outermost layer of a router.
pub async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let mut underway = requests.begin(request.uri().path());
    let response = next.run(request).await;
    if let Some(RouteClass(route)) = response.extensions().get() {
        underway.route = route;
    }
    underway.status = class_of(response.status());
    response
}

fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn text(requests: &Requests) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        requests.register(&mut registry);
        encode(&mut text, &registry).expect("a string takes every write");
        text
    }

    #[test]
    fn a_request_counts_once_whether_it_is_answered_or_its_caller_leaves() {
        let requests = Requests::new(|path| if path == "/a" { "a" } else { "other" });
        let mut answered = requests.begin("/a");
        let gone = requests.begin("/x?y");
        assert!(text(&requests).contains("http_requests_in_flight 2\n"));
        answered.status = class_of(StatusCode::TOO_MANY_REQUESTS);
        drop((answered, gone));
        let text = text(&requests);
        for line in [
            "http_requests_in_flight 0\n",
            "http_requests_total{route=\"a\",status=\"4xx\"} 1\n",
            "http_requests_total{route=\"other\",status=\"gone\"} 1\n",
            "http_request_duration_seconds_count{route=\"a\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
