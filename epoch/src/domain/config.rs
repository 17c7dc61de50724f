//! How a domain is built, and what is refused.

use std::fmt;
use std::time::Duration;

use super::Domain;
use crate::batch::sealed::Totals;
use crate::stall::GuardReport;

/// Settings of a [`Domain`]. Every setting has a default.
///
/// ```
/// use flagstone_epoch::Domain;
///
/// let domain = Domain::builder().name("sessions").watermark(1 << 20).hard_limit(8 << 20).build()?;
/// assert_eq!(domain.name(), "sessions");
/// # Ok::<(), flagstone_epoch::ConfigError>(())
/// ```
#[must_use]
pub struct Builder {
    name: String,
    config: Config,
}

/// What runs when a guard stalls.
pub(crate) type OnStall = Box<dyn Fn(&GuardReport) + Send + Sync>;

pub(crate) struct Config {
    pub(crate) batch_blocks: u32,
    pub(crate) batch_bytes: u64,
    pub(crate) batch_age: Duration,
    pub(crate) watermark: u64,
    pub(crate) hard_limit: u64,
    pub(crate) stall_after: Duration,
    pub(crate) on_stall: Option<OnStall>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            name: String::from("default"),
            config: Config {
                // Small under a model checker and under Miri, so that batches fill there too. Else the
                // knee as measured at 64 retires per guard: 128 costs 1.6 times as much per retire,
                // 2,048 a tenth less.
                batch_blocks: if cfg!(any(miri, flagstone_loom)) { 4 } else { 512 },
                batch_bytes: 64 << 10,
                batch_age: Duration::from_millis(100),
                watermark: 16 << 20,
                hard_limit: u64::MAX,
                stall_after: Duration::from_secs(1),
                on_stall: None,
            },
        }
    }

    /// Name of the domain in statistics and warnings. Default `default`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Most objects in a batch, 1 to 65,535. Default 512.
    pub fn batch_blocks(mut self, blocks: u32) -> Self {
        self.config.batch_blocks = blocks;
        self
    }

    /// Most bytes in a batch, except that one larger object may be a batch alone. Default 64 KiB;
    /// an eighth of the hard limit, if that is lower.
    pub fn batch_bytes(mut self, bytes: u64) -> Self {
        self.config.batch_bytes = bytes;
        self
    }

    /// Age at which an open batch is handed over though it is not full. Default 100 ms.
    ///
    /// Checked by its participant every 64 outermost guards, and by [`Domain::maintain`], which asks
    /// participants with an older batch to hand it over at their next leave or retire.
    pub fn batch_age(mut self, age: Duration) -> Self {
        self.config.batch_age = age;
        self
    }

    /// Pending bytes above which a thread that hands a batch over helps to collect. Default 16 MiB;
    /// the hard limit, if that is lower.
    pub fn watermark(mut self, bytes: u64) -> Self {
        self.config.watermark = bytes;
        self
    }

    /// Pending bytes that the `try_retire` functions never pass. Default: none.
    ///
    /// [`Participant::retire`](crate::Participant::retire) and its kind take the object all the same.
    pub fn hard_limit(mut self, bytes: u64) -> Self {
        self.config.hard_limit = bytes;
        self
    }

    /// Time after which a guard still held counts as stalled. Default 1 s.
    pub fn stall_after(mut self, age: Duration) -> Self {
        self.config.stall_after = age;
        self
    }

    /// Called once for each guard that stalls, besides the `tracing` warning.
    ///
    /// It runs on the thread that noticed: one in [`Domain::check_stalls`], [`Domain::maintain`], or
    /// one whose retire helps because pending bytes are above the watermark. A panic in it is caught
    /// and logged.
    pub fn on_stall(mut self, report: impl Fn(&GuardReport) + Send + Sync + 'static) -> Self {
        self.config.on_stall = Some(Box::new(report));
        self
    }

    /// Builds the domain.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is out of its range.
    pub fn build(self) -> Result<Domain, ConfigError> {
        let Self { name, mut config } = self;
        if !(1..=Totals::MAX_BLOCKS).contains(&config.batch_blocks) {
            return Err(ConfigError::BatchBlocks(config.batch_blocks));
        }
        if !(1..=Config::MAX_OBJECT).contains(&config.batch_bytes) {
            return Err(ConfigError::BatchBytes(config.batch_bytes));
        }
        if config.hard_limit == 0 {
            return Err(ConfigError::HardLimit);
        }
        config.watermark = config.watermark.min(config.hard_limit);
        // Open batches set bytes aside; they should not use up a small limit among a few threads.
        config.batch_bytes = config.batch_bytes.min((config.hard_limit / 8).max(1));
        Ok(Domain::with(name, config))
    }

    pub(crate) fn build_default(self) -> Domain {
        Domain::with(self.name, self.config)
    }
}

impl Config {
    /// Bytes that one object can count for; a larger figure counts as this. Two of them fit a batch.
    pub(crate) const MAX_OBJECT: u64 = Totals::MAX_BYTES / 2;
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("batch_blocks", &self.batch_blocks)
            .field("batch_bytes", &self.batch_bytes)
            .field("batch_age", &self.batch_age)
            .field("watermark", &self.watermark)
            .field("hard_limit", &self.hard_limit)
            .field("stall_after", &self.stall_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).field("config", &self.config).finish()
    }
}

/// A setting that [`Builder::build`] refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Objects per batch out of range.
    BatchBlocks(u32),
    /// Bytes per batch out of range.
    BatchBytes(u64),
    /// A hard limit of zero, under which nothing could be retired.
    HardLimit,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BatchBlocks(n) => {
                write!(f, "batch_blocks is {n}, must be 1 to {}", Totals::MAX_BLOCKS)
            }
            Self::BatchBytes(n) => {
                write!(f, "batch_bytes is {n}, must be 1 to {}", Config::MAX_OBJECT)
            }
            Self::HardLimit => f.write_str("hard_limit is 0, nothing could be retired"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let refused = |builder: Builder| builder.build().expect_err("out of range");
        assert_eq!(refused(Domain::builder().batch_blocks(0)), ConfigError::BatchBlocks(0));
        assert_eq!(
            refused(Domain::builder().batch_blocks(65_536)),
            ConfigError::BatchBlocks(65_536)
        );
        assert_eq!(refused(Domain::builder().batch_bytes(0)), ConfigError::BatchBytes(0));
        assert_eq!(refused(Domain::builder().hard_limit(0)), ConfigError::HardLimit);
        assert!(ConfigError::BatchBlocks(0).to_string().contains("batch_blocks is 0"));
    }

    #[test]
    fn the_watermark_is_never_above_the_limit() {
        let domain = Domain::builder().hard_limit(1000).build().expect("in range");
        assert_eq!(domain.snapshot().watermark_bytes, 1000);
        assert_eq!(domain.snapshot().hard_limit_bytes, Some(1000));
    }
}
