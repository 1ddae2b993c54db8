//! Authenticates, admits, routes, schedules, meters and settles; serves the HTTP API.
