//! The `FLAGSTONE_*` environment variables that the library reads when it is loaded.
//!
//! Owns their names, defaults and the complaint about a bad value: one line on standard error, and the
//! default is used. `docs/preload.md` has the table for users.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::metrics::Place;
use crate::scavenger::Scavenger;

/// What a program asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `FLAGSTONE_STATS`: print a table at exit.
    pub(crate) stats: bool,
    /// `FLAGSTONE_METRICS`: where to serve metrics.
    pub(crate) metrics: Option<Place>,
    /// `FLAGSTONE_SCAVENGER`: whether a thread returns memory.
    pub(crate) scavenger: Scavenger,
    /// `FLAGSTONE_DECAY_MILLIS`: how long free pages stay populated.
    pub(crate) decay: Option<Duration>,
    /// `FLAGSTONE_VERIFY`: the file to which the proof is appended.
    pub(crate) verify: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment of the process.
    pub(crate) fn from_env() -> Self {
        Self::read(|name| env::var_os(name), complain)
    }

    fn read(get: impl Fn(&str) -> Option<OsString>, complain: impl Fn(&str, &OsStr, &str)) -> Self {
        // An empty value is as good as none, as usual in scripts.
        let given = |name: &str| get(name).filter(|value| !value.is_empty());
        let parsed = |name: &str, wanted: &str, parse: &dyn Fn(&str) -> bool| {
            if let Some(value) = given(name)
                && !value.to_str().is_some_and(parse)
            {
                complain(name, &value, wanted);
            }
        };
        let mut settings = Self::default();
        let stats = std::cell::Cell::new(false);
        parsed("FLAGSTONE_STATS", "0 or 1", &|value| {
            stats.set(value == "1");
            matches!(value, "0" | "1")
        });
        let metrics = std::cell::RefCell::new(None);
        parsed("FLAGSTONE_METRICS", "a loopback address with a port, nor a path", &|value| {
            *metrics.borrow_mut() = Place::parse(value);
            metrics.borrow().is_some()
        });
        let scavenger = std::cell::Cell::new(Scavenger::Auto);
        parsed("FLAGSTONE_SCAVENGER", "auto or off", &|value| {
            scavenger.set(if value == "off" { Scavenger::Off } else { Scavenger::Auto });
            matches!(value, "auto" | "off")
        });
        let decay = std::cell::Cell::new(None);
        parsed("FLAGSTONE_DECAY_MILLIS", "a number of milliseconds", &|value| {
            decay.set(value.parse().ok().map(Duration::from_millis));
            decay.get().is_some()
        });
        settings.stats = stats.get();
        settings.metrics = metrics.into_inner();
        settings.scavenger = scavenger.get();
        settings.decay = decay.get();
        settings.verify = given("FLAGSTONE_VERIFY").map(PathBuf::from);
        settings
    }
}

/// Names of the variables in an environment whose values are of no use.
#[cfg(not(flagstone_exported))]
pub fn complaints_about(get: impl Fn(&str) -> Option<OsString>) -> Vec<String> {
    let complaints = std::cell::RefCell::new(Vec::new());
    Settings::read(get, |name, _, _| complaints.borrow_mut().push(name.to_owned()));
    complaints.into_inner()
}

fn complain(name: &str, value: &OsStr, wanted: &str) {
    let _ = writeln!(
        std::io::stderr(),
        "flagstone: {name}={} is not {wanted}; the default is used",
        value.to_string_lossy().escape_debug()
    );
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn read(given: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let complaints = RefCell::new(Vec::new());
        let get = |name: &str| {
            given.iter().find(|(given, _)| *given == name).map(|(_, value)| OsString::from(value))
        };
        let settings = Settings::read(get, |name, _, _| complaints.borrow_mut().push(name.into()));
        (settings, complaints.into_inner())
    }

    #[test]
    fn nothing_given_is_the_default_and_no_complaint() {
        assert_eq!(read(&[]), (Settings::default(), vec![]));
        assert_eq!(read(&[("FLAGSTONE_STATS", "")]), (Settings::default(), vec![]));
    }

    #[test]
    fn what_is_given_is_read() {
        let (settings, complaints) = read(&[
            ("FLAGSTONE_STATS", "1"),
            ("FLAGSTONE_METRICS", "/tmp/x.%p"),
            ("FLAGSTONE_SCAVENGER", "off"),
            ("FLAGSTONE_DECAY_MILLIS", "250"),
            ("FLAGSTONE_VERIFY", "/tmp/proof"),
        ]);
        assert!(settings.stats && complaints.is_empty());
        assert_eq!(settings.metrics, Place::parse("/tmp/x.%p"));
        assert_eq!(settings.scavenger, Scavenger::Off);
        assert_eq!(settings.decay, Some(Duration::from_millis(250)));
        assert_eq!(settings.verify.as_deref(), Some("/tmp/proof".as_ref()));
    }

    #[test]
    fn a_bad_value_is_told_once_and_the_default_used() {
        for (name, value) in [
            ("FLAGSTONE_STATS", "yes"),
            ("FLAGSTONE_METRICS", "9600"),
            ("FLAGSTONE_METRICS", "0.0.0.0:9600"),
            ("FLAGSTONE_SCAVENGER", "OFF"),
            ("FLAGSTONE_DECAY_MILLIS", "-1"),
            ("FLAGSTONE_DECAY_MILLIS", "1s"),
        ] {
            let (settings, complaints) = read(&[(name, value)]);
            assert_eq!(settings, Settings::default(), "{name}={value}");
            assert_eq!(complaints, [name]);
        }
    }
}
