//! A private function's URL says nothing that one without a function does not say.

use axum::http::{HeaderMap, Method, Request, header};
use piecework_model::Code;
use serde_json::json;

use crate::doubles::{answer::Answer, machine::Machine};

async fn preflight(machine: &Machine, path: &str, origin: &str) -> Answer {
    let request = Request::builder()
        .method(Method::OPTIONS)
        .uri(path)
        .header(header::ORIGIN, origin)
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization");
    machine.send(request, None).await
}

/// Without those that are of the request alone.
fn told(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    headers.remove(header::DATE);
    headers
}

#[tokio::test]
async fn nobody_sees_by_cors_that_a_private_function_exists() {
    let machine = Machine::start().await;
    let ada = machine.person("ada", 5).await;
    let cors = json!({"cors": {"origins": ["https://a.example"], "max_age_s": 77}});
    machine.deploy_with("hidden", "return 1", cors.clone()).await.ok();
    machine.deploy("plain", "return 1").await;
    let origin = "https://a.example";
    let (hidden, plain, none) = ("/fn/operator/hidden", "/fn/operator/plain", "/fn/operator/none");
    for origin in [origin, "https://b.example"] {
        let nowhere = preflight(&machine, none, origin).await;
        assert_eq!(nowhere.status, 204);
        for path in [hidden, plain] {
            let answer = preflight(&machine, path, origin).await;
            assert_eq!(
                (answer.status, told(&answer)),
                (nowhere.status, told(&nowhere)),
                "{path} {origin}"
            );
        }
    }
    for token in [None, Some(&ada)] {
        let call = async |path: &str| {
            let mut request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(header::ORIGIN, origin);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            machine.send(request, Some(json!(1))).await
        };
        let nowhere = call(none).await;
        for path in [hidden, plain] {
            let answer = call(path).await;
            assert_eq!(answer.status, nowhere.status);
            assert_eq!(answer.body["error"]["code"], nowhere.body["error"]["code"]);
            let names = |answer: &Answer| told(answer).keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&answer), names(&nowhere), "{path}");
            assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
        }
    }

    // Its owner's page gets past the preflight and reads the answer.
    let own = machine.request(Method::POST, hidden).header(header::ORIGIN, origin);
    let answer = machine.send(own, Some(json!(1))).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], origin);
    answer.ok();
    let public = json!({"public": true, "cors": cors["cors"]});
    machine.deploy_with("open", "return 1", public).await.ok();
    let answer = preflight(&machine, "/fn/operator/open", origin).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_MAX_AGE], "77");
    let nobody = Request::builder().method(Method::POST).uri(hidden);
    machine
        .send(nobody, Some(json!(1)))
        .await
        .refused(401, Code::AuthMissingToken);
}
