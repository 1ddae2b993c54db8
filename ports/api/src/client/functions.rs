//! Functions and what belongs to them: versions, traffic, triggers, budgets.

use bytes::Bytes;
use http::Method;
use piecework_model::Digest;

use super::{Client, ClientError};
use crate::{
    build_logs::{BuildLogView, FailedDeploysQuery},
    functions::{
        CodeQuery, CodeView, CreateFunction, FunctionView, FunctionsQuery, PartsQuery, PartsView, QuoteView, Rollback,
        SetBudget, SetTraffic, TrafficView, UpdateFunction, VersionView,
    },
    jobs::{FunctionLogsItem, FunctionLogsQuery},
    page::{List, PageQuery},
    results::SetResults,
    routes::{self, fill},
    triggers::{SetTrigger, TriggerView},
};

impl Client {
    pub async fn create_function(&self, body: &CreateFunction) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, routes::FUNCTIONS, Some(body)).await
    }

    /// Which of these parts of an image's layers have to be uploaded.
    pub async fn missing_parts(&self, parts: Vec<Digest>) -> Result<PartsView, ClientError> {
        self.json(Method::POST, routes::IMAGE_PARTS, Some(&PartsQuery { parts }))
            .await
    }

    /// May be repeated.
    pub async fn upload_part(&self, digest: Digest, part: Bytes) -> Result<(), ClientError> {
        let path = fill(routes::IMAGE_PART, &[&digest.to_string()]);
        self.send(self.request(Method::PUT, &path).body(part)).await.map(drop)
    }

    pub async fn functions(&self, query: &FunctionsQuery) -> Result<List<FunctionView>, ClientError> {
        self.get(routes::FUNCTIONS, query).await
    }

    pub async fn function(&self, id: &str) -> Result<FunctionView, ClientError> {
        self.get(&fill(routes::FUNCTION, &[id]), &()).await
    }

    pub async fn update_function(&self, id: &str, body: &UpdateFunction) -> Result<FunctionView, ClientError> {
        self.json(Method::PUT, &fill(routes::FUNCTION, &[id]), Some(body)).await
    }

    pub async fn delete_function(&self, id: &str, for_good: bool) -> Result<(), ClientError> {
        let path = fill(routes::FUNCTION, &[id]);
        let query = if for_good { "?for_good=true" } else { "" };
        self.nothing(Method::DELETE, &format!("{path}{query}")).await
    }

    pub async fn versions(&self, id: &str, query: &PageQuery) -> Result<List<VersionView>, ClientError> {
        self.get(&fill(routes::FUNCTION_VERSIONS, &[id]), query).await
    }

    pub async fn build_log(&self, id: &str, version: u32) -> Result<BuildLogView, ClientError> {
        let path = fill(routes::FUNCTION_BUILD_LOG, &[id, &version.to_string()]);
        self.get(&path, &()).await
    }

    /// Of one function, or of all of one's own; newest first.
    pub async fn failed_deploys(&self, query: &FailedDeploysQuery) -> Result<List<BuildLogView>, ClientError> {
        self.get(routes::FAILED_DEPLOYS, query).await
    }

    /// Of the live version if none is named.
    pub async fn code(&self, id: &str, query: &CodeQuery) -> Result<CodeView, ClientError> {
        self.get(&fill(routes::FUNCTION_CODE, &[id]), query).await
    }

    /// To the version before the live one if none is named.
    pub async fn rollback(&self, id: &str, version: Option<u32>) -> Result<FunctionView, ClientError> {
        self.json(
            Method::POST,
            &fill(routes::FUNCTION_ROLLBACK, &[id]),
            Some(&Rollback { version }),
        )
        .await
    }

    pub async fn traffic(&self, id: &str) -> Result<TrafficView, ClientError> {
        self.get(&fill(routes::FUNCTION_TRAFFIC, &[id]), &()).await
    }

    pub async fn set_traffic(&self, id: &str, body: &SetTraffic) -> Result<TrafficView, ClientError> {
        self.json(Method::PUT, &fill(routes::FUNCTION_TRAFFIC, &[id]), Some(body))
            .await
    }

    /// All calls to the live version.
    pub async fn end_traffic(&self, id: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &fill(routes::FUNCTION_TRAFFIC, &[id]))
            .await
    }

    /// Those of one function, or of all of one's own.
    pub async fn triggers(&self, function: Option<&str>) -> Result<List<TriggerView>, ClientError> {
        match function {
            Some(id) => self.get(&fill(routes::FUNCTION_TRIGGERS, &[id]), &()).await,
            None => self.get(routes::TRIGGERS, &()).await,
        }
    }

    pub async fn set_trigger(&self, id: &str, name: &str, body: &SetTrigger) -> Result<TriggerView, ClientError> {
        let path = fill(routes::FUNCTION_TRIGGER, &[id, name]);
        self.json(Method::PUT, &path, Some(body)).await
    }

    pub async fn remove_trigger(&self, id: &str, name: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &fill(routes::FUNCTION_TRIGGER, &[id, name]))
            .await
    }

    pub async fn set_budget(&self, id: &str, budget_ucr: u64) -> Result<FunctionView, ClientError> {
        let body = SetBudget { budget_ucr };
        self.json(Method::PUT, &fill(routes::FUNCTION_BUDGET, &[id]), Some(&body))
            .await
    }

    /// Replaces the setting as a whole.
    pub async fn set_results(&self, id: &str, body: &SetResults) -> Result<FunctionView, ClientError> {
        self.json(Method::PUT, &fill(routes::FUNCTION_RESULTS, &[id]), Some(body))
            .await
    }

    /// Ends the quarantine of a function's versions.
    pub async fn release(&self, id: &str) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &fill(routes::FUNCTION_RELEASE, &[id]), None::<&()>)
            .await
    }

    /// Stops a function: it takes no calls.
    pub async fn stop(&self, id: &str) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &fill(routes::FUNCTION_STOP, &[id]), None::<&()>)
            .await
    }

    /// Lets a stopped function take calls again.
    pub async fn start(&self, id: &str) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &fill(routes::FUNCTION_START, &[id]), None::<&()>)
            .await
    }

    /// Restores a deleted function, by its id or former name.
    pub async fn restore(&self, id: &str) -> Result<FunctionView, ClientError> {
        self.json(Method::POST, &fill(routes::FUNCTION_RESTORE, &[id]), None::<&()>)
            .await
    }

    pub async fn quote(&self, id: &str) -> Result<QuoteView, ClientError> {
        self.get(&fill(routes::FUNCTION_QUOTE, &[id]), &()).await
    }

    /// With `wait_ms` it returns as soon as there is something.
    pub async fn function_logs(
        &self,
        id: &str,
        query: &FunctionLogsQuery,
    ) -> Result<List<FunctionLogsItem>, ClientError> {
        self.get(&fill(routes::FUNCTION_LOGS, &[id]), query).await
    }
}
