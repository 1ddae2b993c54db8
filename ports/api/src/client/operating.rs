//! What operators and owners arrange: bookings, routes, alerts.

use http::Method;

use super::{Client, ClientError};
use crate::{
    alerts::AlertView,
    bookings::{
        CreateDeposit, CreateWithdrawal, DeclineWithdrawal, DepositView, SettleWithdrawal, WithdrawalView,
        WithdrawalsQuery,
    },
    page::{List, PageQuery},
    routes::{self, fill},
    routing::{AssignHost, HostView, RouteQuery, RouteView, SetRoute},
};

impl Client {
    /// The reference is the idempotency key.
    pub async fn create_deposit(&self, body: &CreateDeposit) -> Result<DepositView, ClientError> {
        self.json(Method::POST, routes::DEPOSITS, Some(body)).await
    }

    pub async fn deposits(&self, query: &PageQuery) -> Result<List<DepositView>, ClientError> {
        self.get(routes::DEPOSITS, query).await
    }

    /// With an idempotency key a repetition is the same withdrawal.
    pub async fn create_withdrawal(
        &self,
        body: &CreateWithdrawal,
        key: Option<&str>,
    ) -> Result<WithdrawalView, ClientError> {
        self.post_once(routes::WITHDRAWALS, body, key).await
    }

    pub async fn withdrawals(&self, query: &WithdrawalsQuery) -> Result<List<WithdrawalView>, ClientError> {
        self.get(routes::WITHDRAWALS, query).await
    }

    pub async fn settle_withdrawal(&self, id: &str, body: &SettleWithdrawal) -> Result<WithdrawalView, ClientError> {
        self.json(Method::POST, &fill(routes::WITHDRAWAL_SETTLE, &[id]), Some(body))
            .await
    }

    pub async fn decline_withdrawal(&self, id: &str, body: &DeclineWithdrawal) -> Result<WithdrawalView, ClientError> {
        self.json(Method::POST, &fill(routes::WITHDRAWAL_DECLINE, &[id]), Some(body))
            .await
    }

    pub async fn routes(&self) -> Result<List<RouteView>, ClientError> {
        self.get(routes::ROUTES, &()).await
    }

    pub async fn set_route(&self, body: &SetRoute) -> Result<RouteView, ClientError> {
        self.json(Method::PUT, routes::ROUTES, Some(body)).await
    }

    pub async fn remove_route(&self, query: &RouteQuery) -> Result<(), ClientError> {
        let request = self.request_to(Method::DELETE, self.query_url(routes::ROUTES, query));
        self.send(request).await.map(drop)
    }

    pub async fn route_hosts(&self) -> Result<List<HostView>, ClientError> {
        self.get(routes::ROUTE_HOSTS, &()).await
    }

    pub async fn assign_host(&self, host: &str, body: &AssignHost) -> Result<HostView, ClientError> {
        self.json(Method::PUT, &fill(routes::ROUTE_HOST, &[host]), Some(body))
            .await
    }

    /// The host's routes go with it.
    pub async fn unassign_host(&self, host: &str) -> Result<(), ClientError> {
        self.nothing(Method::DELETE, &fill(routes::ROUTE_HOST, &[host])).await
    }

    pub async fn alerts(&self) -> Result<List<AlertView>, ClientError> {
        self.get(routes::ALERTS, &()).await
    }

    /// Returns when the channels have taken a test message, or fails with what they said.
    pub async fn test_alerts(&self) -> Result<(), ClientError> {
        self.nothing(Method::POST, routes::ALERTS_TEST).await
    }
}
