//! `flagstone serve`: settings, runtime, server, signals.

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flagstone::admin;
use flagstone::runtime::Builder;
use flagstone::telemetry::prometheus::Exporter;

use super::complain;
use crate::allocator;
use crate::metrics;
use crate::number::{human_bytes, parse_bytes};
use crate::server::{BindError, Ended, Server};
use crate::settings::Settings;
use crate::shared::Shared;

/// Time that the runtime gets to end after the last connection has.
const RUNTIME_GRACE: Duration = Duration::from_secs(2);

/// What can be said on the command line; it comes before the file.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Where to serve RESP clients; port 0 takes any free one [default: 127.0.0.1:7379]
    #[arg(long, value_name = "ADDR")]
    resp: Option<SocketAddr>,
    /// Where to serve /metrics, /stats.json and /healthz [default: 127.0.0.1:9600]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Let --admin be an address that other machines can reach; it asks for no password
    #[arg(long)]
    admin_allow_remote: bool,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers)]
    workers: Option<usize>,
    /// Memory in use from which on writes are refused, such as 512mb; 0 for no limit [default: 0]
    #[arg(long, value_name = "BYTES", value_parser = bytes, allow_hyphen_values = true)]
    maxmemory: Option<u64>,
    /// A TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Flags {
    /// The settings of file and flags together.
    fn settings(self) -> Result<Settings, Box<dyn Error>> {
        let mut settings = match &self.config {
            Some(path) => Settings::from_file(path)?,
            None => Settings::default(),
        };
        settings.resp = self.resp.unwrap_or(settings.resp);
        settings.admin = self.admin.unwrap_or(settings.admin);
        settings.admin_allow_remote |= self.admin_allow_remote;
        settings.workers = self.workers.or(settings.workers);
        settings.maxmemory = self.maxmemory.unwrap_or(settings.maxmemory);
        if let Err(error) = settings.check() {
            // Flags were checked one by one: what is out of range came from the file.
            return Err(match &self.config {
                Some(path) => format!("{}: {error}", path.display()).into(),
                None => error.into(),
            });
        }
        Ok(settings)
    }
}

/// Serves until a signal or a client ends it.
pub(super) fn run(flags: Flags) -> Result<(), Box<dyn Error>> {
    let settings = flags.settings()?;
    let shutdown_timeout = settings.shutdown_timeout;
    let shared = Shared::new(settings);
    let runtime = Builder::new_multi_thread()
        .worker_threads(shared.workers())
        .thread_name("flagstone")
        .admin(admin_config(&shared))
        .build()?;
    let admin = runtime.admin_addr().unwrap_or(shared.settings.admin);
    let ended = runtime.block_on(async {
        // As a task: the accept loop belongs on a worker, like the connections.
        let serving = tokio::spawn(serve(Arc::clone(&shared), admin));
        serving.await.map_err(|panic| -> Box<dyn Error> { panic.into() })?.map_err(Box::from)
    });
    let ended: Ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            runtime.shutdown_timeout(RUNTIME_GRACE);
            return Err(error);
        }
    };
    if ended.forced > 0 {
        complain(&format!(
            "{} connections had not taken their replies after {} s and were closed",
            ended.forced,
            shutdown_timeout.as_secs()
        ));
    }
    runtime.shutdown_timeout(RUNTIME_GRACE);
    Ok(())
}

async fn serve(shared: Arc<Shared>, admin: SocketAddr) -> Result<Ended, BindError> {
    // Before the addresses are printed: from then on somebody may send a signal.
    let stop = stop_signal();
    let server = Server::bind(Arc::clone(&shared)).await?;
    announce(&shared, server.local_addr(), admin);
    Ok(server.run(stop).await)
}

fn admin_config(shared: &Arc<Shared>) -> admin::Config {
    let exporter = Exporter::install().unwrap_or_else(|error| error.into_local());
    let section = Arc::clone(shared);
    let health = Arc::clone(shared);
    admin::Config::new(shared.settings.admin)
        .allow_remote(shared.settings.admin_allow_remote)
        .exporter(exporter)
        .section("server", move || metrics::section(&section))
        .health(move || match health.resp_addr.get() {
            Some(_) => Ok(()),
            None => Err("RESP is not served yet".to_owned()),
        })
}

fn announce(shared: &Shared, resp: SocketAddr, admin: SocketAddr) {
    let allocator = match (shared.allocator.name, shared.allocator.verified) {
        (name, true) => format!("{name}, verified"),
        (name, false) if name == allocator::BUILT_WITH => format!("{name}, as built"),
        (name, false) => format!("{name}, though built with {}", allocator::BUILT_WITH),
    };
    let limit = match shared.settings.maxmemory {
        0 => "no memory limit".to_owned(),
        bytes => format!("memory limit {}", human_bytes(bytes)),
    };
    // Who closes our standard output does not want to know.
    let _ = write!(
        std::io::stdout(),
        "flagstone {} | {} workers | allocator: {allocator} | {limit}\n\
         RESP       {resp}\n\
         metrics    http://{admin}/metrics\n\
         dashboard  http://{admin}/\n",
        env!("CARGO_PKG_VERSION"),
        shared.workers(),
    );
    if !resp.ip().to_canonical().is_loopback() {
        complain(&format!("{resp} can be reached from other machines and asks for no password"));
    }
}

/// Completes when the process is asked to end. The handlers are in place when this returns.
fn stop_signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let handlers = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        match handlers {
            [Ok(mut interrupt), Ok(mut terminate)] => {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            }
            // Without handlers the signals end the process at once, as they do by default.
            _ => std::future::pending().await,
        }
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "not a size such as 1073741824 or 512mb".to_owned())
}

fn workers(text: &str) -> Result<usize, String> {
    let n: usize = text.parse().map_err(|_| "not a number of threads".to_owned())?;
    if (1..=1024).contains(&n) { Ok(n) } else { Err("not between 1 and 1024".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            resp: None,
            admin: None,
            admin_allow_remote: false,
            workers: None,
            maxmemory: None,
            config: None,
        }
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_the_defaults() {
        let path = std::env::temp_dir().join(format!("flagstone-{}.toml", std::process::id()));
        std::fs::write(&path, "workers = 3\nmaxmemory = \"1mb\"\n").unwrap();
        let given = Flags { maxmemory: Some(7), config: Some(path.clone()), ..flags() };
        let settings = given.settings().unwrap();
        assert_eq!((settings.workers, settings.maxmemory), (Some(3), 7));
        assert_eq!(settings.resp, Settings::default().resp);
        std::fs::write(&path, "shards = 3\n").unwrap();
        let error = Flags { config: Some(path.clone()), ..flags() }.settings().unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn numbers_on_the_command_line() {
        assert_eq!(bytes("512mb"), Ok(512 << 20));
        assert!(bytes("-1").is_err());
        assert_eq!(workers("4"), Ok(4));
        assert!(workers("0").is_err());
        assert!(workers("many").is_err());
    }
}
