//! The driver's command line; what it does is in the library.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::PossibleValue;
use clap::{Parser, ValueEnum};
use flagstone_bench::soak::plan::Injected;
use flagstone_bench::suite::{SoakWishes, Suite, Wishes};

/// Measures Flagstone beside its peers.
///
/// Builds one binary per allocator, runs the suite's cells in turn under each, and writes JSON, a
/// Markdown page and charts. The last line on standard output holds the suite's figures.
#[derive(Debug, Parser)]
#[command(name = "flagstone-bench", version)]
struct Args {
    /// What to measure.
    #[arg(long, value_enum)]
    suite: Named,
    /// Only these allocators, separated by commas.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only cells whose name contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    cells: Vec<String>,
    /// Rounds, instead of the suite's own number.
    #[arg(long)]
    rounds: Option<usize>,
    /// Folder for the reports [default: bench-report in the target folder].
    #[arg(long)]
    out: Option<PathBuf>,
    /// No further round begins that would not end within this many minutes from the start. A soak
    /// takes so long, divided among its allocators unless they go --abreast.
    #[arg(long, default_value_t = 19.0)]
    minutes: f64,
    /// For a soak: servers built already, one for each of --peers, separated by commas.
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    server: Vec<PathBuf>,
    /// For a soak: a tenth of the load.
    #[arg(long)]
    light: bool,
    /// For a soak: all servers at once, round by round, and each for all of --minutes.
    #[arg(long)]
    abreast: bool,
    /// For a soak: make these errors on purpose, to see that they are found.
    #[arg(long, value_enum, value_delimiter = ',')]
    inject: Vec<NamedError>,
}

#[derive(Clone, Copy, Debug)]
struct Named(Suite);

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Named; Suite::ALL.len()] = {
            let mut all = [Named(Suite::Smoke); Suite::ALL.len()];
            let mut at = 0;
            while at < all.len() {
                all[at] = Named(Suite::ALL[at]);
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

#[derive(Clone, Copy, Debug)]
struct NamedError(Injected);

impl ValueEnum for NamedError {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [NamedError; Injected::ALL.len()] = {
            let [leak, value, kill] = Injected::ALL;
            [NamedError(leak), NamedError(value), NamedError(kill)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()))
    }
}

fn main() -> ExitCode {
    let started = Instant::now();
    let args = Args::parse();
    let wishes = Wishes {
        peers: args.peers,
        cells: args.cells,
        rounds: args.rounds,
        out: args.out,
        budget: Duration::try_from_secs_f64(args.minutes * 60.0).unwrap_or(Duration::MAX),
        started,
        soak: SoakWishes {
            servers: args.server,
            light: args.light,
            abreast: args.abreast,
            inject: args.inject.into_iter().map(|named| named.0).collect(),
        },
    };
    match args.suite.0.run(&wishes) {
        Ok(ended) => {
            println!("{}", ended.last_line);
            if ended.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(reason) => {
            eprintln!("flagstone-bench: {reason}");
            ExitCode::from(2)
        }
    }
}
