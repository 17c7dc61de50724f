//! Settings: their defaults, the configuration file, and the part that may change while serving.
//!
//! Precedence is flag, then file, then default. The file is TOML; a key that is not known is an
//! error, because a misspelt limit that is silently ignored is worse than none.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::number::parse_bytes;
use crate::resp::scan::WireLimits;
use crate::sync::Counter;

/// Databases that `SELECT` can choose from.
pub const DATABASES: usize = 16;

/// Everything that a server is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where RESP is served.
    pub resp: SocketAddr,
    /// Where metrics and the dashboard are served.
    pub admin: SocketAddr,
    /// Whether `admin` may be an address that other machines can reach.
    pub admin_allow_remote: bool,
    /// Worker threads; `None` for one per core.
    pub workers: Option<usize>,
    /// Bytes in use from which on writes are refused; 0 for no limit.
    pub maxmemory: u64,
    /// Connections served at a time; further ones get an error.
    pub maxclients: usize,
    /// Shards of each database, a power of two.
    pub shards: usize,
    /// Idle time after which a connection is closed; zero for never.
    pub timeout: Duration,
    /// Time between two TCP keepalive probes; zero for none.
    pub tcp_keepalive: Duration,
    /// How long a shutdown waits for replies to be taken.
    pub shutdown_timeout: Duration,
    /// What a client may send.
    pub wire: WireLimits,
    /// Replies waiting for a client that has no subscription.
    pub output_normal: OutputLimit,
    /// Messages waiting for a subscriber.
    pub output_pubsub: OutputLimit,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            resp: SocketAddr::from((Ipv4Addr::LOCALHOST, 7379)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, 9600)),
            admin_allow_remote: false,
            workers: None,
            maxmemory: 0,
            maxclients: 10_000,
            shards: 64,
            timeout: Duration::ZERO,
            tcp_keepalive: Duration::from_secs(300),
            shutdown_timeout: Duration::from_secs(10),
            wire: WireLimits::default(),
            output_normal: OutputLimit { hard: 1 << 30, soft: 0, soft_seconds: 0 },
            output_pubsub: OutputLimit { hard: 32 << 20, soft: 8 << 20, soft_seconds: 60 },
        }
    }
}

/// When a client that does not read is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputLimit {
    /// Bytes that close it at once; 0 for no limit.
    #[serde(deserialize_with = "byte_size")]
    pub hard: u64,
    /// Bytes that close it if they stay for `soft_seconds`; 0 for no limit.
    #[serde(default, deserialize_with = "byte_size")]
    pub soft: u64,
    /// See `soft`.
    #[serde(default)]
    pub soft_seconds: u64,
}

/// Why settings are of no use.
#[derive(Debug)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file could not be read.
    Read(PathBuf, std::io::Error),
    /// The file is not what it should be; the text is one line.
    Parse(PathBuf, String),
    /// A value is out of its range.
    Value(&'static str, String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, e) => write!(f, "cannot read {}: {e}", path.display()),
            Self::Parse(path, e) => write!(f, "{}: {e}", path.display()),
            Self::Value(key, e) => write!(f, "{key}: {e}"),
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(_, e) => Some(e),
            _ => None,
        }
    }
}

/// The configuration file: every key may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    resp: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    admin_allow_remote: Option<bool>,
    workers: Option<usize>,
    #[serde(default, deserialize_with = "some_byte_size")]
    maxmemory: Option<u64>,
    maxclients: Option<usize>,
    shards: Option<usize>,
    timeout_seconds: Option<u64>,
    tcp_keepalive_seconds: Option<u64>,
    shutdown_timeout_seconds: Option<u64>,
    #[serde(default)]
    limits: FileLimits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    max_elements: Option<usize>,
    #[serde(default, deserialize_with = "some_byte_size")]
    max_bulk: Option<u64>,
    #[serde(default, deserialize_with = "some_byte_size")]
    max_inline: Option<u64>,
    #[serde(default, deserialize_with = "some_byte_size")]
    max_request: Option<u64>,
    output_normal: Option<OutputLimit>,
    output_pubsub: Option<OutputLimit>,
}

impl Settings {
    /// The defaults with what the file at `path` says instead.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has a key that is not known, or a value of a wrong type.
    pub fn from_file(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SettingsError::Read(path.to_owned(), error))?;
        Self::from_toml(&text).map_err(|error| SettingsError::Parse(path.to_owned(), error))
    }

    /// The defaults with what a file of this text says instead.
    ///
    /// # Errors
    /// The text is no TOML, has a key that is not known, or a value of a wrong type. One line, which says
    /// where.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            let message = error.message().replace('\n', " ");
            match error.span() {
                Some(span) => format!("line {}: {message}", line_of(text, span.start)),
                None => message,
            }
        })?;
        let default = Self::default();
        let size = |given: Option<u64>, default: usize| {
            given.map_or(default, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        let seconds = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        Ok(Self {
            resp: file.resp.unwrap_or(default.resp),
            admin: file.admin.unwrap_or(default.admin),
            admin_allow_remote: file.admin_allow_remote.unwrap_or(default.admin_allow_remote),
            workers: file.workers.or(default.workers),
            maxmemory: file.maxmemory.unwrap_or(default.maxmemory),
            maxclients: file.maxclients.unwrap_or(default.maxclients),
            shards: file.shards.unwrap_or(default.shards),
            timeout: seconds(file.timeout_seconds, default.timeout),
            tcp_keepalive: seconds(file.tcp_keepalive_seconds, default.tcp_keepalive),
            shutdown_timeout: seconds(file.shutdown_timeout_seconds, default.shutdown_timeout),
            wire: WireLimits {
                elements: file.limits.max_elements.unwrap_or(default.wire.elements),
                bulk: size(file.limits.max_bulk, default.wire.bulk),
                inline: size(file.limits.max_inline, default.wire.inline),
                request: size(file.limits.max_request, default.wire.request),
            },
            output_normal: file.limits.output_normal.unwrap_or(default.output_normal),
            output_pubsub: file.limits.output_pubsub.unwrap_or(default.output_pubsub),
        })
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key, why: &str| Err(SettingsError::Value(key, why.to_owned()));
        if self.workers == Some(0) {
            return refuse("workers", "at least one is needed");
        }
        if self.workers.is_some_and(|n| n > 1024) {
            return refuse("workers", "at most 1024 are possible");
        }
        if !self.shards.is_power_of_two() || self.shards > 1 << 12 {
            return refuse("shards", "a power of two up to 4096 is needed");
        }
        if self.maxclients == 0 {
            return refuse("maxclients", "at least one is needed");
        }
        if self.wire.elements == 0 || self.wire.elements > i32::MAX as usize {
            return refuse("limits.max_elements", "must be between 1 and 2147483647");
        }
        if self.wire.bulk == 0 || self.wire.bulk > 4 << 30 {
            return refuse("limits.max_bulk", "must be between 1 byte and 4 GiB");
        }
        if self.wire.request < self.wire.bulk {
            return refuse("limits.max_request", "must be at least limits.max_bulk");
        }
        Ok(())
    }
}

