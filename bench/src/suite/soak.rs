//! `--suite soak`: the reference server under churn and faults for as long as asked, with checks that
//! end the run with a failure; by default Flagstone's build alone, and any others by name, one after the
//! other or all at once.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use super::server::BUILDS;
use super::{CannotRun, Ended, Suite, Wishes, skip};
use crate::driver::build::{Builder, is_installed};
use crate::driver::host::Host;
use crate::peer::FLAGSTONE;
use crate::soak::abreast::Seat;
use crate::soak::faults::FAULTS;
use crate::soak::outcome::{Entrant, Outcome, SoakReport};
use crate::soak::plan::Plan;
use crate::soak::soak;

/// A server that is built and proven.
struct Ready {
    name: &'static str,
    path: PathBuf,
    version: String,
}

/// Builds, soaks, reports.
pub fn run(builder: &Builder, wishes: &Wishes) -> Result<Ended, CannotRun> {
    if !is_installed("redis-benchmark") {
        return Err(CannotRun(String::from("redis-benchmark is not installed (redis-tools)")));
    }
    let folder = wishes.folder(Suite::Soak, builder);
    let mut skipped = Vec::new();
    let mut ready = Vec::new();
    for (index, (name, feature, called)) in builds(wishes)?.into_iter().enumerate() {
        let built = match wishes.soak.servers.get(index) {
            Some(path) => Ok(path.clone()),
            None => {
                println!("building the server with {name}");
                builder.server(feature).map_err(|skipped| skipped.to_string())
            }
        };
        match built
            .and_then(|path| super::server::prove(&path, called).map(|version| (path, version)))
        {
            Ok((path, version)) => ready.push(Ready { name, path, version }),
            Err(reason) => skip(&mut skipped, name, reason),
        }
    }
    if ready.is_empty() {
        return Err(CannotRun(String::from("the server could not be built or started")));
    }
    let plan = plan(wishes, ready.len() as u32);
    let mut report = SoakReport::new(Host::look(builder.workspace()), &plan);
    report.skipped = skipped;
    let mut broken = Vec::new();
    for group in ready.chunks(plan.at_once as usize) {
        for (Ready { name, version, .. }, outcome) in
            group.iter().zip(at_once(group, &folder, &plan))
        {
            let (name, version) = ((*name).to_owned(), version.clone());
            match outcome {
                Ok(outcome) => report.entrants.push(Entrant { name, version, outcome }),
                Err(error) => broken.push(format!("the soak with {name}: {error}")),
            }
        }
        // After each, so that what was found is not lost with the next one.
        write(&report, &folder)?;
    }
    print!("{}", report.page());
    for path in write(&report, &folder)? {
        println!("wrote {}", path.display());
    }
    if !broken.is_empty() {
        return Err(CannotRun(broken.join("; ")));
    }
    Ok(Ended { last_line: report.last_line(), failures: report.failures() })
}

fn write(report: &SoakReport, folder: &Path) -> Result<[PathBuf; 2], CannotRun> {
    let paths = report.write(folder);
    paths.map_err(|error| CannotRun(format!("the report cannot be written: {error}")))
}

/// Soaks all servers of a group at once. In the order of the group.
fn at_once(group: &[Ready], folder: &Path, plan: &Plan) -> Vec<io::Result<Outcome>> {
    let started = Instant::now();
    thread::scope(|scope| {
        let soaks: Vec<_> = group
            .iter()
            .zip(Seat::row(group.len() as u32))
            .map(|(Ready { name, path, .. }, seat)| {
                let seconds = plan.length.as_secs_f64();
                println!("soaking the server with {name} for {seconds:.0} s");
                let say = move |what: &str| {
                    println!("{:6.0} s  {name}: {what}", started.elapsed().as_secs_f64());
                };
                let folder = folder.join(name);
                scope.spawn(move || soak(path, &folder, plan, *name == FLAGSTONE, seat, &say))
            })
            .collect();
        let lost = |_| Err(io::Error::other("it panicked"));
        soaks.into_iter().map(|soak| soak.join().unwrap_or_else(lost)).collect()
    })
}

/// The builds that are asked for, in the order asked: Flagstone's if none is.
fn builds(wishes: &Wishes) -> Result<Vec<super::server::Build>, CannotRun> {
    let named = |name: &str| {
        BUILDS.into_iter().find(|(known, ..)| *known == name).ok_or_else(|| {
            let known = BUILDS.map(|(name, ..)| name).join(", ");
            CannotRun(format!("no build `{name}` of the server; there are {known}"))
        })
    };
    let builds = match wishes.peers.as_slice() {
        [] => vec![named(FLAGSTONE)?],
        peers => peers.iter().map(|peer| named(peer)).collect::<Result<_, _>>()?,
    };
    let given = wishes.soak.servers.len();
    if given != 0 && given != builds.len() {
        return Err(CannotRun(format!("{given} servers for {} allocators", builds.len())));
    }
    Ok(builds)
}

fn plan(wishes: &Wishes, entrants: u32) -> Plan {
    let at_once = if wishes.soak.abreast { entrants } else { 1 };
    Plan {
        // Building does not count: a soak is as long as it was asked to be.
        length: wishes.budget / (entrants / at_once),
        light: wishes.soak.light,
        at_once,
        faults: FAULTS.iter().map(|fault| fault.name).filter(|name| wishes.wants(name)).collect(),
        inject: wishes.soak.inject.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::SoakWishes;
    use std::time::Duration;

    fn wishes(peers: &[&str], servers: usize) -> Wishes {
        Wishes {
            peers: peers.iter().map(ToString::to_string).collect(),
            cells: vec![String::from("memory")],
            rounds: None,
            out: None,
            budget: Duration::from_secs(60),
            started: std::time::Instant::now(),
            soak: SoakWishes { servers: vec!["x".into(); servers], ..SoakWishes::default() },
        }
    }

    #[test]
    fn servers_go_with_their_allocators() {
        let names = |wishes: &Wishes| {
            let builds = builds(wishes).map_err(|error| error.to_string())?;
            Ok::<_, String>(builds.iter().map(|(name, ..)| *name).collect::<Vec<_>>())
        };
        assert_eq!(names(&wishes(&[], 0)).unwrap(), ["flagstone"]);
        assert_eq!(
            names(&wishes(&["jemalloc", "flagstone"], 2)).unwrap(),
            ["jemalloc", "flagstone"]
        );
        assert!(names(&wishes(&["dlmalloc"], 0)).unwrap_err().contains("there are flagstone,"));
        assert!(names(&wishes(&["mimalloc"], 2)).unwrap_err().contains("2 servers for 1"));
    }

    #[test]
    fn the_time_is_divided_and_faults_are_picked_by_name() {
        let plan = plan(&wishes(&["a", "b"], 0), 2);
        assert_eq!(plan.length, Duration::from_secs(30));
        assert_eq!((plan.faults, plan.at_once), (vec!["memory-cap"], 1));
        let mut wishes = wishes(&["a", "b"], 0);
        wishes.soak.abreast = true;
        let plan = super::plan(&wishes, 2);
        assert_eq!((plan.length, plan.at_once), (Duration::from_secs(60), 2));
    }
}
