//! `piecework routes`: paths and hosts of one's own that lead to functions.

use piecework_api::routing::{AssignHost, RouteQuery, RouteView, SetRoute};

use crate::{failure::Failure, session, show};

/// List your routes, set or remove one; or assign hosts to accounts (operators)
#[derive(Debug, clap::Args)]
pub struct Routes {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List your routes
    List,
    /// Lead requests for a path to one of your functions; of several routes that match, the longest wins
    Set {
        /// Path: below /r/YOUR-NAME on the server, or on --host
        path: String,
        /// Name or id of the function
        function: String,
        /// Host that an operator assigned to you
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Method that the route takes, like GET; may be repeated [default: all]
        #[arg(long, value_name = "METHOD")]
        method: Vec<String>,
    },
    /// Remove a route
    Remove {
        /// Path of the route
        path: String,
        /// Host of the route
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
    },
    /// List the hosts that are assigned to accounts (operators only)
    Hosts,
    /// Assign a host to an account, which may then set routes on it (operators only)
    Assign {
        /// Host, like shop.example.org; its DNS and certificate are up to you
        host: String,
        /// Account
        name: String,
    },
    /// Take a host back, with its routes (operators only)
    Unassign {
        /// Host
        host: String,
    },
}

impl Routes {
    pub async fn run(self, json: bool) -> Result<(), Failure> {
        let client = session::connect()?;
        match self.action.unwrap_or(Action::List) {
            Action::List => {
                let list = client.routes().await?;
                match json {
                    true => show::json(&list),
                    false => table(&list.items),
                }
            }
            Action::Set {
                path,
                function,
                host,
                method,
            } => {
                let body = SetRoute {
                    host,
                    path,
                    methods: method,
                    function,
                };
                let view = client.set_route(&body).await?;
                match json {
                    true => show::json(&view),
                    false => show::text(&format!("{} leads to {}\n", view.url, view.function)),
                }
            }
            Action::Remove { path, host } => {
                client
                    .remove_route(&RouteQuery {
                        host,
                        path: path.clone(),
                    })
                    .await?;
                told(json, &format!("removed {path}\n"))
            }
            Action::Hosts => {
                let list = client.route_hosts().await?;
                if json {
                    return show::json(&list);
                }
                let rows = list.items.into_iter().map(|host| [host.host, host.owner]);
                show::table(["HOST", "ACCOUNT"], rows.collect(), "no host is assigned")
            }
            Action::Assign { host, name } => {
                let view = client.assign_host(&host, &AssignHost { owner: name }).await?;
                match json {
                    true => show::json(&view),
                    false => show::text(&format!("{} belongs to {}\n", view.host, view.owner)),
                }
            }
            Action::Unassign { host } => {
                client.unassign_host(&host).await?;
                told(json, &format!("took {host} back\n"))
            }
        }
    }
}

fn told(json: bool, text: &str) -> Result<(), Failure> {
    match json {
        true => Ok(()),
        false => show::text(text),
    }
}

fn table(views: &[RouteView]) -> Result<(), Failure> {
    let rows = views.iter().map(|view| {
        let methods = match view.methods.is_empty() {
            true => "all".to_owned(),
            false => view.methods.join(" "),
        };
        [view.url.clone(), methods, view.function.clone()]
    });
    show::table(
        ["URL", "METHODS", "FUNCTION"],
        rows.collect(),
        "no routes; add one with `piecework routes set /PATH FUNCTION`",
    )
}
