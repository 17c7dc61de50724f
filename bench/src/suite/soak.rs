//! `--suite soak`: the reference server under churn and faults for as long as asked, with checks that
//! end the run with a failure; by default Flagstone's build alone, and any others by name.

use std::path::Path;

use super::server::BUILDS;
use super::{CannotRun, Ended, Suite, Wishes, skip};
use crate::driver::build::{Builder, is_installed};
use crate::driver::host::Host;
use crate::peer::FLAGSTONE;
use crate::soak::faults::FAULTS;
use crate::soak::outcome::{Entrant, SoakReport};
use crate::soak::plan::Plan;
use crate::soak::soak;

/// Builds, soaks one after the other, reports.
pub fn run(builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    if !is_installed("redis-benchmark") {
        return Err(CannotRun(String::from("redis-benchmark is not installed (redis-tools)")));
    }
    let folder = wishes.folder(Suite::Soak, builder);
    let mut skipped = Vec::new();
    let mut entrants = Vec::new();
    for build in builds(wishes)? {
        let (name, feature, called) = build;
        let built = match &wishes.soak.server {
            Some(path) => Ok(path.clone()),
            None => {
                println!("building the server with {name}");
                builder.server(feature).map_err(|skipped| skipped.to_string())
            }
        };
        match built
            .and_then(|path| super::server::prove(&path, called).map(|version| (path, version)))
        {
            Ok((path, version)) => entrants.push((name, path, version)),
            Err(reason) => skip(&mut skipped, name, reason),
        }
    }
    if entrants.is_empty() {
        return Err(CannotRun(String::from("the server could not be built or started")));
    }
    let plan = plan(wishes, entrants.len());
    let mut report = SoakReport::new(Host::look(builder.workspace()), &plan);
    report.skipped = skipped;
    let mut written = None;
    for (name, path, version) in entrants {
        println!("soaking the server with {name} for {:.0} s", plan.length.as_secs_f64());
        let outcome = one(&path, &folder.join(name), &plan, name)?;
        report.entrants.push(Entrant { name: name.to_owned(), version, outcome });
        // After each, so that what was found is not lost with the next one.
        let paths = report.write(&folder);
        written = Some(
            paths.map_err(|error| CannotRun(format!("the report cannot be written: {error}")))?,
        );
    }
    print!("{}", report.page());
    for path in written.into_iter().flatten() {
        println!("wrote {}", path.display());
    }
    Ok(Ended { last_line: report.last_line(), failures: report.failures() })
}

fn one(
    path: &Path,
    folder: &Path,
    plan: &Plan,
    name: &str,
) -> Result<crate::soak::outcome::Outcome, CannotRun> {
    let started = std::time::Instant::now();
    let say = |what: &str| println!("{:6.0} s  {name}: {what}", started.elapsed().as_secs_f64());
    soak(path, folder, plan, name == FLAGSTONE, &say)
        .map_err(|error| CannotRun(format!("the soak with {name}: {error}")))
}

/// The builds that are asked for: Flagstone's if none is.
fn builds(wishes: &Wishes) -> Result<Vec<super::server::Build>, CannotRun> {
    let wanted = |name: &str| match wishes.peers.as_slice() {
        [] => name == FLAGSTONE,
        peers => peers.iter().any(|peer| peer == name),
    };
    let builds: Vec<_> = BUILDS.into_iter().filter(|(name, ..)| wanted(name)).collect();
    let known = || BUILDS.map(|(name, ..)| name).join(", ");
    if builds.len() < wishes.peers.len().max(1) {
        return Err(CannotRun(format!("no such build of the server; there are {}", known())));
    }
    if wishes.soak.server.is_some() && builds.len() != 1 {
        return Err(CannotRun(String::from("--server is one build: name it with --peers")));
    }
    Ok(builds)
}

fn plan(wishes: &Wishes, entrants: usize) -> Plan {
    Plan {
        // Building does not count: a soak is as long as it was asked to be.
        length: wishes.budget / u32::try_from(entrants).unwrap_or(1),
        light: wishes.soak.light,
        faults: FAULTS.iter().map(|fault| fault.name).filter(|name| wishes.wants(name)).collect(),
        inject: wishes.soak.inject.clone(),
    }
}
