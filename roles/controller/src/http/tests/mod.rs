//! The HTTP API on a whole controller in one process.

mod pages;
mod portal;
mod private;
mod routing;
mod unsaved;

#[test]
fn each_operation_has_an_id_of_its_own() {
    let document = super::openapi_document(utoipa_axum::router::OpenApiRouter::new());
    let document = serde_json::to_value(document).expect("plain data");
    let mut seen = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(seen.insert(id.to_owned()), "{method} {path} has the id {id} of another");
        }
    }
    assert!(
        seen.contains("get_functions_id_versions") && seen.len() > 50,
        "{seen:?}"
    );
}
