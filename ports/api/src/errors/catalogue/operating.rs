//! Codes of what operators and owners arrange: bookings, routes, alerts.

use piecework_model::Code;

use super::{Entry, code};

pub(super) const OPERATING: &[Entry] = &[
    code(
        409,
        Code::AlertNoChannel,
        "the controller has neither a webhook nor a command for alerts",
    ),
    code(
        502,
        Code::AlertUndelivered,
        "the webhook or the command did not take the test message; the message says why",
    ),
    code(
        422,
        Code::ReferenceMalformed,
        "the reference is empty, over 100 characters or contains control characters",
    ),
    code(
        409,
        Code::ReferenceTaken,
        "the reference was already booked with another account or amount",
    ),
    code(
        422,
        Code::RouteMalformed,
        "the path must begin with /, have at most 200 characters and no empty, dotted or encoded parts; or the host or a method is invalid",
    ),
    code(
        403,
        Code::RouteNotAllowed,
        "the host is not yours: an operator assigns it with `piecework routes assign`",
    ),
    code(
        404,
        Code::RouteNotFound,
        "you have no such route, or the host is not assigned",
    ),
    code(
        409,
        Code::RouteTaken,
        "the route leads to another function, or the host belongs to another account",
    ),
    code(
        409,
        Code::RouteTooMany,
        "the account has 100 routes, or the server has 10,000 routes or 1,000 assigned hosts; remove some",
    ),
    code(
        503,
        Code::TransactionQueued,
        "too few peers answer; the change is queued and becomes final when they do. Repeat the request to check: it is made only once",
    ),
    code(
        409,
        Code::WithdrawalDecided,
        "the withdrawal was already settled or declined in another way",
    ),
    code(404, Code::WithdrawalNotFound, "there is no withdrawal with this id"),
    code(
        409,
        Code::WithdrawalTooMany,
        "the account has 10 withdrawals that wait for a decision",
    ),
];
