//! `/routes`: paths and hosts of an account's own that lead to its functions.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// `PUT /routes`: adds a route, or replaces the methods of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRoute {
    /// A host that an operator assigned to the caller. Without one, the path is below `/r/OWNER` on the platform's own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "shop.example.org")]
    pub host: Option<String>,
    /// Whole parts of a path; the longest of the routes that match wins.
    #[schema(example = "/api/orders")]
    pub path: String,
    /// Methods that the route takes; all if empty. Others get 405.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Name or id of the caller's function.
    pub function: String,
}

/// `DELETE /routes`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RouteQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub path: String,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    pub path: String,
    pub methods: Vec<String>,
    pub function: String,
    pub url: String,
}

/// `PUT /routes/hosts/{host}`, operators only.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignHost {
    /// Name or id of the account whose routes the host takes.
    pub owner: String,
}

/// An assigned host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    pub host: String,
    pub owner: String,
}
