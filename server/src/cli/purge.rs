//! `flagstone purge`: asks a running server to give its free memory back to the system, and prints
//! what went and what could not be reached.

use std::error::Error;
use std::net::SocketAddr;

use hyper::Method;

use super::ask::ask;
use super::stats;
use crate::settings::Settings;

/// What can be said on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// The server's admin address [default: 127.0.0.1:9600]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Print the JSON as the server sends it
    #[arg(long)]
    json: bool,
}

/// Asks the server and prints.
pub(super) fn run(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let admin = flags.admin.unwrap_or(Settings::default().admin);
    let body = ask(admin, Method::POST, "/purge")?;
    stats::print(admin, "/purge", &body, flags.json)
}
