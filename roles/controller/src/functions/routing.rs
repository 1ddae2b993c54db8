//! Paths and hosts of the accounts' own that lead to functions.
//!
//! An account's paths on the platform's own host are below `/r/OWNER`; an operator assigns whole hosts to accounts. So nobody
//! claims what another one could expect to have. The longest route that matches wins, by whole parts of the path.

use std::collections::{BTreeMap, HashMap};

use parking_lot::RwLock;
use piecework_api::routing::{HostView, RouteQuery, RouteView, SetRoute};
use piecework_model::{AccountId, Code, FunctionName, OwnerName};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Functions, own};
use crate::{
    Answer,
    accounts::{audit, auth::Caller, find},
    codecs,
    failure::{refuse, store},
};

/// Where routes are kept: host and path -> [`Route`].
const ROUTES: &str = "route";
/// Where hosts are kept: host -> account.
const HOSTS: &str = "route_host";

const OF_ONE_ACCOUNT_MAX: usize = 100;
const ALL_MAX: usize = 10_000;
const HOSTS_MAX: usize = 1_000;
const PATH_LENGTH_MAX: usize = 200;
/// Of a path of that length.
const PARTS_MAX: usize = PATH_LENGTH_MAX / 2;
const HOST_LENGTH_MAX: usize = 253;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One route, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    account: AccountId,
    pub(crate) owner: OwnerName,
    pub(crate) function: FunctionName,
    /// Empty: the platform's own.
    host: String,
    /// On the platform's own host it begins with the owner.
    path: String,
    methods: Vec<String>,
}

impl Route {
    fn key(&self) -> String {
        format!("{}{}", self.host, self.path)
    }

    /// Whether it takes requests of this method. What may be read has a head.
    pub(crate) fn takes(&self, method: &str) -> bool {
        let method = if method == "HEAD" { "GET" } else { method };
        self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|taken| taken == method || (taken == "HEAD" && method == "GET"))
    }

    /// As its owner wrote it.
    fn shown_path(&self) -> &str {
        let own = format!("/{}", self.owner);
        match self.host.is_empty() {
            true => self.path.strip_prefix(own.as_str()).unwrap_or(&self.path),
            false => &self.path,
        }
    }
}

#[derive(Default)]
pub(crate) struct Table(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    hosts: BTreeMap<String, AccountId>,
    /// By host, then by path.
    routes: HashMap<String, HashMap<String, Route>>,
}

/// A route that was found for a path.
pub(crate) struct Match {
    pub(crate) route: Route,
    /// How much of the raw path it stands for.
    pub(crate) length: usize,
}

impl Table {
    /// Whether the host of a `Host` header is an account's.
    pub(crate) fn host(&self, header: &str) -> Option<String> {
        let inner = self.0.read();
        if inner.hosts.is_empty() {
            return None;
        }
        let host = bare_host(header);
        inner.hosts.contains_key(&host).then_some(host)
    }

    /// The longest route on the host (empty: the platform's own) for the path, as it was sent.
    pub(crate) fn find(&self, host: &str, raw_path: &str) -> Option<Match> {
        let inner = self.0.read();
        let routes = inner.routes.get(host)?;
        let mut prefixes = prefixes(raw_path);
        while let Some((plain, length)) = prefixes.pop() {
            if let Some(route) = routes.get(&plain) {
                let route = route.clone();
                return Some(Match { route, length });
            }
        }
        None
    }

    fn put(&self, route: Route) {
        let mut inner = self.0.write();
        let routes = inner.routes.entry(route.host.clone()).or_default();
        routes.insert(route.path.clone(), route);
    }

    fn get(&self, host: &str, path: &str) -> Option<Route> {
        self.0.read().routes.get(host)?.get(path).cloned()
    }

    fn all(&self) -> Vec<Route> {
        let inner = self.0.read();
        inner.routes.values().flat_map(HashMap::values).cloned().collect()
    }
}

/// The beginnings of a path by whole parts, shortest first: each with what is encoded without need decoded, and its length as
/// it was sent.
fn prefixes(raw_path: &str) -> Vec<(String, usize)> {
    let mut found = vec![("/".to_owned(), 0)];
    let (mut plain, mut length) = (String::new(), 0);
    for part in raw_path.split('/').skip(1).take(PARTS_MAX) {
        plain.push('/');
        plain.push_str(&unreserved(part));
        length += 1 + part.len();
        // `/` alone is the root, which is there.
        if plain.len() > 1 {
            found.push((plain.clone(), length));
        }
    }
    found
}