/// The settings that `CONFIG SET` changes, read by every connection.
#[derive(Debug, Default)]
pub struct Tunables {
    /// See [`Settings::maxmemory`].
    pub maxmemory: Counter,
    /// See [`Settings::maxclients`].
    pub maxclients: Counter,
    /// See [`Settings::timeout`], in seconds.
    pub timeout: Counter,
    /// See [`Settings::output_normal`].
    pub output_normal: TunableLimit,
    /// See [`Settings::output_pubsub`].
    pub output_pubsub: TunableLimit,
}

/// An [`OutputLimit`] that may change. Its parts are read one by one: between two of them a change
/// may happen, which mixes two settings that are both valid.
#[derive(Debug, Default)]
pub struct TunableLimit {
    hard: Counter,
    soft: Counter,
    soft_seconds: Counter,
}

impl TunableLimit {
    /// The limit now.
    pub fn get(&self) -> OutputLimit {
        OutputLimit {
            hard: self.hard.get(),
            soft: self.soft.get(),
            soft_seconds: self.soft_seconds.get(),
        }
    }

    /// Puts a limit in its place.
    pub fn set(&self, limit: OutputLimit) {
        self.hard.set(limit.hard);
        self.soft.set(limit.soft);
        self.soft_seconds.set(limit.soft_seconds);
    }
}

impl Tunables {
    /// As `settings` say.
    pub fn new(settings: &Settings) -> Self {
        let tunables = Self::default();
        tunables.maxmemory.set(settings.maxmemory);
        tunables.maxclients.set(settings.maxclients as u64);
        tunables.timeout.set(settings.timeout.as_secs());
        tunables.output_normal.set(settings.output_normal);
        tunables.output_pubsub.set(settings.output_pubsub);
        tunables
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// A byte size: an integer, or a string with a unit.
fn byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a byte size such as 1048576 or \"512mb\"")]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Number(bytes) => Ok(bytes),
        Size::Text(text) => parse_bytes(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("{text:?} is no byte size such as \"512mb\""))
        }),
    }
}

fn some_byte_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    byte_size(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(Settings::from_toml("").unwrap(), Settings::default());
        Settings::default().check().unwrap();
    }

    #[test]
    fn a_file_with_everything() {
        let settings = Settings::from_toml(
            r#"
            resp = "127.0.0.1:1"
            admin = "[::1]:2"
            admin_allow_remote = true
            workers = 3
            maxmemory = "512mb"
            maxclients = 5
            shards = 8
            timeout_seconds = 7
            tcp_keepalive_seconds = 8
            shutdown_timeout_seconds = 9
            [limits]
            max_elements = 10
            max_bulk = 11
            max_inline = "1kb"
            max_request = "1mb"
            output_normal = { hard = "2mb" }
            output_pubsub = { hard = 3, soft = "1b", soft_seconds = 4 }
            "#,
        )
        .unwrap();
        assert_eq!(settings.maxmemory, 512 << 20);
        assert_eq!(settings.workers, Some(3));
        assert_eq!(settings.wire.inline, 1024);
        assert_eq!(settings.output_normal.hard, 2 << 20);
        assert_eq!(settings.output_pubsub, OutputLimit { hard: 3, soft: 1, soft_seconds: 4 });
        assert_eq!(settings.timeout, Duration::from_secs(7));
        settings.check().unwrap();
    }

    #[test]
    fn bad_files_say_where_in_one_line() {
        for (text, expected) in [
            ("resp = \"x\"", "line 1"),
            ("\nmax_memory = 1", "line 2: unknown field `max_memory`"),
            ("maxmemory = \"much\"", "is no byte size"),
            ("maxmemory = -1", "a byte size"),
            ("[limits]\nmax_bulks = 1", "line 2: unknown field"),
            ("resp = ", "line 1"),
        ] {
            let error = Settings::from_toml(text).unwrap_err();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn values_out_of_range() {
        for (change, key) in [
            ("workers = 0", "workers"),
            ("shards = 3", "shards"),
            ("maxclients = 0", "maxclients"),
            ("[limits]\nmax_elements = 0", "limits.max_elements"),
            ("[limits]\nmax_bulk = 0", "limits.max_bulk"),
            ("[limits]\nmax_request = 1", "limits.max_request"),
        ] {
            let error = Settings::from_toml(change).unwrap().check().unwrap_err();
            assert!(error.to_string().starts_with(key), "{change}: {error}");
        }
    }
}