/// Decodes only what means the same encoded and not (RFC 3986, 2.3).
fn unreserved(part: &str) -> String {
    let mut plain = String::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let byte = rest
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.map(char::from).filter(|c| is_unreserved(*c)) {
            Some(c) => {
                plain.push(c);
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

fn is_unreserved(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~')
}

/// Of a `Host` header: without port and final dot, in small letters.
fn bare_host(header: &str) -> String {
    let host = match header.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => header,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn malformed<T>(message: impl Into<String>) -> Answer<T> {
    refuse(Code::RouteMalformed, message)
}

/// Refuses with `route.malformed`. A final slash is left out.
fn path_of(text: &str) -> Answer<String> {
    let bare = text.strip_suffix('/').unwrap_or(text);
    if !text.starts_with('/') || bare.len() > PATH_LENGTH_MAX {
        return malformed(format!(
            "a path begins with `/` and has at most {PATH_LENGTH_MAX} characters"
        ));
    }
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(is_unreserved);
    if !bare.is_empty() && !bare[1..].split('/').all(is_part) {
        return malformed(
            "the parts of a path are letters, digits, `-`, `_`, `.` and `~`, and none is empty, `.` or `..`",
        );
    }
    Ok(bare.to_owned())
}

/// Refuses with `route.malformed` what is no name of a host, or is the platform's own.
fn host_of(functions: &Functions, text: &str) -> Answer<String> {
    let host = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > HOST_LENGTH_MAX || !host.contains('.') || !host.split('.').all(is_label) {
        return malformed(format!("`{text}` is not the name of a host, like shop.example.org"));
    }
    let base = functions.ground.base_url.parse::<http::Uri>().unwrap_or_default();
    let own = base.host().unwrap_or_default().to_ascii_lowercase();
    let below = |zone: &str| host == zone || host.ends_with(&format!(".{zone}"));
    if host == own || below(&format!("fn.{own}")) || below("fn.localhost") || host.parse::<std::net::IpAddr>().is_ok() {
        return malformed(format!("`{text}` belongs to the platform itself"));
    }
    Ok(host)
}

fn methods_of(methods: Vec<String>) -> Answer<Vec<String>> {
    let mut upper: Vec<String> = methods.iter().map(|method| method.to_ascii_uppercase()).collect();
    upper.sort();
    upper.dedup();
    match upper.iter().find(|method| !METHODS.contains(&method.as_str())) {
        Some(method) => malformed(format!(
            "`{method}` is not a method that routes know: {}",
            METHODS.join(", ")
        )),
        None => Ok(upper),
    }
}

/// Reads all of them.
pub(crate) async fn start(functions: &Functions) -> Answer<()> {
    let values = &functions.ground.store;
    let most = u32::try_from(HOSTS_MAX).expect("few");
    for (host, bytes) in values.list_values(HOSTS, "", None, most).await.map_err(store)?.items {
        functions
            .routes
            .0
            .write()
            .hosts
            .insert(host, codecs::from_json(&bytes)?);
    }
    let mut after = None;
    loop {
        let page = values.list_values(ROUTES, "", after.as_deref(), 1_000);
        let page = page.await.map_err(store)?;
        for (_, bytes) in page.items {
            functions.routes.put(codecs::from_json(&bytes)?);
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

/// The host and path of a caller's route, as they are kept. Refuses with `route.malformed` and `route.not_allowed`.
fn place(functions: &Functions, caller: &Caller, host: Option<&str>, path: &str) -> Answer<(String, String)> {
    let path = path_of(path)?;
    let Some(host) = host else {
        if path.is_empty() {
            return malformed(format!("give a path below /r/{}, like /api", caller.name));
        }
        return Ok((String::new(), format!("/{}{path}", caller.name)));
    };
    let host = host_of(functions, host)?;
    match functions.routes.0.read().hosts.get(&host) {
        Some(owner) if *owner == caller.account => {}
        Some(_) | None => {
            let message = format!("`{host}` is not assigned to `{}`", caller.name);
            return refuse(Code::RouteNotAllowed, message);
        }
    }
    let path = if path.is_empty() { "/".to_owned() } else { path };
    Ok((host, path))
}

/// Adds a route, or replaces the methods of one to the same function.
///
/// Refuses with `route.malformed`, `route.not_allowed`, `route.taken` and `route.too_many`.
pub(crate) async fn set(functions: &Functions, caller: &Caller, body: SetRoute) -> Answer<RouteView> {
    let methods = methods_of(body.methods)?;
    let live = own(functions, caller, &body.function).await?;
    // From here on no host changes its owner.
    let _turn = functions.route_turn.lock().await;
    let (host, path) = place(functions, caller, body.host.as_deref(), &body.path)?;
    let route = Route {
        account: caller.account,
        owner: live.function.owner_name.clone(),
        function: live.function.name.clone(),
        host,
        path,
        methods,
    };
    match functions.routes.get(&route.host, &route.path) {
        Some(earlier) if earlier.function != route.function || earlier.account != route.account => {
            let message = format!("the route leads to `{}`; remove it first", earlier.function);
            return refuse(Code::RouteTaken, message);
        }
        Some(_) => {}
        None => check_room(functions, caller.account)?,
    }
    codecs::put_json(&functions.ground, ROUTES, &route.key(), &route).await?;
    functions.routes.put(route.clone());
    let view = view(functions, &route);
    let detail = json!({"function": view.function, "methods": view.methods});
    audit::own(
        &functions.accounts,
        caller.account,
        ("route", "set"),
        view.url.as_str(),
        detail,
    )
    .await?;
    Ok(view)
}

fn check_room(functions: &Functions, account: AccountId) -> Answer<()> {
    let all = functions.routes.all();
    let own = all.iter().filter(|route| route.account == account).count();
    if own < OF_ONE_ACCOUNT_MAX && all.len() < ALL_MAX {
        return Ok(());
    }
    let message = format!("an account has at most {OF_ONE_ACCOUNT_MAX} routes, and the server {ALL_MAX}; remove some");
    refuse(Code::RouteTooMany, message)
}

/// Refuses with `route.not_found`.
pub(crate) async fn remove(functions: &Functions, caller: &Caller, query: &RouteQuery) -> Answer<()> {
    let _turn = functions.route_turn.lock().await;
    let (host, path) = place(functions, caller, query.host.as_deref(), &query.path)?;
    let Some(route) = functions.routes.get(&host, &path) else {
        return refuse(Code::RouteNotFound, format!("you have no route `{}`", query.path));
    };
    forget(functions, &route).await?;
    let (url, detail) = (view(functions, &route).url, json!({"function": route.function}));
    audit::own(&functions.accounts, caller.account, ("route", "removed"), url, detail).await
}

async fn forget(functions: &Functions, route: &Route) -> Answer<()> {
    let taken = functions.ground.store.take_value(ROUTES, &route.key()).await;
    taken.map_err(store)?;
    if let Some(routes) = functions.routes.0.write().routes.get_mut(&route.host) {
        routes.remove(&route.path);
    }
    Ok(())
}

/// All routes of a host, whosoever they are.
async fn forget_all(functions: &Functions, host: &str) -> Answer<()> {
    for route in functions.routes.all() {
        if route.host == host {
            forget(functions, &route).await?;
        }
    }
    Ok(())
}

/// Those of an account, by host and path.
pub(crate) fn list(functions: &Functions, account: AccountId) -> Vec<RouteView> {
    let mut routes = functions.routes.all();
    routes.retain(|route| route.account == account);
    routes.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
    routes.iter().map(|route| view(functions, route)).collect()
}

fn view(functions: &Functions, route: &Route) -> RouteView {
    let base = &functions.ground.base_url;
    let scheme = base.split("://").next().unwrap_or("http");
    let url = match route.host.is_empty() {
        true => format!("{base}/r{}", route.path),
        false => format!("{scheme}://{}{}", route.host, route.path),
    };
    RouteView {
        host: (!route.host.is_empty()).then(|| route.host.clone()),
        path: route.shown_path().to_owned(),
        methods: route.methods.clone(),
        function: route.function.to_string(),
        url,
    }
}

/// Gives a host to an account. Refuses with `route.malformed`, `route.taken` and `route.too_many`.
pub(crate) async fn assign(functions: &Functions, caller: &Caller, host: &str, owner: &str) -> Answer<HostView> {
    let host = host_of(functions, host)?;
    let account = find(&functions.accounts, owner).await?;
    let _turn = functions.route_turn.lock().await;
    let (earlier, all) = {
        let inner = functions.routes.0.read();
        (inner.hosts.get(&host).copied(), inner.hosts.len())
    };
    match earlier {
        Some(earlier) if earlier != account => {
            let name = functions.ground.account_name(earlier).await;
            return refuse(
                Code::RouteTaken,
                format!("`{host}` is assigned to `{name}`; take it back first"),
            );
        }
        None if all >= HOSTS_MAX => {
            let message = format!("{HOSTS_MAX} hosts are assigned; take some back");
            return refuse(Code::RouteTooMany, message);
        }
        Some(_) => {}
        // What a crash has left of an earlier owner's.
        None => forget_all(functions, &host).await?,
    }
    codecs::put_json(&functions.ground, HOSTS, &host, &account).await?;
    functions.routes.0.write().hosts.insert(host.clone(), account);
    let owner = functions.ground.account_name(account).await;
    let whose = (Some(caller.account), account);
    let detail = json!({ "owner": owner });
    audit::record(&functions.accounts, whose, ("route", "assigned"), host.as_str(), detail).await?;
    Ok(HostView { host, owner })
}

/// Takes a host back, with its routes. Refuses with `route.not_found`.
pub(crate) async fn unassign(functions: &Functions, caller: &Caller, host: &str) -> Answer<()> {
    let host = bare_host(host);
    let _turn = functions.route_turn.lock().await;
    let Some(account) = functions.routes.0.read().hosts.get(&host).copied() else {
        return refuse(Code::RouteNotFound, format!("`{host}` is not assigned"));
    };
    // The host first: with it the routes are out of reach, also over a crash in between.
    functions.ground.store.take_value(HOSTS, &host).await.map_err(store)?;
    functions.routes.0.write().hosts.remove(&host);
    forget_all(functions, &host).await?;
    let whose = (Some(caller.account), account);
    audit::record(
        &functions.accounts,
        whose,
        ("route", "unassigned"),
        host.as_str(),
        json!({}),
    )
    .await
}

/// Assigned hosts, by name.
pub(crate) async fn hosts(functions: &Functions) -> Vec<HostView> {
    let hosts = functions.routes.0.read().hosts.clone();
    let mut views = Vec::with_capacity(hosts.len());
    for (host, account) in hosts {
        let owner = functions.ground.account_name(account).await;
        views.push(HostView { host, owner });
    }
    views
}

#[cfg(test)]
mod unit {
    use super::*;

    fn route(host: &str, path: &str, function: &str) -> Route {
        Route {
            account: AccountId([1; 20]),
            owner: "ada".parse().expect("a name"),
            function: function.parse().expect("a name"),
            host: host.to_owned(),
            path: path.to_owned(),
            methods: Vec::new(),
        }
    }

    #[test]
    fn the_longest_route_wins_by_whole_parts_however_the_path_is_encoded() {
        let table = Table::default();
        for (path, function) in [("/", "root"), ("/api", "api"), ("/api/orders", "orders")] {
            table.put(route("shop.example.org", path, function));
        }
        for (path, due, rest) in [
            ("/", "root", "/"),
            ("//api", "root", "//api"),
            ("/apis", "root", "/apis"),
            ("/api", "api", ""),
            ("/api/", "api", "/"),
            ("/api/order", "api", "/order"),
            ("/api/orders/7%2F8", "orders", "/7%2F8"),
            ("/api/%6frders/7", "orders", "/7"),
            ("/%61pi%2Forders", "root", "/%61pi%2Forders"),
            ("/api//orders", "api", "//orders"),
            ("/api/%", "api", "/%"),
        ] {
            let found = table.find("shop.example.org", path).expect("a route");
            assert_eq!(
                (found.route.function.as_str(), &path[found.length..]),
                (due, rest),
                "{path}"
            );
        }
        assert!(table.find("", "/api").is_none());
    }

    #[test]
    fn a_very_long_path_is_looked_at_only_as_far_as_a_route_could_reach() {
        assert_eq!(prefixes(&"/a".repeat(50_000)).len(), PARTS_MAX + 1);
    }

    #[test]
    fn a_path_has_whole_plain_parts() {
        for path in ["/", "/api", "/api/", "/a.b/c~d_e-f"] {
            assert!(path_of(path).is_ok(), "{path}");
        }
        let long = format!("/{}", "x".repeat(PATH_LENGTH_MAX));
        for path in [
            "", "api", "/a//b", "/a/../b", "/.", "/a%20b", "/a b", "/{x}", "/*", "//", &long,
        ] {
            let refused = path_of(path).expect_err(path);
            assert_eq!(refused.code, Code::RouteMalformed, "{path}");
        }
    }

    #[test]
    fn a_route_that_may_be_read_has_a_head() {
        let only = |method: &str| Route {
            methods: vec![method.to_owned()],
            ..route("", "/ada/x", "f")
        };
        assert!(only("GET").takes("HEAD") && only("GET").takes("GET") && !only("GET").takes("POST"));
        assert!(only("POST").takes("POST") && !only("POST").takes("HEAD"));
        assert!(route("", "/ada/x", "f").takes("PROPFIND"));
    }
}
